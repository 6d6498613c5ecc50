"""The commands that run sweeps: `run`, `resume`, `plan`, `quickstart`."""

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mmm.console import console, printable
from search.cli.results import (
    Runs,
    SweepName,
)

# What `run` and `plan` share.
SpaceName = Annotated[
    str, typer.Argument(help="quick, full, paper, or path/to/file.py:function", show_default=False)
]
ManifestPath = Annotated[Path, typer.Argument(help="manifest.csv", show_default=False)]
FeaturesDir = Annotated[
    Path, typer.Option("--features", help="Folder of feature stores.", show_default=False)
]
Trials = Annotated[int, typer.Option(help="Settings to try.")]
Epochs = Annotated[int, typer.Option(help="Epochs of a trial that is not stopped early.")]
Workers = Annotated[
    int | None, typer.Option(help="Trials at a time \\[one a core, or a GPU share].")
]
GpusPerTrial = Annotated[float, typer.Option(help="GPUs of a trial; 0.25 lets four share one.")]
Metric = Annotated[str, typer.Option(help="Validation metric to maximise.")]
Seed = Annotated[int, typer.Option(help="Of the sampler and of the trials.")]
FirstRung = Annotated[int, typer.Option(help="ASHA: first epoch at which trials are stopped.")]
Factor = Annotated[int, typer.Option(help="ASHA: one in so many goes on.")]
Keep = Annotated[int, typer.Option(help="Trials whose weights stay on disk.")]
InputScaling = Annotated[
    str,
    typer.Option(
        help=(
            "standard: columns of the features with mean 0, deviation 1 over training rows; none:"
            " as they are."
        )
    ),
]
# What `run` and `resume` share.
TimeBudget = Annotated[
    str | None, typer.Option(help="Stop after this long, all sessions together, for example 2h.")
]
ComputeBudget = Annotated[
    str | None,
    typer.Option(help="Stop after so much training, summed over workers, for example 10h."),
]
GpuHours = Annotated[
    float | None, typer.Option(help="Stop after so many hours of GPUs in training.")
]
Target = Annotated[
    float | None, typer.Option(help="Stop when the best validation score reaches this.")
]
Patience = Annotated[
    int | None, typer.Option(help="Stop after so many ended trials without a better score.")
]
_EQUAL_FAILURES = typer.Option(
    metavar="N", help="Stop after N trials in a row that failed for the same reason, 0: never."
)
Enqueue = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE", help="JSON of points to try next: parameters, or a trial's settings."
    ),
]
Packs = Annotated[
    str | None,
    typer.Option(
        metavar="auto|off|N",
        help="Trials of one shape that a worker trains as one model \\[auto, one worker: off].",
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
    """The whole way on a generated corpus: encode, search all four systems, report, export,
    predict.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"--workers {workers} is too small; expected at least 1")
    from search.quickstart import quickstart as run_quickstart

    run_quickstart(runs, console, workers)


def _absolute(space: str) -> str:
    """A space as workers elsewhere find it."""
    path, _, function = space.rpartition(":")
    return f"{Path(path).resolve()}:{function}" if path.endswith(".py") else space


def run(
    space: SpaceName,
    manifest: ManifestPath,
    features: FeaturesDir,
    name: Annotated[str, typer.Option(help="Name of the sweep.", show_default=False)],
    trials: Trials = 40,
    epochs: Epochs = 27,
    workers: Workers = None,
    gpus_per_trial: GpusPerTrial = 0.0,
    runs: Runs = Path("runs"),
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow's tracking URI \\[SQLite in the runs folder].")
    ] = None,
    system_metrics: Annotated[
        bool, typer.Option("--system-metrics", help="Send CPU, GPU and memory use to MLflow, too.")
    ] = False,
    metric: Metric = "macro_f1",
    time_budget: TimeBudget = None,
    compute_budget: ComputeBudget = None,
    gpu_hours: GpuHours = None,
    target: Target = None,
    patience: Patience = None,
    max_equal_failures: Annotated[int, _EQUAL_FAILURES] = 5,
    max_parameters: Annotated[
        int | None, typer.Option(help="Larger models fail without training.")
    ] = None,
    max_ms_per_utterance: Annotated[
        float | None, typer.Option(help="Trials that validate slower fail.")
    ] = None,
    max_memory_mb: Annotated[
        float | None, typer.Option(help="Trials that hold more memory fail.")
    ] = None,
    enqueue: Enqueue = None,
    warm_start: Annotated[
        list[str] | None, typer.Option(metavar="OTHER", help="A finished sweep to learn from.")
    ] = None,
    repeats: Annotated[
        str,
        typer.Option(help="Settings that were trained: new-seed, or reuse what the ledger has."),
    ] = "new-seed",
    seed: Seed = 1,
    first_rung: FirstRung = 5,
    factor: Factor = 3,
    keep: Keep = 20,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to join, for example auto \\[a local one].")
    ] = None,
    packs: Packs = None,
    precision: Annotated[
        str, typer.Option(help="Of training: float32, bf16, or auto: what is fast there.")
    ] = "auto",
    input_scaling: InputScaling = "standard",
    serial: Serial = False,
) -> None:
    """Run a sweep. Ctrl-C, SIGTERM or a closed terminal end it in good order (exit status 0), ready
    for `resume`.

    Exit status 1: every trial failed, or it broke off by itself, for example at equal failures; 2:
    it was refused.
    """
    from search.cli.sweeps import parse_packs
    from search.durations import parse_duration
    from search.ledger.spec import SweepSpec

    time_s = None if time_budget is None else parse_duration(time_budget)
    compute_s = None if compute_budget is None else parse_duration(compute_budget)
    if serial:
        workers = _serial_workers(workers, address)
    if address is not None and workers is None:
        raise ValueError(
            "--address without --workers: say how many trials the cluster is to run at a time"
        )
    from search.plan.checks import default_workers
    from search.session import command_line, start
    from search.space.enqueue import read_points

    spec = SweepSpec(
        name=name,
        space=_absolute(space),
        manifest=str(manifest.resolve()),
        features=str(features.resolve()),
        trials=trials,
        epochs=epochs,
        workers=workers if workers is not None else default_workers(gpus_per_trial),
        gpus_per_trial=gpus_per_trial,
        metric=metric,
        time_budget_s=time_s,
        seed=seed,
        first_rung=first_rung,
        factor=factor,
        tracking_uri=tracking_uri,
        address=address,
        keep=keep,
        command=command_line(),
        compute_budget_s=compute_s,
        gpu_hours=gpu_hours,
        target=target,
        patience=patience,
        max_parameters=max_parameters,
        max_ms_per_utterance=max_ms_per_utterance,
        max_memory_mb=max_memory_mb,
        repeats=repeats,
        system_metrics=system_metrics,
        packs=parse_packs(packs),
        precision=precision,
        input_scaling=input_scaling,
        max_equal_failures=max_equal_failures,
    )
    points = [point for file in enqueue or [] for point in read_points(file)]
    _finish(start(spec, runs, console, points, warm_start or [], serial=serial))


def _serial_workers(workers: int | None, address: str | None) -> int:
    if address is not None or (workers or 1) > 1:
        raise ValueError(
            "--serial trains in this process, one trial at a time; leave out --workers and"
            " --address, or leave out --serial"
        )
    return 1


def resume(
    name: SweepName,
    runs: Runs = Path("runs"),
    trials: Annotated[
        int | None, typer.Option(help="Settings to try in all, those before included.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Trials at a time.")] = None,
    time_budget: TimeBudget = None,
    compute_budget: ComputeBudget = None,
    gpu_hours: GpuHours = None,
    target: Target = None,
    patience: Patience = None,
    max_equal_failures: Annotated[int | None, _EQUAL_FAILURES] = None,
    enqueue: Enqueue = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to join.")] = None,
    packs: Packs = None,
    accept_changed_data: Annotated[
        bool,
        typer.Option(
            "--accept-changed-data",
            help="Go on where manifest or features are not those of the trials before.",
        ),
    ] = False,
    serial: Serial = False,
) -> None:
    """Go on with a sweep that was stopped or killed, or give it more trials or another budget."""
    from search.cli.sweeps import parse_packs
    from search.durations import parse_duration
    from search.session import resume as resume_sweep
    from search.space.enqueue import read_points

    changes: dict[str, Any] = {
        "trials": trials,
        "workers": workers,
        "address": address,
        "gpu_hours": gpu_hours,
        "target": target,
        "patience": patience,
        "max_equal_failures": max_equal_failures,
    }
    changes["time_budget_s"] = None if time_budget is None else parse_duration(time_budget)
    changes["compute_budget_s"] = None if compute_budget is None else parse_duration(compute_budget)
    points = [point for file in enqueue or [] for point in read_points(file)]
    given = {key: value for key, value in changes.items() if value is not None}
    if packs is not None:
        given["packs"] = parse_packs(packs)
    if serial:
        given |= {"workers": _serial_workers(workers, address), "address": None}
    _finish(
        resume_sweep(
            runs,
            name,
            given,
            console,
            points,
            accept_changed_data=accept_changed_data,
            serial=serial,
        )
    )


def _finish(history: Any) -> None:
    """Exit status 1 where nothing came of it or it ended by itself, so that scripts notice."""
    why = (history.last_close or {}).get("why", "")
    if why.startswith("broken off"):
        print(f"error: {why}", file=sys.stderr)
        sys.exit(1)
    if all(trial.state == "failed" for trial in history.trials.values()) and history.trials:
        reasons = {trial.reason for trial in history.trials.values()}
        print(
            f"error: every trial failed; the first reason: {printable(sorted(reasons)[0])}",
            file=sys.stderr,
        )
        sys.exit(1)


def plan(
    space: SpaceName,
    manifest: ManifestPath,
    features: FeaturesDir,
    trials: Trials = 40,
    epochs: Epochs = 27,
    workers: Workers = None,
    gpus_per_trial: GpusPerTrial = 0.0,
    metric: Metric = "macro_f1",
    seed: Seed = 1,
    first_rung: FirstRung = 5,
    factor: Factor = 3,
    keep: Keep = 20,
    input_scaling: InputScaling = "standard",
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the same as JSON to this file.")
    ] = None,
) -> None:
    """What `run` would do with the same options: space, rungs, hours, memory, disk, what it would
    refuse. Runs no trial.
    """
    from mmm.files import write_json
    from search.ledger.spec import SweepSpec
    from search.plan.checks import default_workers
    from search.plan.forecast import forecast, show

    spec = SweepSpec(
        name="plan",
        space=_absolute(space),
        manifest=str(manifest.resolve()),
        features=str(features.resolve()),
        trials=trials,
        epochs=epochs,
        workers=workers if workers is not None else default_workers(gpus_per_trial),
        gpus_per_trial=gpus_per_trial,
        metric=metric,
        seed=seed,
        first_rung=first_rung,
        factor=factor,
        keep=keep,
        input_scaling=input_scaling,
    )
    found = forecast(spec, console)
    show(found, console)
    if json_file is not None:
        write_json(json_file, found.as_json())


# After the commands above: `--help` lists them in this order.


def parse_packs(text: str | None) -> int | None:
    """`auto` -> None, `off` -> 1, `8` -> 8; nothing is `auto`. Raises ValueError."""
    if text is None or text == "auto":
        return None
    if text != "off" and not re.fullmatch(r"[1-9]\d{0,3}", text):
        raise ValueError(
            f"--packs {text!r} is not understood; expected auto, off or a number of trials, for"
            " example 8"
        )
    return 1 if text == "off" else int(text)
