"""A sweep from its options to its report: what `run`, `resume` and `quickstart` share."""

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from search.conductor import Conductor
from search.config import SweepSpec, existing_sweep, sweep_dir
from search.export import best_trial, export_trial
from search.leaderboard import write_leaderboard
from search.ledger import History, Ledger, read_history
from search.plan import SettingsCheck, check_contexts, check_spec
from search.searcher import check_space, load_space
from search.view import View, counts, leaderboard_table
from spaces import Space


def command_line() -> str:
    return shlex.join(["mmm-search", *sys.argv[1:]])


def check(spec: SweepSpec) -> Space:
    """Refuse what cannot run, before Ray starts and before anything is written. Returns the space."""
    check_spec(spec)
    space = load_space(spec.space)
    settings_check = SettingsCheck(spec)
    drawn: list[Mapping[str, Any]] = []
    from search.plan import trial_config

    def settings_alone(settings: Mapping[str, Any]) -> None:
        trial_config(settings, spec)
        drawn.append(settings)

    check_space(space, settings_alone)
    check_contexts(spec, drawn)
    for settings in drawn:
        settings_check(settings)
    return space


def start(spec: SweepSpec, runs: Path, console: Console) -> History:
    """Run a new sweep. Raises ValueError where one of this name is there."""
    folder = sweep_dir(runs, spec.name)
    if (folder / "ledger.sqlite").is_file():
        raise ValueError(
            f"sweep {spec.name!r} exists in {runs}/; go on with it: mmm-search resume {spec.name}, or choose another --name"
        )
    space = check(spec)
    return _run(spec, space, runs, console, is_new=True)


def resume(runs: Path, name: str, changes: dict[str, Any], console: Console) -> History:
    """Go on with a sweep from its ledger. `changes` overrule the specification (more trials, another budget)."""
    folder = existing_sweep(runs, name)
    spec = read_history(folder / "ledger.sqlite").spec
    assert spec is not None
    spec = replace(spec, **changes, command=command_line())
    space = check(spec)
    return _run(spec, space, runs, console, is_new=False)


def _run(spec: SweepSpec, space: Space, runs: Path, console: Console, *, is_new: bool) -> History:
    folder = sweep_dir(runs, spec.name)
    threads = max(1, len(os.sched_getaffinity(0)) // spec.workers) if spec.address is None else 1
    device = "cuda" if spec.gpus_per_trial > 0 else "cpu"
    view = View(console, spec.name)
    with Ledger(folder) as ledger, view:
        if is_new:
            ledger.append(("sweep", None, {"spec": spec.as_json()}))
        conductor = Conductor(ledger, spec, space, device, view.changed)
        conductor.open_session(spec.command)
        view.follow(conductor)
        # Ray and MLflow take seconds to import; everything that can be refused has been by now.
        from search.sweep import run_trials
        from search.tracking import Tracker

        tracker = Tracker(runs, spec.name, spec.tracking_uri)
        why = "interrupted"
        try:
            run_trials(conductor, threads)
            unfinished = any(trial.state == "running" for trial in conductor.trials.values())
            if conductor.is_out_of_time:
                why = "time budget"
            elif not unfinished and len(conductor.trials) >= spec.trials:
                why = "done"
        except KeyboardInterrupt:
            conductor.is_interrupted = True
        finally:
            conductor.close_session(why)
            history = ledger.history
            write_leaderboard(folder / "leaderboard.csv", history, spec.metric)
            delivered = tracker.close()
        winner = best_trial(history)
        bundle = None
        if winner is not None:
            export_trial(history, folder, winner.number, folder / "bundle")
            bundle = folder / "bundle"
        from search.report import write_report

        write_report(folder / "report.html", history, space)
        if delivered and tracker.projection is not None:
            best = {trial.number: {f"best_{spec.metric}": found[1], "best_epoch": float(found[0])}
                    for trial in history.trials.values() if (found := trial.best(spec.metric))}  # fmt: skip
            interrupted = [trial.number for trial in history.trials.values() if trial.state == "running"]
            tracker.projection.finish(best, interrupted, bundle, winner.number if winner else None)
    console.print(
        leaderboard_table(history, spec.metric, 10, f"leaderboard of {spec.name}, validation {spec.metric}", console.width)
    )
    states = ", ".join(f"{number} {state}" for state, number in counts(history).items() if number)
    console.print(f"{len(history.trials)} trials: {states}", highlight=False)
    efficiency = conductor.efficiency()
    if efficiency is not None:
        wall = conductor.last_result - (conductor.first_result or 0.0)
        console.print(f"steady efficiency {efficiency:.2f} (training time / {spec.workers} workers / {wall:.1f} s after the first result; "
                      f"the first result came {(conductor.first_result or 0.0) - conductor.session_started:.1f} s after the start)",
                      highlight=False, soft_wrap=True)  # fmt: skip
    if not delivered:
        console.print(f"MLflow did not take everything ({tracker.trouble}); it is safe in the ledger, send it with: "
                      f"mmm-search resume {spec.name}", highlight=False, soft_wrap=True)  # fmt: skip
    if why != "done":
        console.print(f"ended: {why}; go on with: mmm-search resume {spec.name} --runs {runs}", highlight=False, soft_wrap=True)
    console.print(f"report {folder / 'report.html'}, leaderboard {folder / 'leaderboard.csv'}"
                  + (f", bundle {folder / 'bundle'}" if winner else ""), highlight=False, soft_wrap=True)  # fmt: skip
    return history
