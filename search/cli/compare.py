"""`mmm-search compare`: sweeps side by side."""

import json
from pathlib import Path
from typing import Annotated

import typer

from mmm.console import console
from mmm.files import write_text
from search.cli.results import AsJson, Runs


def compare(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="The sweeps.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="The same as one HTML page."),
    ] = None,
    as_json: AsJson = False,
    runs: Runs = Path("runs"),
) -> None:
    """Put sweeps side by side: best score, baseline, confirmed mean, cost, and where their winners
    differ.
    """
    from search.ledger.events import read_history
    from search.ledger.files import existing_sweep
    from search.results.comparison import compare as put_side_by_side
    from search.results.comparison import page_of, tables
    from search.results.page.forest import read_confirmed

    folders = [existing_sweep(runs, name) for name in names]
    found = put_side_by_side(
        [(read_history(folder / "ledger.sqlite"), read_confirmed(folder)) for folder in folders]
    )
    if out is not None:
        write_text(out, page_of(found))
    if as_json:
        print(json.dumps(found.as_json()))
        return
    for table in tables(found):
        console.print(table)
    console.say(" ".join(found.sentences))
    if out is not None:
        console.say(f"page {out}")
