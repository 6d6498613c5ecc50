"""The command `mmm-search encode`."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from mmm.cli.encode import (
    FeaturesDir,
    ManifestPath,
    SkipBad,
    SpeechOnly,
    TextOnly,
    encode_manifest,
    only_one,
)
from mmm.cli.options import options_of
from mmm.console import console
from mmm.encoders.options import EncodeOptions, Modality
from mmm.training.config import Params

if TYPE_CHECKING:
    from mmm.encoders.jobs import Runner


@options_of(EncodeOptions)
def encode(
    manifest: ManifestPath,
    features: FeaturesDir,
    given: Params,
    speech_only: SpeechOnly = False,
    text_only: TextOnly = False,
    skip_bad: SkipBad = False,
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
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            help="Join a cluster that asks for no token, which runs anyone's commands.",
        ),
    ] = False,
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

    @contextlib.contextmanager
    def runners() -> Iterator[Callable[[EncodeOptions, Modality], "Runner"]]:
        from mmm.device import cpus_here
        from search.cluster.connect import connect, disconnect, reach
        from search.cluster.encode import run_on_ray

        num_actors = workers or (max(1, int(gpus)) if gpus else cpus_here())
        wanted = {"CPU": 1.0, "GPU": gpus / num_actors}
        # Each is given batches at once, and one that does not come would keep its own for ever.
        place = reach(address, wanted, num_actors, "actor", may_wait=False, insecure=insecure)
        if place.warning is not None:
            console.say(place.warning)
        connect(place, num_actors, gpus)
        try:
            yield lambda options, kind: run_on_ray(options, kind, num_actors, gpus)
        finally:
            disconnect()

    if gpus and given["precision"] == "auto":
        given = {**given, "precision": "bf16"}  # of the cluster's GPUs, which need not be here
    given = {**given, "device": "cuda" if gpus else "cpu"}
    only = only_one(speech_only, text_only)
    encode_manifest(manifest, features, given, only, skip_bad, runners, is_here=False)
