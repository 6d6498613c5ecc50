"""A sweep from its options to its report: what `run`, `resume` and `quickstart` share."""

import os
import shlex
import signal
import sys
import threading
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
from search.plan import SettingsCheck, check_contexts, check_spec, trial_config
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
            _stop_politely_when_terminated()
            if conductor.has_work:
                run_trials(conductor, threads)
            unfinished = any(trial.state == "running" for trial in conductor.trials.values())
            if conductor.is_out_of_time:
                why = "time budget"
            elif not unfinished and len(conductor.trials) >= spec.trials:
                why = "done"
        except KeyboardInterrupt:
            pass  # the session closes as interrupted, and `resume` goes on with what was running
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
        delivered = delivered and tracker.finish(history, bundle, winner.number if winner else None)
    _say(console, conductor, folder, why, tracker.trouble if not delivered else "", winner is not None)
    return history


def _stop_politely_when_terminated() -> None:
    """A cluster that takes the machine back sends SIGTERM: the sweep then ends as with Ctrl-C, ready to be resumed."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))


def _say(console: Console, conductor: Conductor, folder: Path, why: str, trouble: str, has_bundle: bool) -> None:
    """The end of a session on the terminal: leaderboard, efficiency, what is left to do, where things are."""
    spec, history = conductor.spec, conductor.ledger.history

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    title = f"leaderboard of {spec.name}, validation {spec.metric}"
    console.print(leaderboard_table(history, spec.metric, 10, title, console.width))
    say(
        f"{len(history.trials)} trials: "
        + ", ".join(f"{number} {state}" for state, number in counts(history).items() if number)
    )
    efficiency = conductor.efficiency()
    if efficiency is not None and conductor.first_result is not None:
        wall_s = conductor.last_result - conductor.first_result
        first_s = conductor.first_result - conductor.session_started
        say(f"steady efficiency {efficiency:.2f} (training time / {spec.workers} workers / {wall_s:.1f} s after the first result, "
            f"which came {first_s:.1f} s after the start)")  # fmt: skip
    go_on = f"mmm-search resume {spec.name} --runs {shlex.quote(str(folder.parent))}"
    if trouble:
        say(f"MLflow did not take everything ({trouble}); it is safe in the ledger, send it with: {go_on}")
    if why != "done":
        say(f"ended: {why}; go on with: {go_on}")
    bundle = f", bundle {folder / 'bundle'}" if has_bundle else ""
    say(f"report {folder / 'report.html'}, leaderboard {folder / 'leaderboard.csv'}{bundle}")
