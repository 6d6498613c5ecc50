"""`mmm-search reproduce`: a trial trained again."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from mmm.cli.systems import MovedSystems, name_systems
from mmm.console import PlainConsole, console
from search.cli.results import AsJson, Cache, Runs, SweepName


def reproduce(
    name: SweepName,
    trial: Annotated[
        int | None, typer.Option(metavar="ID", help="Its number \\[the best].")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu or cuda \\[as in the sweep].", show_default=False)
    ] = None,
    system: MovedSystems = None,
    cache: Cache = None,
    as_json: AsJson = False,
    runs: Runs = Path("runs"),
) -> None:
    """Train a trial again and hold every epoch's metrics against the ledger.

    Exit status 0: they are equal, or on another machine within the tolerance that is printed; 1:
    they are not.
    """
    from search.ledger.events import read_history
    from search.ledger.files import existing_sweep
    from search.reproduce import reproduce as train_again
    from search.reproduce import sentences
    from search.storage.here import data_here

    name_systems(system)
    told = PlainConsole(stderr=True, width=140) if as_json else console
    history = read_history(existing_sweep(runs, name) / "ledger.sqlite")
    if trial is None:
        if history.best is None:
            raise ValueError(f"sweep {name!r} has no best trial yet; name one with --trial")
        trial = history.best[1]
    if trial in history.trials:
        with told.status("bringing features"):
            history = data_here(history, cache, [trial], told.say)
    found = None
    with told.status(f"training trial {trial}") as status:
        for found in train_again(history, trial, device):
            status.update(f"training trial {trial}: {found.num_epochs} epochs compared")
    assert found is not None
    if as_json:
        print(json.dumps(found.as_json()))
    else:
        console.say(" ".join(sentences(found)))
    if not found.holds:
        sys.exit(1)
