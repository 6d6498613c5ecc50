"""The command `mmm encode`, and what `mmm-search encode` shares with it."""

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from mmm.encoders import DEFAULT_CHUNK_S as DEFAULT_CHUNK_S
from mmm.encoders import Running, SpeechEncoder, TextEncoder, make_speech_encoder, make_text_encoder
from mmm.files import write_text
from mmm.precision import resolve_precision
from mmm.store import AUDIO_FEATURES, MAX_CONTEXT, list_recipes
from mmm.terminal import console as console

if (
    TYPE_CHECKING
):  # pandas and torch are imported inside the commands: --help must not wait for them
    from mmm.encoding import Runner
    from mmm.extract import Progress as Step
    from mmm.manifest import Manifest
    from mmm.sound import SoundInfo

_PUBLISHED = {"speech": "kresnik/wav2vec2-large-xlsr-korean", "text": "beomi/KcELECTRA-base"}
# Seconds of speech a batch. On a CPU one file at a time is faster than padded batches
# (benchmarks/encode.py).
_BATCH_S = {"cpu": 0.0, "cuda": 120.0}
# Frames a second of a pretrained model. The mixer loses nothing by it and takes a third of the time
# (docs/LOG.md, 2026-11-26); pooled vectors are the mean of every frame whatever is kept.
_FRAME_RATE = 12.5
# Tokens a batch. Texts are short, about 20 tokens: one at a time would read the weights from memory
# for each (not measured yet).
_BATCH_TOKENS = {"cpu": 512, "cuda": 8192}

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


@dataclass(frozen=True)
class EncodeOptions:
    """What to encode with, checked; processes elsewhere make the same encoders of it."""

    speech: str
    text: str
    speech_options: "SpeechOptions"
    text_options: "TextOptions"
    features: tuple[str, ...]
    contexts: tuple[int, ...]
    batch_s: float
    batch_tokens: int

    def make_speech(self) -> SpeechEncoder:
        """The encoder with its weights still on the disk."""
        return make_speech_encoder(self.speech, **self.speech_options, lazy=True)

    def make_text(self) -> TextEncoder:
        return make_text_encoder(self.text, **self.text_options, lazy=True)

    def pinned(self, speech: SpeechEncoder, text: TextEncoder) -> "EncodeOptions":
        """With the revisions that were found here, so that other machines take the same."""
        revisions = speech.recipe("hidden_state").get("revision"), text.recipe().get("revision")
        return dataclasses.replace(
            self,
            speech_options=self.speech_options | {"revision": revisions[0]},
            text_options=self.text_options | {"revision": revisions[1]},
        )


class SpeechOptions(TypedDict):
    frame_rate: float | None
    num_mels: int
    layer: str
    revision: str | None
    running: Running


class TextOptions(TypedDict):
    width: int
    max_tokens: int
    revision: str | None
    running: Running


def comma_list(text: str, option: str) -> list[str]:
    """`a,b` -> ["a", "b"]. Raises ValueError where nothing is named."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise ValueError(f"{option} is empty; expected names divided by commas")
    return list(dict.fromkeys(parts))


def kept_frame_rate(features: Path, audio_encoder: str, asked: float | None) -> float | None:
    """Frames a second that stores keep; None where the encoder's own way is meant.

    Where nothing is asked for, as the folder has it of this encoder, so that the same command adds
    to its stores.
    """
    if audio_encoder == "fbank":
        return asked
    if asked is not None:
        return asked or None
    names = {
        audio_encoder,
        str(Path(audio_encoder).resolve()),
        *([_PUBLISHED["speech"]] if audio_encoder == "published" else []),
    }
    if features.is_dir():
        for recipe in list_recipes(features).values():
            if recipe["kind"] == "audio" and recipe["encoder"] in names:
                rate: float | None = recipe.get("frame_rate_hz")
                return rate
    return None if audio_encoder == "published" else _FRAME_RATE


def check_options(
    *,
    audio_encoder: str,
    text_encoder: str,
    context: str,
    audio_feature: str,
    layer: str,
    frame_rate: float | None,
    num_mels: int,
    text_width: int,
    max_tokens: int,
    audio_revision: str | None,
    text_revision: str | None,
    precision: str,
    batch_seconds: float | None,
    chunk_seconds: float,
    device: str,
) -> EncodeOptions:
    """Raises ValueError for what cannot be."""
    kept = comma_list(audio_feature, "--audio-feature")
    for name in kept:
        if name not in AUDIO_FEATURES:
            raise ValueError(f"--audio-feature {name!r} is none of {', '.join(AUDIO_FEATURES)}")
    contexts = []
    for part in comma_list(context, "--context"):
        if not part.isdigit() or not 1 <= int(part) <= MAX_CONTEXT:
            raise ValueError(
                f"--context {part!r} is out of range; expected whole numbers from 1 to"
                f" {MAX_CONTEXT}"
            )
        contexts.append(int(part))
    kind = device.partition(":")[0]
    if kind not in _BATCH_S:
        raise ValueError(f"--device {device!r} is not understood; expected cpu, cuda or cuda:N")
    if batch_seconds is not None and not 0 <= batch_seconds < 1e5:
        raise ValueError(
            f"--batch-seconds {batch_seconds:g} is out of range; expected 0 (one file at a time) or"
            " more"
        )
    running = Running(device, resolve_precision(precision, device), chunk_seconds)
    return EncodeOptions(
        speech=_PUBLISHED["speech"] if audio_encoder == "published" else audio_encoder,
        text=_PUBLISHED["text"] if text_encoder == "published" else text_encoder,
        speech_options={
            "frame_rate": frame_rate,
            "num_mels": num_mels,
            "layer": layer,
            "revision": audio_revision,
            "running": running,
        },
        text_options={
            "width": text_width,
            "max_tokens": max_tokens,
            "revision": text_revision,
            "running": running,
        },
        features=tuple(kept),
        contexts=tuple(contexts),
        batch_s=_BATCH_S[kind] if batch_seconds is None else batch_seconds,
        batch_tokens=_BATCH_TOKENS[kind],
    )


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
    from mmm.encoding import default_threads, run_here

    checked = manifest_to_encode(manifest, skip_bad)
    if threads is not None and threads < 1:
        raise ValueError(f"--threads {threads} is too small; expected at least 1")
    if device != "cpu":
        from mmm.run import resolve_device

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
    runner = run_here(threads or (default_threads() if device == "cpu" else 2))
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
    from mmm.encoders.audio import describe_conversions
    from mmm.extract import encode_speech, encode_text

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
    from mmm.clips import find_bad_files
    from mmm.manifest import read_manifest, read_table

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
