"""The commands `mmm demo-corpus`, `mmm prepare` and `mmm corpus-report`: from a corpus to a
manifest, and what is in it.
"""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from mmm.cli.options import options_of
from mmm.console import add_commands, console, progress_of
from mmm.corpora.options import PrepareOptions
from mmm.setting import option_faults
from mmm.training.config import Params

if TYPE_CHECKING:  # pandas takes long to import, and --help must not wait for it
    from mmm.corpora.account import Account
    from mmm.corpora.prepared import Prepared

prepare = typer.Typer(no_args_is_help=True, help="Turn a corpus into a manifest.")

CorpusFolder = Annotated[Path, typer.Argument(help="Folder of the corpus.", show_default=False)]
Out = Annotated[Path, typer.Option("--out", "-o", help="Manifest to write.")]
DevSessions = Annotated[str, typer.Option(help="Sessions for validation, or none.")]
TestSessions = Annotated[str, typer.Option(help="Sessions for the sealed test split, or none.")]
Cleaning = Annotated[
    str,
    typer.Option(
        "--text",
        help=(
            "Transcripts: default (letters, digits, !?.,), published (Hangul and !?., alone), none."
        ),
    ),
]
Labels = Annotated[
    Path | None, typer.Option(help=r"CSV with the labels of the clips \[the one in the folder].")
]
_MOST_ROWS = 40  # of a table in the terminal


def print_account(account: "Account") -> None:
    """What was repaired, left out and noted, with how often and where first."""
    for title, entries in (
        ("repaired", account.repaired),
        ("left out", account.left_out),
        ("to know", account.noted),
        ("encodings", account.encodings),
    ):
        if not entries:
            continue
        table = Table(title=title, title_justify="left", show_header=False)
        table.add_column(justify="right")
        table.add_column()
        table.add_column(style="dim")
        for what, cases in entries.items():
            table.add_row(str(len(cases)), what, cases[0] + (", ..." if len(cases) > 1 else ""))
        console.print(table)


def _write(prepared: "Prepared", out: Path) -> None:
    from mmm.corpora.write import write_prepared

    account, leaks, to_type = write_prepared(prepared, out)
    _print_counts(out)
    print_account(prepared.account)
    for leak in leaks:
        console.print(f"leak: {leak}", style="red", highlight=False)
    if to_type:
        console.say(f"to deal so that less is shared: {to_type}")
    console.say(f"every case is in {account}")
    _print_next(out)


def _print_next(manifest: Path) -> None:
    words = ["mmm", "encode", str(manifest), "--features", str(manifest.parent / "features")]
    console.say(f"next: {shlex.join(words)}")


