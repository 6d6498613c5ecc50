"""How `mmm prepare` and `mmm demo-corpus` end: a manifest is written, and what is in it printed."""

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from mmm.console import console

if TYPE_CHECKING:  # pandas takes long to import, and --help must not wait for it
    from mmm.corpora.account import Account
    from mmm.corpora.prepared import Prepared


def _print_account(account: "Account") -> None:
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


def write_manifest(prepared: "Prepared", out: Path) -> None:
    """And print what is in it, what became of the corpus, and what to type next."""
    from mmm.corpora.write import write_prepared

    account, leaks, to_type = write_prepared(prepared, out)
    _print_counts(out)
    _print_account(prepared.account)
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
    console.print(counts_table(str(out), header, rows))
    for note in (*manifest.notes, *notes_of_test(manifest)):
        console.say(f"note: {note}")


def counts_table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A name in the first column, figures in the others."""
    table = Table(*header, title=title, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    return table
