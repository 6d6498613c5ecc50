"""The command `mmm corpus-report`: what is in a corpus."""

from pathlib import Path
from typing import Annotated

import typer

from mmm.cli.manifest import counts_table
from mmm.console import console, progress_of

_MOST_ROWS = 40  # of a table in the terminal


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
        console.print(counts_table(title, header, rows[:_MOST_ROWS]))
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
