"""The commands below `mmm prepare`: from a corpus as it was published to a manifest."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mmm.cli.manifest import write_manifest
from mmm.cli.options import options_of
from mmm.console import add_commands, console, progress_of
from mmm.corpora.options import PrepareOptions
from mmm.setting import option_faults
from mmm.training.config import Params

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
    write_manifest(prepared, out)


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
    write_manifest(prepared, out)


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
    write_manifest(prepared, out)


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
    write_manifest(prepared, out)


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
    write_manifest(prepared, out)


@options_of(PrepareOptions)
def ravdess(folder: CorpusFolder, out: Out = Path("manifest.csv"), *, given: Params) -> None:
    """RAVDESS: clips named 03-01-06-01-02-01-12.wav, in any folders. Speech alone is read."""
    from mmm.corpora.acted import prepare_ravdess

    with console.status(f"reading {folder}"):
        prepared = prepare_ravdess(folder, _checked(given))
    write_manifest(prepared, out)


@options_of(PrepareOptions)
def crema_d(folder: CorpusFolder, out: Out = Path("manifest.csv"), *, given: Params) -> None:
    """CREMA-D: clips named 1001_DFA_ANG_XX.wav, in any folders."""
    from mmm.corpora.acted import prepare_crema_d

    with console.status(f"reading {folder}"):
        prepared = prepare_crema_d(folder, _checked(given))
    write_manifest(prepared, out)


@options_of(PrepareOptions)
def emodb(folder: CorpusFolder, out: Out = Path("manifest.csv"), *, given: Params) -> None:
    """EmoDB (Berlin): clips named 03a01Fa.wav, in any folders."""
    from mmm.corpora.acted import prepare_emodb

    with console.status(f"reading {folder}"):
        prepared = prepare_emodb(folder, _checked(given))
    write_manifest(prepared, out)


@options_of(PrepareOptions)
def esd(folder: CorpusFolder, out: Out = Path("manifest.csv"), *, given: Params) -> None:
    """ESD: a folder a speaker, 0001 to 0020, with 0001.txt and its clips."""
    from mmm.corpora.esd import prepare_esd

    with console.status(f"reading {folder}"):
        prepared = prepare_esd(folder, _checked(given))
    write_manifest(prepared, out)


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

    write_manifest(prepare_csv(file, _checked(given), labels_of=labels_of), out)


def _checked(given: Params) -> PrepareOptions:
    asked: Any = given  # of the options' own types, as their fields say
    options = PrepareOptions(**asked)
    if wrong := list(option_faults(options)):
        raise ValueError("; ".join(wrong))
    return options


add_commands(prepare, csv, kemdy20, kemdy19, ai_hub, meld, iemocap, ravdess, crema_d, emodb, esd)
