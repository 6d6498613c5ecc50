"""The command `mmm encode`, and what `mmm-search encode` shares with it."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from mmm.console import console as console
from mmm.encoders import DEFAULT_CHUNK_S as DEFAULT_CHUNK_S
from mmm.encoders import SpeechEncoder, TextEncoder
from mmm.files import write_text

if (
    TYPE_CHECKING
):  # pandas and torch are imported inside the commands: --help must not wait for them
    from mmm.audio.sound import SoundInfo
    from mmm.encoders.extract import Progress as Step
    from mmm.encoders.jobs import Runner
    from mmm.manifest import Manifest
from mmm.encoders.options import EncodeOptions, check_options, kept_frame_rate

ManifestPath = Annotated[Path, typer.Argument(help="manifest.csv", show_default=False)]
FeaturesDir = Annotated[
    Path, typer.Option("--features", help="Folder of feature stores.", show_default=False)
]
AudioEncoder = Annotated[
    str, typer.Option(help="fbank (built in), published, a Hugging Face id, or a folder.")
]
TextEncoderName = Annotated[
    str, typer.Option(help="char-ngram (built in), published, a Hugging Face id, or a folder.")
]
Contexts = Annotated[
    str, typer.Option(help="Utterances of context K to encode text for, the current one included.")
]
AudioFeatures = Annotated[str, typer.Option(help="Speech features to keep.")]
Layer = Annotated[
    str,
    typer.Option(
        help=(
            "hidden_state: last, one layer (9), several side by side (6,9,12), or their mean"
            " (mean:6-12)."
        )
    ),
]
FrameRate = Annotated[
    float | None,
    typer.Option(
        help=(
            r"Frames a second to keep, means of neighbours; 0: every frame of a pretrained model"
            r" \[fbank 25, published 0, others 12.5, "
            "or as the folder has it]."
        )
    ),
]
NumMels = Annotated[int, typer.Option(help="fbank: mel bands.")]
TextWidth = Annotated[int, typer.Option(help="char-ngram: numbers a word.")]
MaxTokens = Annotated[int, typer.Option(help="char-ngram: words kept, the latest turns first.")]
# Rich takes [what is cached] for a style and prints nothing of it, unless its bracket is escaped.
AudioRevision = Annotated[
    str | None,
    typer.Option(
        help=r"Commit, tag or branch of a hub's speech model \[what is cached, else main]."
    ),
]
TextRevision = Annotated[str | None, typer.Option(help="The same of the text model.")]
Precision = Annotated[
    str, typer.Option(help="auto (bf16 where the device multiplies it), float32, bf16, fp16.")
]
BatchSeconds = Annotated[
    float | None, typer.Option(help="Speech a batch, 0 for one file at a time [CPU 0, GPU 120].")
]
ChunkSeconds = Annotated[
    float, typer.Option(help="Longer speech is encoded in overlapping chunks of this.")
]
Threads = Annotated[
    int | None, typer.Option(help=r"Files at a time on the CPU, each on one core \[one a core].")
]
SkipBad = Annotated[
    bool,
    typer.Option(
        "--skip-bad", help="Leave out audio that cannot be used; writes a manifest without it."
    ),
]
DeviceName = Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N.")]


def encode(
    manifest: ManifestPath,
    features: FeaturesDir,
    audio_encoder: AudioEncoder = "fbank",
    text_encoder: TextEncoderName = "char-ngram",
    context: Contexts = "1,2,3,4,5",
    audio_feature: AudioFeatures = "hidden_state,extract_feature",
    layer: Layer = "last",
    frame_rate: FrameRate = None,
    num_mels: NumMels = 64,
    text_width: TextWidth = 256,
    max_tokens: MaxTokens = 128,
    audio_revision: AudioRevision = None,
    text_revision: TextRevision = None,
    precision: Precision = "auto",
    batch_seconds: BatchSeconds = None,
    chunk_seconds: ChunkSeconds = DEFAULT_CHUNK_S,
    threads: Threads = None,
    skip_bad: SkipBad = False,
    device: DeviceName = "cpu",
) -> None:
    """Encode every utterance once; what is already there is kept, and what was killed goes on where
    it was.
    """
    from mmm.device import cpus_here
    from mmm.encoders.jobs import run_here

    checked = manifest_to_encode(manifest, skip_bad)
    if threads is not None and threads < 1:
        raise ValueError(f"--threads {threads} is too small; expected at least 1")
    if device != "cpu":
        from mmm.device import resolve_device

        resolve_device(device)
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
        device=device,
    )
    # On a GPU two: one file is read while another is encoded.
    runner = run_here(threads or (cpus_here() if device == "cpu" else 2))
    encode_manifest(
        checked, features, options, options.make_speech(), options.make_text(), runner, runner
    )


def encode_manifest(
    manifest: "Manifest",
    features: Path,
    options: EncodeOptions,
    speech: SpeechEncoder,
    text: TextEncoder,
    run_speech: "Runner",
    run_text: "Runner",
) -> None:
    """Encode speech and text with a progress bar."""
    from mmm.audio.speech import describe_conversions
    from mmm.encoders.extract import encode_speech, encode_text

    speech_steps = encode_speech(
        manifest, features, speech, options.features, batch_s=options.batch_s, run=run_speech
    )
    text_steps = encode_text(
        manifest, features, text, options.contexts, batch_tokens=options.batch_tokens, run=run_text
    )
    with _bar() as bar:
        files, encoded_s, took_s = _show(bar, speech_steps)
        _show(bar, text_steps)
    if files:
        console.print(describe_conversions(files), highlight=False, soft_wrap=True)
        console.print(
            f"{encoded_s / 3600:.2f} hours of speech encoded in {took_s:.0f} s:"
            f" {encoded_s / max(took_s, 1e-9):.1f} audio hours an hour",
            highlight=False,
        )
    console.print(
        f"{len(manifest.utterances)} utterances encoded in {features}",
        highlight=False,
        soft_wrap=True,
    )


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description:<16}"),
        BarColumn(),
        TextColumn("{task.fields[count]:>15}"),
        TextColumn("{task.fields[speed]:>20}"),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )


def _show(bar: Progress, steps: Iterator["Step"]) -> tuple[list["SoundInfo"], float, float]:
    """Draw steps; files and seconds of speech that were encoded, and seconds that it took."""
    tasks = {}
    files: list[SoundInfo] = []
    started, encoded_s = time.perf_counter(), 0.0
    for step in steps:
        if step.task not in tasks:
            tasks[step.task] = bar.add_task(step.task, total=None, count="", speed="")
            started = started if step.seconds_total == 0 else time.perf_counter()
        encoded_s = max(encoded_s, step.seconds)
        files.extend(step.files)
        elapsed = max(time.perf_counter() - started, 1e-9)
        # By seconds of speech where there is any: the longest come first, so utterances would
        # mislead.
        done, total = (
            (step.seconds, step.seconds_total) if step.seconds_total else (step.done, step.total)
        )
        speed = f"{step.seconds / elapsed:.0f} audio hours/h" if step.seconds_total else ""
        bar.update(
            tasks[step.task],
            completed=done,
            total=total,
            count=f"{step.done}/{step.total}",
            speed=speed,
        )
    return files, encoded_s, time.perf_counter() - started


def manifest_to_encode(path: Path, skip_bad: bool) -> "Manifest":
    """The manifest, or with `skip_bad` one beside it without the audio that cannot be used. Says
    what was left out.
    """
    from mmm.features.clips import find_bad_files
    from mmm.manifest_csv import read_manifest, read_table

    manifest = read_manifest(path, check_audio=not skip_bad)
    if not skip_bad:
        return manifest
    num_clips = len({utterance.audio for utterance in manifest.utterances})
    bad = []
    with _bar() as bar:
        task = bar.add_task("checking audio", total=num_clips, count="", speed="")
        for number, fault in find_bad_files(manifest):
            bar.update(task, completed=number, count=f"{number}/{num_clips}")
            if fault:
                bad.append(fault)
    if not bad:
        return manifest
    table, _ = read_table(path)
    left_out = {identity for fault in bad for identity in fault.utterance_ids}
    kept = table[~table["utterance_id"].str.strip().isin(left_out)]
    import pandas as pd

    good, listed = path.with_suffix(".good.csv"), path.with_suffix(".bad_files.csv")
    reasons = pd.DataFrame(
        [(i, fault.audio, fault.reason) for fault in bad for i in fault.utterance_ids],
        columns=["utterance_id", "audio", "reason"],
    )
    write_text(listed, reasons.to_csv(index=False, lineterminator="\n"))
    write_text(good, kept.to_csv(index=False, lineterminator="\n"))
    console.print(
        f"left out: {len(left_out)} of {len(table)} utterances whose audio cannot be used; the list"
        f" with reasons is {listed}\nfrom here on use the manifest without them: {good}",
        highlight=False,
        soft_wrap=True,
    )
    return read_manifest(good)
