"""The commands that run sweeps: `run`, `resume`, `plan`, `quickstart`."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from mmm.cli.options import options_of
from mmm.cli.systems import MovedSystems, name_systems
from mmm.console import console, printable
from mmm.training.config import Params
from search.cli.results import Runs, SweepName
from search.ledger.spec import ANY_FOLDS, AUTO, SweepSpec

ManifestSource = Annotated[
    str, typer.Argument(help="manifest.csv, or the URL of one", show_default=False)
]
FeaturesSource = Annotated[
    str,
    typer.Option(
        "--features",
        metavar="DIR",
        help="Folder of features, or its URL.",
        show_default=False,
    ),
]
ManifestMoved = Annotated[
    str | None,
    typer.Option(
        "--manifest", metavar="FILE", help="Where the manifest is now.", show_default=False
    ),
]
FeaturesMoved = Annotated[
    str | None,
    typer.Option(
        "--features", metavar="DIR", help="Where the features are now.", show_default=False
    ),
]
SpaceName = Annotated[
    str, typer.Argument(help="quick, full, paper, or path/to/file.py:function", show_default=False)
]
Enqueue = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE", help="JSON of points to try next: parameters, or a trial's settings."
    ),
]

Folds = Annotated[
    bool,
    typer.Option(
        "--folds",
        help="The score is the mean over the manifest's folds, each trained without it.",
    ),
]

Serial = Annotated[
    bool,
    typer.Option(
        "--serial",
        help="Train in this process, one trial at a time, without Ray: for a debugger or a tiny"
        " machine.",
    ),
]


def quickstart(
    runs: Runs = Path("runs"),
    workers: Annotated[int | None, typer.Option(help="Trials at a time \\[one a core].")] = None,
) -> None:
    """The whole way on a generated corpus: encode, search all systems, report, export, predict."""
    if workers is not None and workers < 1:
        raise ValueError(f"--workers {workers} is too small; expected at least 1")
    from search.quickstart import quickstart as run_quickstart

    run_quickstart(runs, console, workers)


def _spec(
    space: str, manifest: str, features: str, given: Params, folds: bool = False
) -> SweepSpec:
    """What `run` and `plan` are asked for."""
    from search.plan.checks import default_workers
    from search.storage.here import staged_here

    space = _as_workers_find_it(space)
    data = {**_source("manifest", manifest), **_source("features", features)}
    asked: Any = {"name": "plan", "space": space, "workers": 1, **data, **absolute(given)}
    if folds:
        asked["folds"] = ANY_FOLDS
    if asked.get("gpus_per_trial") == AUTO:
        asked["gpus_per_trial"] = 1.0  # until it is measured
    with console.status("bringing features"):
        spec = staged_here(SweepSpec(**asked))
    if "workers" in given:
        return spec
    return replace(spec, workers=default_workers(spec.gpus_per_trial))


def _as_workers_find_it(space: str) -> str:
    path, _, function = space.rpartition(":")
    return f"{Path(path).resolve()}:{function}" if path.endswith(".py") else space


def _source(kind: str, given: str) -> dict[str, str | None]:
    """Where a manifest or features are, as a specification has it."""
    from search.storage.door import as_url, is_url

    return {kind: as_url(given), f"{kind}_url": as_url(given) if is_url(given) else None}


def moved(manifest: str | None, features: str | None) -> dict[str, str | None]:
    """What of a specification is another one where data are elsewhere now."""
    found: dict[str, str | None] = {}
    if manifest is not None:
        found |= _source("manifest", manifest)
    if features is not None:
        found |= _source("features", features)
    return found


def with_door(given: Params) -> Params:
    """What is given to a sweep that is there: `--insecure` was said of its own cluster alone."""
    return {"insecure": False, **given} if "address" in given else given


def absolute(given: Params) -> Params:
    """What is given, with places that do not depend on the folder that this is run in."""
    from search.storage.door import as_url

    places = {name: given[name] for name in ("storage", "cache") if given.get(name) is not None}
    return {**given, **{name: as_url(str(place)) for name, place in places.items()}}


@options_of(
    SweepSpec,
    *("trials", "epochs", "workers", "gpus_per_trial", "tracking_uri", "system_metrics", "metric"),
    *("time_budget_s", "compute_budget_s", "gpu_hours", "target", "patience"),
    *("until_noise", "min_per_system"),
    *("max_equal_failures", "max_parameters", "max_ms_per_utterance", "max_memory_mb", "repeats"),
    *(
        "seed",
        "first_rung",
        "factor",
        "keep",
        "address",
        "insecure",
        "ship",
        "packs",
        "precision",
        "input_scaling",
    ),
    *("storage", "storage_interval_s", "cache"),
)
def run(
    space: SpaceName,
    manifest: ManifestSource,
    features: FeaturesSource,
    name: Annotated[str, typer.Option(help="Name of the sweep.", show_default=False)],
    given: Params,
    runs: Runs = Path("runs"),
    enqueue: Enqueue = None,
    warm_start: Annotated[
        list[str] | None, typer.Option(metavar="OTHER", help="A finished sweep to learn from.")
    ] = None,
    folds: Folds = False,
    serial: Serial = False,
) -> None:
    """Run a sweep. Ctrl-C, SIGTERM or a closed terminal end it in good order (exit status 0), ready
    for `resume`.

    Exit status 1: every trial failed, or it broke off by itself, for example at equal failures; 2:
    it was refused.
    """
    if serial:
        given = in_this_process(given)
    if "address" in given and "workers" not in given:
        raise ValueError(
            "--address without --workers: say how many trials the cluster is to run at a time"
        )
    from search.cli.gpu_share import with_measured_share
    from search.ledger.files import check_new
    from search.session import command_line, start
    from search.space.enqueue import read_points

    spec = _spec(space, manifest, features, given, folds)
    spec = replace(spec, name=name, command=command_line())
    if given.get("gpus_per_trial") == AUTO:
        check_new(runs, name, is_tracked_here=spec.tracking_uri is None)
        spec = with_measured_share(spec, given, console)
    points = [point for file in enqueue or [] for point in read_points(file)]
    finish(start(spec, runs, console, points, warm_start or [], serial=serial), runs)


def in_this_process(given: Params) -> Params:
    """What is given, for `--serial`. Raises ValueError where it asks for more than one worker."""
    if given.get("address") is not None or given.get("workers", 1) != 1:
        raise ValueError(
            "--serial trains in this process, one trial at a time; leave out --workers and"
            " --address, or leave out --serial"
        )
    if given.get("gpus_per_trial") == AUTO:
        given = {**given, "gpus_per_trial": 1.0}  # it has one to itself
    return {"ship": False, **given, "workers": 1, "address": None}


@options_of(
    SweepSpec,
    *("trials", "workers", "time_budget_s", "compute_budget_s", "gpu_hours", "target", "patience"),
    *("until_noise",),
    *(
        "max_equal_failures",
        "address",
        "insecure",
        "ship",
        "packs",
        "storage",
        "storage_interval_s",
        "cache",
    ),
    optional=True,
    trials="Settings to try in all, those before included.",
    workers="Trials at a time.",
    address="Ray cluster to join.",
    storage="Copy the sweep there; where it is not on this machine, bring it from there.",
)
def resume(
    name: SweepName,
    given: Params,
    runs: Runs = Path("runs"),
    enqueue: Enqueue = None,
    accept_changed_data: Annotated[
        bool,
        typer.Option(
            "--accept-changed-data",
            help="Go on where manifest or features are not those of the trials before.",
        ),
    ] = False,
    manifest: ManifestMoved = None,
    features: FeaturesMoved = None,
    space: Annotated[
        str | None,
        typer.Option(
            metavar="FILE:FUNCTION", help="Where a space of your own is now.", show_default=False
        ),
    ] = None,
    system: MovedSystems = None,
    serial: Serial = False,
) -> None:
    """Go on with a sweep that was stopped or killed, or give it more trials or another budget."""
    from search.session import resume as resume_sweep
    from search.space.enqueue import read_points

    name_systems(system)
    points = [point for file in enqueue or [] for point in read_points(file)]
    if serial:
        given = in_this_process(given)
    places = moved(manifest, features)
    if space is not None:
        places["space"] = _as_workers_find_it(space)
    finish(
        resume_sweep(
            runs,
            name,
            {**absolute(with_door(given)), **places},
            console,
            points,
            accept_changed_data=accept_changed_data,
            serial=serial,
        ),
        runs,
    )


def finish(history: Any, runs: Path) -> None:
    """Exit status 1 where nothing came of it or it ended by itself, so that scripts notice. Where
    Ray died and can be had again, the sweep goes on in this process's place.
    """
    why = history.last_close.why if history.last_close else ""
    if why.startswith("broken off"):
        from search.cluster.again import go_on

        go_on(runs, history.spec.name, why)
        print(f"error: {printable(why)}", file=sys.stderr)
        sys.exit(1)
    if all(trial.state == "failed" for trial in history.trials.values()) and history.trials:
        reasons = {trial.reason for trial in history.trials.values()}
        print(
            f"error: every trial failed; the first reason: {printable(sorted(reasons)[0])}",
            file=sys.stderr,
        )
        sys.exit(1)


@options_of(
    SweepSpec,
    *("trials", "epochs", "workers", "gpus_per_trial", "metric", "seed", "first_rung", "factor"),
    *("keep", "input_scaling", "cache"),
)
def plan(
    space: SpaceName,
    manifest: ManifestSource,
    features: FeaturesSource,
    given: Params,
    folds: Folds = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the same as JSON to this file.")
    ] = None,
) -> None:
    """What `run` would do with the same options: space, rungs, hours, memory, disk, what it would
    refuse. Runs no trial.
    """
    from mmm.files import write_json
    from search.cli.gpu_share import with_measured_share
    from search.plan.forecast import forecast
    from search.plan.show import show

    spec = _spec(space, manifest, features, given, folds)
    if given.get("gpus_per_trial") == AUTO:
        spec = with_measured_share(spec, given, console)
    found = forecast(spec, console)
    show(found, console)
    if json_file is not None:
        write_json(json_file, found.as_json())
