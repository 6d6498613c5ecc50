"""The command `mmm encode`, and what `mmm-search encode` shares with it."""

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from mmm.cli.options import options_of
from mmm.console import console, progress_of
from mmm.encoders.encodings import encodings
from mmm.encoders.options import EncodeOptions, Modality, pinned
from mmm.encoders.right_kind import open_encoders
from mmm.features.recipe import identity_of
from mmm.files import write_text
from mmm.training.config import Params

# What imports pandas and torch is imported inside the commands: --help must not wait for it.
if TYPE_CHECKING:
    from mmm.audio.sound import SoundInfo
    from mmm.encoders.extract import Progress as Step
    from mmm.encoders.jobs import Runner
    from mmm.manifest import Manifest

ManifestPath = Annotated[Path, typer.Argument(help="manifest.csv", show_default=False)]
FeaturesDir = Annotated[
    Path, typer.Option("--features", help="Folder of feature stores.", show_default=False)
]
SkipBad = Annotated[
    bool,
    typer.Option(
        "--skip-bad", help="Leave out audio that cannot be used; writes a manifest without it."
    ),
]
DeviceName = Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N.")]


SpeechOnly = Annotated[bool, typer.Option("--speech-only", help="Leave the text alone.")]
TextOnly = Annotated[bool, typer.Option("--text-only", help="Leave the speech alone.")]
# Opens what runs the batches of an encoder, by its options and kind.
Runners = Callable[[], AbstractContextManager[Callable[[EncodeOptions, Modality], "Runner"]]]


@options_of(EncodeOptions)
def encode(
    manifest: ManifestPath,
    features: FeaturesDir,
    given: Params,
    speech_only: SpeechOnly = False,
    text_only: TextOnly = False,
    threads: Annotated[
        int | None,
        typer.Option(help=r"Files at a time on the CPU, each on one core \[one a core]."),
    ] = None,
    skip_bad: SkipBad = False,
    device: DeviceName = "cpu",
) -> None:
    """Encode every utterance once; what is already there is kept, and what was killed goes on where
    it was. A folder may hold several encoders, added one after another.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"--threads {threads} is too small; expected at least 1")
    if device != "cpu":
        from mmm.device import resolve_device

        resolve_device(device)

    @contextlib.contextmanager
    def runners() -> Iterator[Callable[[EncodeOptions, Modality], "Runner"]]:
        from mmm.device import cpus_here
        from mmm.encoders.jobs import run_here

        # On a GPU two: one file is read while another is encoded.
        runner = run_here(threads or (cpus_here() if device == "cpu" else 2))
        yield lambda options, kind: runner

    only = only_one(speech_only, text_only)
    encode_manifest(manifest, features, {**given, "device": device}, only, skip_bad, runners)


def only_one(speech_only: bool, text_only: bool) -> Modality | None:
    if speech_only and text_only:
        raise ValueError("--speech-only and --text-only leave nothing to encode; give one of them")
    return "speech" if speech_only else "text" if text_only else None


def encode_manifest(
    path: Path,
    features: Path,
    given: Params,
    only: Modality | None,
    skip_bad: bool,
    runners: Runners,
    *,
    is_here: bool = True,
) -> None:
    """Encode speech and text with a progress bar. Every encoder is loaded before the first file is
    encoded, with its weights where the encoding `is_here`.
    """
    from mmm.audio.speech import describe_conversions
    from mmm.encoders.extract import encode_speech, encode_text
    from mmm.features.named import check_free, keep_names, record_name

    asked: Any = given
    manifest = _manifest_to_encode(path, skip_bad)
    options = EncodeOptions(**asked)
    with console.status("loading encoders"):
        chosen = encodings(options, features, only)
        speech, text = open_encoders(chosen, options, path, features, weights=is_here)
    named = [(one, *what) for one, encoder in speech for what in one.speech_names(encoder)]
    named += [(one, one.text_recipe(encoder), one.name) for one, encoder in text]
    for _, recipe, name in named:
        if name is not None:
            check_free(features, name, identity_of(recipe))
    keep_names(features)
    files: list[SoundInfo] = []
    encoded_s, took_s = 0.0, 0.0
    with runners() as runner_of, _bar() as bar:
        for one, speech_encoder in speech:
            steps = encode_speech(
                manifest,
                features,
                speech_encoder,
                one.speech_features(speech_encoder),
                batch_s=one.options.batch_s,
                run=runner_of(pinned(one.options, speech_encoder, "speech"), "speech"),
            )
            of = one.label if len(speech) > 1 else ""
            more_files, more_s, more_took_s = _show(bar, steps, of)
            files += more_files
            encoded_s, took_s = encoded_s + more_s, took_s + more_took_s
        for one, text_encoder in text:
            text_steps = encode_text(
                manifest,
                features,
                text_encoder,
                one.options.contexts,
                with_speakers=bool(one.options.with_speakers),
                batch_tokens=one.options.batch_tokens,
                run=runner_of(pinned(one.options, text_encoder, "text"), "text"),
            )
            _show(bar, text_steps, one.label if len(text) > 1 else "")
    names = dict.fromkeys(record_name(features, recipe, name) for _, recipe, name in named)
    if files:
        console.say(describe_conversions(files))
        console.say(
            f"{encoded_s / 3600:.2f} hours of speech encoded in {took_s:.0f} s:"
            f" {encoded_s / max(took_s, 1e-9):.1f} audio hours an hour"
        )
    console.say(f"{len(manifest.utterances)} utterances encoded in {features} ({', '.join(names)})")


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description:<16}"),
        BarColumn(),
        TextColumn("{task.fields[count]:>15}"),
        TextColumn("{task.fields[speed]:>20}"),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=progress_of(console),
    )


def _show(
    bar: Progress, steps: Iterator["Step"], of: str
) -> tuple[list["SoundInfo"], float, float]:
    """Draw steps, `of` one of several encoders; files and seconds of speech that were encoded, and
    seconds that it took.
    """
    tasks = {}
    files: list[SoundInfo] = []
    started, encoded_s = time.perf_counter(), 0.0
    for step in steps:
        if step.task not in tasks:
            name = f"{of}: {step.task}" if of else step.task
            tasks[step.task] = bar.add_task(name, total=None, count="", speed="")
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


def _manifest_to_encode(path: Path, skip_bad: bool) -> "Manifest":
    """The manifest, or with `skip_bad` one beside it without the audio that cannot be used. Says
    what was left out.
    """
    from mmm.features.clips import find_bad_files
    from mmm.manifest_csv import read_manifest
    from mmm.manifest_csv.table import read_table

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
    console.say(
        f"left out: {len(left_out)} of {len(table)} utterances whose audio cannot be used; the list"
        f" with reasons is {listed}\nfrom here on use the manifest without them: {good}"
    )
    return read_manifest(good)
