"""The command `mmm-search encode`."""

from typing import Annotated

import typer

from mmm.cli import encode as shared
from mmm.encoders.options import check_options, kept_frame_rate


def encode(
    manifest: shared.ManifestPath,
    features: shared.FeaturesDir,
    audio_encoder: shared.AudioEncoder = "fbank",
    text_encoder: shared.TextEncoderName = "char-ngram",
    context: shared.Contexts = "1,2,3,4,5",
    audio_feature: shared.AudioFeatures = "hidden_state,extract_feature",
    layer: shared.Layer = "last",
    frame_rate: shared.FrameRate = None,
    num_mels: shared.NumMels = 64,
    text_width: shared.TextWidth = 256,
    max_tokens: shared.MaxTokens = 128,
    audio_revision: shared.AudioRevision = None,
    text_revision: shared.TextRevision = None,
    precision: shared.Precision = "auto",
    batch_seconds: shared.BatchSeconds = None,
    chunk_seconds: shared.ChunkSeconds = shared.DEFAULT_CHUNK_S,
    skip_bad: shared.SkipBad = False,
    workers: Annotated[
        int | None,
        typer.Option(help="Actors, a core each, the model loaded once in each \\[one a core]."),
    ] = None,
    gpus: Annotated[
        float, typer.Option(help="GPUs that the actors share; 0 encodes on CPUs.")
    ] = 0.0,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to join, for example auto \\[a local one].")
    ] = None,
) -> None:
    """What `mmm encode` does, on a Ray cluster: the same batches, one store, the same bytes. All
    nodes need to see the audio.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"--workers {workers} is too small; expected at least 1")
    if gpus < 0:
        raise ValueError(f"--gpus {gpus:g} is negative")
    if address is not None and workers is None:
        raise ValueError(
            "--address without --workers: say how many actors the cluster is to run at a time"
        )
    checked = shared.manifest_to_encode(manifest, skip_bad)
    if gpus and precision == "auto":
        precision = "bf16"  # of the cluster's GPUs, which this machine need not have
    options = check_options(
        audio_encoder=audio_encoder,
        text_encoder=text_encoder,
        context=context,
        audio_feature=audio_feature,
        layer=layer,
        frame_rate=kept_frame_rate(features, audio_encoder, frame_rate),
        num_mels=num_mels,
        text_width=text_width,
        max_tokens=max_tokens,
        audio_revision=audio_revision,
        text_revision=text_revision,
        precision=precision,
        batch_seconds=batch_seconds,
        chunk_seconds=chunk_seconds,
        device="cuda" if gpus else "cpu",
    )
    from mmm.device import cpus_here
    from search.cluster.connect import connect, disconnect
    from search.cluster.encode import run_on_ray

    speech, text = options.make_speech(), options.make_text()
    options = options.pinned(speech, text)
    num_actors = workers or (max(1, int(gpus)) if gpus else cpus_here())
    connect(address, num_actors, gpus, {"CPU": float(num_actors), "GPU": gpus})
    try:
        shared.encode_manifest(
            checked,
            features,
            options,
            speech,
            text,
            run_on_ray(options, "speech", num_actors, gpus),
            run_on_ray(options, "text", num_actors, gpus),
        )
    finally:
        disconnect()
