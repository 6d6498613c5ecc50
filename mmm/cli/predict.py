"""The commands `mmm predict` and `mmm demo`: a bundle's answers as text, tables, JSON, CSV, a
stream or a page.
"""

import csv
import importlib.util
import io
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.cells import cell_len
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import mmm
from mmm.cli.systems import Systems, name_systems
from mmm.console import PlainConsole, console

AudioEncoderFolder = Annotated[
    Path | None, typer.Option("--audio-encoder", help="Folder of a local encoder that moved.")
]
TextEncoderFolder = Annotated[
    Path | None, typer.Option("--text-encoder", help="Folder of a local encoder that moved.")
]


def predict(
    bundle: Annotated[Path, typer.Argument(show_default=False)],
    audio: Annotated[Path | None, typer.Option(help="The utterance's speech.")] = None,
    text: Annotated[
        str | None,
        typer.Option(help="The utterance's text; with --folder, of recordings without a .txt."),
    ] = None,
    history: Annotated[
        list[str] | None, typer.Option(help="Text of an earlier turn; repeat it, oldest first.")
    ] = None,
    history_audio: Annotated[
        list[str] | None,
        typer.Option(help="Speech of each --history turn, in its order; - where there is none."),
    ] = None,
    speaker: Annotated[
        str | None,
        typer.Option(help="Who speaks, for a bundle that reads it; '' where nobody knows."),
    ] = None,
    history_speaker: Annotated[
        list[str] | None, typer.Option(help="Who speaks each --history turn, in its order.")
    ] = None,
    dialogue: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV", help="Every turn of a dialogue: columns audio, text, optional speaker."
        ),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Every recording of a folder: x.wav with its text in x.txt.")
    ] = None,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="JSON lines from stdin, one answer a line on stdout.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON (one line an utterance).")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="CSV to write, with --dialogue or --folder.")
    ] = None,
    calibrated: Annotated[
        bool,
        typer.Option(
            "--calibrated", help="Divide the logits by the temperature fitted on validation."
        ),
    ] = False,
    audio_encoder: AudioEncoderFolder = None,
    text_encoder: TextEncoderFolder = None,
    system: Systems = None,
) -> None:
    """Probabilities of all classes for an utterance, a dialogue, a folder or a stream."""
    chosen = [
        name
        for name, given in (
            ("--audio", audio),
            ("--dialogue", dialogue),
            ("--folder", folder),
            ("--jsonl", jsonl),
        )
        if given
    ]
    if len(chosen) != 1:
        raise ValueError(
            "expected one of --audio with --text, --dialogue, --folder or --jsonl; found"
            f" {' and '.join(chosen) or 'none'}"
        )
    lines, clips, names = history or [], history_audio or [], history_speaker or []
    if (lines or clips or names) and audio is None:
        raise ValueError(f"--history goes with --audio, not with {chosen[0]}")
    if speaker is not None and audio is None and folder is None:
        raise ValueError(f"--speaker goes with --audio or --folder, not with {chosen[0]}")
    if out is not None and dialogue is None and folder is None:
        raise ValueError("--out goes with --dialogue or --folder")
    if text is None and audio is not None:
        raise ValueError("--audio without --text: say what was said (--text '' where nobody knows)")
    if text is not None and audio is None and folder is None:
        raise ValueError(f"--text goes with --audio or --folder, not with {chosen[0]}")
    if clips and len(clips) != len(lines):
        raise ValueError(
            f"{len(clips)} --history-audio for {len(lines)} --history; give one for each, in the"
            " same order, and - for a turn without speech"
        )
    if names and len(names) != len(lines):
        raise ValueError(
            f"{len(names)} --history-speaker for {len(lines)} --history; give one for each, in the"
            " same order, and '' where nobody knows"
        )
    turns = [
        (None if clip == "-" else Path(clip), line, names[place] if names else None)
        for place, (clip, line) in enumerate(zip(clips or ["-"] * len(lines), lines, strict=True))
    ]
    for clip in (audio, *(clip for clip, _, _ in turns)):
        if clip is not None and not clip.is_file():
            raise FileNotFoundError(f"{clip}: no such audio file")
    from mmm.predict.inputs import JsonLines, Line, read_dialogue, read_folder

    utterances: list[Line] = []
    if dialogue is not None:
        utterances = read_dialogue(dialogue)
    elif folder is not None:
        utterances = read_folder(folder, text, speaker)
    name_systems(system)
    predictor = mmm.load(
        bundle, audio_encoder=audio_encoder, text_encoder=text_encoder, calibrated=calibrated
    )
    if predictor.is_light:
        import torch

        # Two threads on so little work wait for each other: on a busy machine, for seconds.
        torch.set_num_threads(1)
    if jsonl:
        _answer_stream(JsonLines(predictor))
    elif audio is not None:
        found = predictor.predict(audio, text or "", turns, speaker=speaker)
        if as_json:
            typer.echo(json.dumps(found, ensure_ascii=False))
        else:
            widest = max(map(cell_len, found))
            for label, probability in sorted(found.items(), key=lambda pair: -pair[1]):
                room = " " * (widest - cell_len(label))
                console.say(f"{label}{room}  {probability:.4f}  {'█' * round(40 * probability)}")
    else:
        answers: list[dict[str, float] | None] = []
        if dialogue is not None:
            answers = predictor.predict_dialogue(
                [(line.audio, line.text, line.speaker) for line in utterances]
            )
        else:
            columns = (
                TextColumn("predicting"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            with Progress(*columns, console=PlainConsole(stderr=True), transient=True) as bar:
                task = bar.add_task("", total=len(utterances))
                for start in range(0, len(utterances), 32):
                    batch = [
                        (line.audio, line.text, (), line.speaker)
                        for line in utterances[start : start + 32]
                        if line.audio is not None
                    ]
                    answers += predictor.predict_many(batch)
                    bar.update(task, completed=len(answers))
        _show_predictions(predictor.labels, utterances, answers, as_json, out)


def _answer_stream(stream: Any) -> None:
    """stdin to stdout, line by line; whoever stops reading ends it quietly."""
    from mmm.predict.inputs import as_json_line, lines_of

    try:
        for answer in stream.answers(lines_of(sys.stdin.buffer)):
            sys.stdout.write(as_json_line(answer))
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # or Python complains when it exits


def _show_predictions(
    labels: tuple[str, ...],
    utterances: list[Any],
    answers: list[dict[str, float] | None],
    as_json: bool,
    out: Path | None,
) -> None:
    """A line an utterance: as a table, as JSON lines, or as CSV."""
    rows = [
        (line, found, max(found, key=found.__getitem__) if found else "")
        for line, found in zip(utterances, answers, strict=True)
    ]
    if out is not None:
        from mmm.files import write_text

        content = io.StringIO()
        writer = csv.writer(content, lineterminator="\n")
        named = ["audio", "text", "speaker", "prediction"]
        # A label may be called as one of these is.
        columns = [f"{label} (label)" if label in named else label for label in labels]
        writer.writerow([*named, *columns])
        for line, found, best in rows:
            probabilities = (
                [f"{value:.6f}" for value in found.values()] if found else [""] * len(labels)
            )
            writer.writerow([line.audio or "", line.text, line.speaker or "", best, *probabilities])
        write_text(out, content.getvalue())
        console.say(f"wrote {out}: {len(rows)} utterances")
    elif as_json:
        for line, found, best in rows:
            typer.echo(
                json.dumps(
                    {
                        "audio": str(line.audio) if line.audio else None,
                        "text": line.text,
                        "speaker": line.speaker or "",
                        "prediction": best or None,
                        "probabilities": found,
                    },
                    ensure_ascii=False,
                )
            )
    else:
        with_speaker = any(line.speaker for line in utterances)
        table = Table("", *(["speaker"] if with_speaker else []), "text", "prediction")
        table.columns[-2].max_width = 40
        for label in labels:
            table.add_column(label, justify="right")
        for line, found, best in rows:
            name = line.audio.name if line.audio else "no speech"
            probabilities = (
                [f"{value:.3f}" for value in found.values()] if found else [""] * len(labels)
            )
            table.add_row(
                name,
                *([line.speaker or ""] if with_speaker else []),
                line.text,
                best,
                *probabilities,
            )
        console.print(table)


def demo(
    bundle: Annotated[Path, typer.Argument(show_default=False)],
    port: Annotated[int, typer.Option(help="Port on this machine alone (127.0.0.1).")] = 7860,
    audio_encoder: AudioEncoderFolder = None,
    text_encoder: TextEncoderFolder = None,
    system: Systems = None,
) -> None:
    """A page on this machine: record or upload speech, type text and earlier turns, see the
    probabilities.
    """
    if importlib.util.find_spec("gradio") is None:
        raise ValueError("mmm demo needs Gradio; install it with: pip install 'mmm-search[demo]'")
    name_systems(system)
    predictor = mmm.load(bundle, audio_encoder=audio_encoder, text_encoder=text_encoder)
    from mmm.predict.page import serve

    console.say(f"http://127.0.0.1:{port}  (this machine only; Ctrl-C ends it)")
    serve(predictor, port)
