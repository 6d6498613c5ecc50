"""`mmm-search confirm`: whether a sweep's best hold."""

import json
from pathlib import Path
from typing import Annotated

import typer

from mmm.cli.options import options_of
from mmm.cli.systems import MovedSystems, name_systems
from mmm.console import PlainConsole, console
from mmm.training.config import Params
from search.cli.results import Runs, SweepName
from search.cli.sweeps import (
    FeaturesMoved,
    ManifestMoved,
    Serial,
    absolute,
    in_this_process,
    moved,
    with_door,
)
from search.ledger.durations import parse_duration
from search.ledger.spec import SweepSpec


@options_of(
    SweepSpec,
    *("workers", "address", "insecure", "ship", "storage", "storage_interval_s", "cache"),
    optional=True,
    workers="Trials at a time \\[as in the sweep].",
    address="Ray cluster to join \\[as in the sweep].",
    storage="Copy both sweeps there, and bring from there what is not here \\[as in the sweep].",
    storage_interval_s="How often \\[as in the sweep].",
    cache="Where each machine keeps manifest and features of a URL \\[as in the sweep].",
)
def confirm(
    name: SweepName,
    given: Params,
    top: Annotated[int, typer.Option(metavar="K", min=1, help="The K best settings.")] = 3,
    per_system: Annotated[
        bool, typer.Option("--per-system", help="And the best of each system on each encoder.")
    ] = False,
    include_default: Annotated[
        bool,
        typer.Option(
            "--include-default", help="And the space's known good points of these systems."
        ),
    ] = False,
    seeds: Annotated[int, typer.Option(min=1, help="Fresh seeds of each.")] = 5,
    budget: Annotated[
        str | None, typer.Option(help="Stop training after this long, for example 2h.")
    ] = None,
    race: Annotated[
        bool,
        typer.Option(
            "--race", help="After three seeds, no more of them for who is worse than the leader."
        ),
    ] = False,
    folds: Annotated[
        bool,
        typer.Option(
            "--folds", help="Over the manifest's folds, though the sweep was not \\[as it was]."
        ),
    ] = False,
    open_test: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHO",
            help="Open the test split, once, for this finalist: its number in the table,"
            " leader or all; may be repeated.",
        ),
    ] = None,
    confirm_as: Annotated[
        str | None,
        typer.Option("--as", metavar="OTHER", help="Sweep that trains them \\[NAME-confirm]."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")
    ] = False,
    manifest: ManifestMoved = None,
    features: FeaturesMoved = None,
    system: MovedSystems = None,
    serial: Serial = False,
    runs: Runs = Path("runs"),
) -> None:
    """Train a sweep's best again with fresh seeds and say whether one beats another: better, tie or
    worse. Run it again to go on.
    """
    from search.confirm.run import Asked
    from search.confirm.run import confirm as run_confirm
    from search.confirm.words import as_json as figures
    from search.confirm.words import explained, sentences, table_of

    name_systems(system)
    if serial:
        given = in_this_process(given)
    told = PlainConsole(stderr=True, width=140) if as_json else console
    asked = Asked(
        top,
        seeds,
        per_system,
        include_default,
        parse_duration(budget) if budget is not None else None,
        confirm_as,
        race,
        folds,
        tuple(open_test or ()),
    )
    found = run_confirm(
        runs,
        name,
        asked,
        told,
        {**absolute(with_door(given)), **moved(manifest, features)},
        serial=serial,
    )
    if found is None:
        return
    if as_json:
        print(json.dumps(figures(found), ensure_ascii=False))
        return
    console.print(table_of(found))
    console.say(explained(found))
    console.print(" ".join(sentences(found)))
    for failure in found.failed:
        console.say(failure)
    folder = runs / name
    console.say(f"page {folder / 'confirm.html'}, figures {folder / 'confirm.json'}")