def _print_counts(out: Path) -> None:
    from mmm.corpora.csv_file import describe
    from mmm.labels import notes_of_test
    from mmm.manifest_csv import read_manifest

    manifest = read_manifest(out, check_audio=False)
    header, *rows = describe(manifest)
    table = Table(*header, title=str(out), title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for note in (*manifest.notes, *notes_of_test(manifest)):
        console.say(f"note: {note}")


@options_of(PrepareOptions)
def kemdy20(
    folder: CorpusFolder,
    out: Out = Path("manifest.csv"),
    dev_sessions: Annotated[
        str, typer.Option(help="Sessions for validation, such as 29-32,35, or none.")
    ] = "29-32",
    test_sessions: TestSessions = "33-40",
    with_ai_hub: Annotated[
        Path | None, typer.Option(help="Add AI Hub's clips in this folder.")
    ] = None,
    ai_hub_sessions: Annotated[
        str,
        typer.Option(
            help=(
                "Deal them to the sessions of train, or as published to all, so that they are"
                " tested on too."
            )
        ),
    ] = "train",
    text: Cleaning = "default",
    *,
    given: Params,
) -> None:
    """KEMDy20 v1.1 to v1.3: the folder with annotation/ and wav/."""
    from mmm.corpora.kemdy20 import prepare_kemdy20

    with console.status(f"reading {folder}"):
        prepared = prepare_kemdy20(
            folder,
            dev_sessions=dev_sessions,
            test_sessions=test_sessions,
            text=text,
            ai_hub=with_ai_hub,
            ai_hub_sessions=ai_hub_sessions,
            options=_checked(given),
        )
    _write(prepared, out)


@options_of(PrepareOptions)
def kemdy19(
    folder: CorpusFolder,
    out: Out = Path("manifest.csv"),
    dev_sessions: DevSessions = "15-16",
    test_sessions: TestSessions = "17-20",
    text: Cleaning = "default",
    *,
    given: Params,
) -> None:
    """KEMDy19: the folder with annotation/ and wav/."""
    from mmm.corpora.kemdy19 import prepare_kemdy19

    with console.status(f"reading {folder}"):
        prepared = prepare_kemdy19(
            folder,
            dev_sessions=dev_sessions,
            test_sessions=test_sessions,
            text=text,
            options=_checked(given),
        )
    _write(prepared, out)


@options_of(PrepareOptions)
def ai_hub(
    folder: CorpusFolder,
    out: Out = Path("manifest.csv"),
    labels: Labels = None,
    text: Cleaning = "default",
    *,
    given: Params,
) -> None:
    """AI Hub's emotional dialogue clips: F_000001.wav, M_000001.wav, ... and a label CSV."""
    from mmm.corpora.ai_hub import prepare_ai_hub

    with console.status(f"reading {folder}"):
        prepared = prepare_ai_hub(folder, labels=labels, text=text, options=_checked(given))
    _write(prepared, out)


@options_of(PrepareOptions)
def meld(folder: CorpusFolder, out: Out = Path("manifest.csv"), *, given: Params) -> None:
    """MELD: train_sent_emo.csv, dev_sent_emo.csv, test_sent_emo.csv and the clips (wav, flac, or
    mp4 by ffmpeg).
    """
    from rich.progress import track

    from mmm.corpora.meld import extract_sound, prepare_meld

    options = _checked(given)
    prepared, clips = prepare_meld(folder, out, options)
    if clips:
        for source, target in track(
            clips, description="taking the sound out of clips", console=progress_of(console)
        ):
            extract_sound(source, target)
        prepared, _ = prepare_meld(folder, out, options)
    _write(prepared, out)


@options_of(PrepareOptions)
def iemocap(
    folder: CorpusFolder,
    out: Out = Path("manifest.csv"),
    dev_sessions: Annotated[
        str | None,
        typer.Option(help=r"Sessions for validation, or none \[4].", show_default=False),
    ] = None,
    test_sessions: Annotated[
        str | None,
        typer.Option(help=r"Of the sealed test split, or none \[5].", show_default=False),
    ] = None,
    labels: Annotated[
        str,
        typer.Option(help="default (exc is happy), 4-way, or 6-way (with excited and frustrated)."),
    ] = "default",
    *,
    given: Params,
) -> None:
    """IEMOCAP: the folder with Session1 to Session5. Turns labelled otherwise, as oth and xxx are,
    stay without a label, as context. With --folds all sessions are in folds unless some are named.
    """
    from mmm.corpora.iemocap import prepare_iemocap

    with console.status(f"reading {folder}"):
        prepared = prepare_iemocap(
            folder,
            dev_sessions=dev_sessions,
            test_sessions=test_sessions,
            labels=labels,
            options=_checked(given),
        )
    _write(prepared, out)


@options_of(PrepareOptions)
def ravdess(folder: CorpusFolder, out: Out = Path("manifest.csv"), *, given: Params) -> None:
    """RAVDESS: clips named 03-01-06-01-02-01-12.wav, in any folders. Speech alone is read."""
    from mmm.corpora.acted import prepare_ravdess

    with console.status(f"reading {folder}"):
        prepared = prepare_ravdess(folder, _checked(given))
    _write(prepared, out)


@options_of(PrepareOptions)
def crema_d(folder: CorpusFolder, out: Out = Path("manifest.csv"), *, given: Params) -> None:
    """CREMA-D: clips named 1001_DFA_ANG_XX.wav, in any folders."""
    from mmm.corpora.acted import prepare_crema_d

    with console.status(f"reading {folder}"):
        prepared = prepare_crema_d(folder, _checked(given))
    _write(prepared, out)


@options_of(PrepareOptions)
def emodb(folder: CorpusFolder, out: Out = Path("manifest.csv"), *, given: Params) -> None:
    """EmoDB (Berlin): clips named 03a01Fa.wav, in any folders."""
    from mmm.corpora.acted import prepare_emodb

    with console.status(f"reading {folder}"):
        prepared = prepare_emodb(folder, _checked(given))
    _write(prepared, out)


@options_of(PrepareOptions)
def esd(folder: CorpusFolder, out: Out = Path("manifest.csv"), *, given: Params) -> None:
    """ESD: a folder a speaker, 0001 to 0020, with 0001.txt and its clips."""
    from mmm.corpora.esd import prepare_esd

    with console.status(f"reading {folder}"):
        prepared = prepare_esd(folder, _checked(given))
    _write(prepared, out)


@options_of(PrepareOptions)
def csv(
    file: Annotated[
        Path, typer.Argument(help="A table with a row an utterance.", show_default=False)
    ],
    out: Out = Path("manifest.csv"),
    labels_of: Annotated[
        str | None,
        typer.Option(
            metavar="CORPUS",
            help="Labels are those of a known corpus, such as crema-d; others are refused.",
        ),
    ] = None,
    *,
    given: Params,
) -> None:
    """Any table: path, text and label are enough. Fields are divided by commas, semicolons or
    tabs.
    """
    from mmm.corpora.csv_file import prepare_csv

    _write(prepare_csv(file, _checked(given), labels_of=labels_of), out)


def _checked(given: Params) -> PrepareOptions:
    asked: Any = given  # of the options' own types, as their fields say
    options = PrepareOptions(**asked)
    if wrong := list(option_faults(options)):
        raise ValueError("; ".join(wrong))
    return options


add_commands(prepare, csv, kemdy20, kemdy19, ai_hub, meld, iemocap, ravdess, crema_d, emodb, esd)


def demo_corpus(
    out: Annotated[Path, typer.Argument(help="Folder to write.", show_default=False)],
    sessions: Annotated[
        int | None,
        typer.Option(
            help="Recording sessions of two speakers each [24; kemdy20: 40].", show_default=False
        ),
    ] = None,
    scripts: Annotated[
        int | None,
        typer.Option(
            help="kemdy20: dialogues a session, 1 to 6 [6]; implies --layout kemdy20.",
            show_default=False,
        ),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            help=r"demo (small, balanced) or kemdy20 (as KEMDy20; full size 2.5 GB) \[demo].",
            show_default=False,
        ),
    ] = None,
    seed: int = 1,
) -> None:
    """Generate a synthetic corpus in which speech, text and context all matter, and its manifest.

    In KEMDy20's layout it has the class counts, durations, ties and defects of KEMDy20, scaled to
    its size.
    """
    layout = layout or ("demo" if scripts is None else "kemdy20")
    if layout not in ("demo", "kemdy20"):
        raise ValueError(f"unknown --layout {layout!r}; expected demo or kemdy20")
    if layout == "demo":
        from mmm.corpora.generated.demo import make_demo_corpus

        if scripts is not None:
            raise ValueError("--scripts is of --layout kemdy20")
        with console.status("writing the corpus"):
            manifest = make_demo_corpus(
                out, num_sessions=24 if sessions is None else sessions, seed=seed
            )
        console.say(f"wrote {manifest}")
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from mmm.corpora.generated.kemdy20 import make_kemdy20_demo
    from mmm.corpora.generated.kemdy20_segments import default_splits
    from mmm.corpora.kemdy20 import prepare_kemdy20

    num_sessions = 40 if sessions is None else sessions
    columns = (
        TextColumn("{task.description:<16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=progress_of(console)) as bar:
        task = bar.add_task("utterances", total=None)
        for done, total in make_kemdy20_demo(
            out, num_sessions=num_sessions, num_scripts=6 if scripts is None else scripts, seed=seed
        ):
            bar.update(task, completed=done, total=total)
    dev, test = default_splits(num_sessions)
    console.say(
        f"mmm prepare kemdy20 {out} --dev-sessions {dev} --test-sessions {test} -o"
        f" {out / 'manifest.csv'}"
    )
    with console.status("reading the corpus"):
        prepared = prepare_kemdy20(out, dev_sessions=dev, test_sessions=test)
    _write(prepared, out / "manifest.csv")


def corpus_report(
    manifest: Annotated[Path, typer.Argument(help="manifest.csv", show_default=False)],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write a page with pictures to this file.")
    ] = None,
) -> None:
    """What is in a corpus: classes, splits, sessions, speakers, durations, ties, dialogues,
    baseline, leaks.
    """
    from rich.progress import track

    from mmm.corpora.report import durations, report, tables
    from mmm.files import write_text
    from mmm.manifest_csv import read_manifest

    checked = read_manifest(manifest)
    clips = sorted({checked.audio_path(utterance) for utterance in checked.utterances})
    seconds = dict(
        track(
            durations(clips),
            total=len(clips),
            description="reading headers",
            console=progress_of(console),
            transient=True,
        )
    )
    found = report(checked, seconds)
    if out is not None:
        from mmm.corpora.report_page import page

        write_text(out, page(found))
    for title, header, rows in tables(found):
        table = Table(*header, title=title, title_justify="left")
        for column in table.columns[1:]:
            column.justify = "right"
        for row in rows[:_MOST_ROWS]:
            table.add_row(*row)
        console.print(table)
        if len(rows) > _MOST_ROWS:
            console.say(
                f"... and {len(rows) - _MOST_ROWS} more, all of them in the page: -o report.html"
            )
    for note in found.notes:
        console.say(f"note: {note}")
    for leak in found.leaks:
        console.print(f"leak: {leak}", style="red", highlight=False)
    if not found.leaks:
        console.say(
            "no leaks between splits: speakers, sessions, audio files, audio content and lines of"
            " audio and text are disjoint"
        )
    if out is not None:
        console.say(f"page {out}")
