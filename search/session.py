"""A sweep from its options to its report: what `run`, `resume` and `quickstart` share."""

import contextlib
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from mmm.console import plain
from mmm.device import cpus_here
from mmm.manifest import Manifest
from search.engine.controller import Conductor
from search.ledger.data import Changes, data_changes, restarts
from search.ledger.events import Ledger, read_history
from search.ledger.files import drop_weights, existing_sweep, sweep_dir
from search.ledger.history import History
from search.ledger.spec import SweepSpec
from search.live import View, lasting
from search.plan.checks import Checked, check
from search.results.baseline import baseline_of, fit_baseline, verdict
from search.results.export import best_trial, export_trial
from search.results.leaderboard import counts, leaderboard_table, write_leaderboard
from search.space.enqueue import Point
from search.space.settings import SettingsCheck, sweep_precisions
from search.stopping import Stopping
from search.tracking.outbox import Outbox

_HURRIED_WAIT_S = 2.0  # for MLflow, where a signal ended the sweep


def command_line() -> str:
    return shlex.join(["mmm-search", *sys.argv[1:]])


def command_started() -> float:
    """When this process was started, in seconds since 1970; where the system does not say, now."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return time.time()
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")


def start(
    spec: SweepSpec,
    runs: Path,
    console: Console,
    points: Sequence[Point] = (),
    warm_start: Sequence[str] = (),
    *,
    serial: bool = False,
) -> History:
    """Run a new sweep: `points` first, and what the sweeps in `warm_start` found known to the
    sampler. `serial`: in this process, without Ray.

    Raises ValueError where one of this name is there.
    """
    folder = sweep_dir(runs, spec.name)
    if (folder / "ledger.sqlite").is_file():
        raise ValueError(
            f"sweep {spec.name!r} exists in {runs}/; go on with it: mmm-search resume {spec.name},"
            " or choose another --name"
        )
    with lasting(console), Outbox() as outbox:
        checked = check(spec, points)
        priors: list[dict[str, Any]] = []
        if warm_start:
            from search.suggest.warm_start import load_priors

            priors = [
                prior for source in warm_start for prior in load_priors(source, runs, spec.metric)
            ]
        data = checked.settings_check.data()
        return _run(checked, runs, console, outbox, data, priors, serial=serial)


def resume(
    runs: Path,
    name: str,
    changes: dict[str, Any],
    console: Console,
    points: Sequence[Point] = (),
    *,
    accept_changed_data: bool = False,
    serial: bool = False,
) -> History:
    """Go on with a sweep from its ledger, `points` next. `changes` overrule the specification (more
    trials, another budget). `serial`: in this process, without Ray.

    Raises ValueError where the data are not those that its trials were trained on, unless that is
    accepted.
    """
    folder = existing_sweep(runs, name)
    history = read_history(folder / "ledger.sqlite")
    assert history.spec is not None
    spec = replace(history.spec, **changes, command=command_line())
    with lasting(console), Outbox() as outbox:
        settings_check = SettingsCheck(spec)
        try:
            checked = check(spec, points, settings_check)
        except (ValueError, FileNotFoundError):
            # Features may be missing because the manifest was changed: that is to be decided first.
            if not accept_changed_data:
                _refuse_changed(history, data_changes(history, settings_check.data()))
            raise
        data = settings_check.data()
        changed = data_changes(history, data)
        if not accept_changed_data:
            _refuse_changed(history, changed)
        data |= restarts(history, data, changed)
        return _run(checked, runs, console, outbox, data, serial=serial)


def _refuse_changed(history: History, changed: Changes) -> None:
    if changed.what:
        assert history.spec is not None
        raise ValueError(
            f"sweep {history.spec.name!r}: the data are not those that its trials were trained on"
            f" ({'; '.join(changed.what)}); start a new sweep on them under another --name, or go"
            f" on in spite of it, which the report and the model card will say: {command_line()}"
            " --accept-changed-data"
        )


def _run(
    checked: Checked,
    runs: Path,
    console: Console,
    outbox: Outbox,
    data: dict[str, Any],
    priors: Sequence[dict[str, Any]] | None = None,
    *,
    serial: bool,
) -> History:
    """A session on `data`, the body of their note; `priors` are those of a new sweep, None goes on
    with one.
    """
    spec, space = checked.spec, checked.space
    if spec.precisions is None:  # decided once: a resumed sweep keeps it, wherever it goes on
        spec = replace(spec, precisions=sweep_precisions(spec))
    folder = sweep_dir(runs, spec.name)
    threads = max(1, cpus_here() // spec.workers) if spec.address is None else 1
    device = "cuda" if spec.gpus_per_trial > 0 else "cpu"
    # A debugger's prompt and a table that refreshes itself would write over each other.
    view = View(console, spec.name, is_live=console.is_terminal and not serial)
    with Ledger(folder) as ledger, view:
        if ledger.lock.replaced is not None:
            console.print(
                plain(f"took over the sweep from {ledger.lock.replaced}"),
                highlight=False,
                soft_wrap=True,
            )
        if priors is not None:
            ledger.append(
                ("sweep", None, {"spec": spec.as_json()}),
                *(("prior", None, prior) for prior in priors),
            )
        conductor = Conductor(
            ledger, spec, space, device, view.changed, count_parameters=checked.settings_check
        )
        conductor.stopwatch.command_started = command_started()
        conductor.open_session(spec.command)
        ledger.append(("note", None, {"about": "data", **data}))
        for number in data.get("restarted", ()):
            with contextlib.suppress(OSError):  # none were kept
                drop_weights(folder, number)
        view.follow(conductor)
        outbox.follow(runs, spec.name)
        why, has_work = "interrupted", True
        with Stopping(conductor.verdicts.interrupt) as stopping:
            try:
                has_work = conductor.orders.has_work and not conductor.verdicts.check_budgets()
                if has_work and space.has_baseline and baseline_of(ledger.history) is None:
                    _fit_baseline(conductor, checked.settings_check.manifest, view, console)
                if has_work:
                    _train(conductor, threads, serial)
                unfinished = any(trial.state == "running" for trial in conductor.trials.values())
                if not unfinished and len(conductor.trials) >= spec.trials:
                    why = "done"
                elif conductor.verdicts.used_up is not None:
                    why = conductor.verdicts.used_up.why
            except KeyboardInterrupt:
                # the session closes as interrupted, and `resume` goes on with what was running
                pass
            finally:
                with stopping.ending():
                    if conductor.verdicts.broken_off is not None:
                        why = f"broken off: {conductor.verdicts.broken_off}"
                    conductor.close_session(why)
                    history = ledger.history
                    write_leaderboard(folder / "leaderboard.csv", history, spec.metric)
            from search.results.report import write_report

            write_report(folder / "report.html", history)
            winner = best_trial(history)
            if winner is not None:
                export_trial(history, folder, winner.number, folder / "bundle")
            with console.status("sending the rest to MLflow"):
                # Whoever sent a signal kills what has not ended some seconds later; the outbox goes
                # on by itself.
                trouble = outbox.close(_HURRIED_WAIT_S) if stopping.is_asked else outbox.close()
    _say(console, conductor, folder, why, has_work, trouble, winner is not None)
    where = (
        ""
        if spec.tracking_uri
        else f" (while this runs: mmm-search ui --runs {shlex.quote(str(runs))})"
    )
    if outbox.ranking is not None:
        console.print(
            plain(f"all trials, best first{where}: {outbox.ranking}"),
            highlight=False,
            soft_wrap=True,
        )
    if outbox.comparison is not None:
        console.print(
            plain(f"compare the best of each architecture{where}: {outbox.comparison}"),
            highlight=False,
            soft_wrap=True,
        )
    if (sentence := verdict(history)) is not None:
        console.print(plain(sentence), highlight=False, soft_wrap=True)
    return history


def _train(conductor: Conductor, threads: int, serial: bool) -> None:
    if serial:
        from search.serial import train_here

        train_here(conductor, threads)
        return
    # Ray takes seconds to import; everything that can be refused has been by now.
    from search.cluster.connect import ray_for

    with ray_for(conductor.spec, threads):
        from search.cluster.tune import train_on_ray

        train_on_ray(conductor, threads)


def _fit_baseline(conductor: Conductor, manifest: Manifest, view: View, console: Console) -> None:
    """The linear system, before the first trial."""
    ledger, metric = conductor.ledger, conductor.spec.metric
    body = fit_baseline(
        conductor.spec, manifest, ledger.folder, len(ledger.history.data_changes), view.doing
    )
    ledger.append(("baseline", None, body))
    found = baseline_of(ledger.history)
    assert found is not None
    line = (
        f"linear baseline: {metric} {found.metrics[metric]:.4f} (logistic regression,"
        f" {found.words}), in {found.seconds:.1f} s"
    )
    console.print(plain(line), highlight=False, soft_wrap=True)
    view.doing("")


def _say(
    console: Console,
    conductor: Conductor,
    folder: Path,
    why: str,
    had_work: bool,
    trouble: str,
    has_bundle: bool,
) -> None:
    """The end of a session on the terminal: leaderboard, efficiency, what is left to do, where
    things are.
    """
    spec, history = conductor.spec, conductor.ledger.history

    def say(text: str) -> None:
        console.print(plain(text), highlight=False, soft_wrap=True)

    title = f"leaderboard of {spec.name}, validation {spec.metric}"
    console.print(leaderboard_table(history, spec.metric, 10, title, console.width))
    say(
        f"{len(history.trials)} trials: "
        + ", ".join(f"{number} {state}" for state, number in counts(history).items() if number)
    )
    for sentence in history.data_account():
        say(f"warning: {sentence}")
    efficiency = conductor.stopwatch.efficiency()
    if efficiency is not None and conductor.stopwatch.first_result is not None:
        wall_s = conductor.stopwatch.last_result - conductor.stopwatch.first_result
        first_s = conductor.stopwatch.first_result - conductor.stopwatch.started
        say(
            f"steady efficiency {efficiency:.2f} (training time / {spec.workers} workers /"
            f" {wall_s:.1f} s after the first result, which came {first_s:.1f} s after the start)"
        )
    first_step_s = conductor.stopwatch.first_step_s()
    if first_step_s is not None:
        say(f"first training step {first_step_s:.1f} s after the command")
    if conductor.dead_workers:
        say(
            f"warning: {len(conductor.dead_workers)} workers died, and what they trained went on in"
            f" others from its last checkpoints; the last one died so: {conductor.dead_workers[-1]}"
        )
    for warning in conductor.warnings:
        say(f"warning: {warning}")
    go_on = f"mmm-search resume {spec.name} --runs {shlex.quote(str(folder.parent))}"
    if trouble:
        sync = f"mmm-search mlflow-sync {spec.name} --runs {shlex.quote(str(folder.parent))}"
        say(
            f"MLflow did not take everything ({trouble}); it is safe in the ledger, send it with:"
            f" {sync}"
        )
    budget = conductor.verdicts.used_up
    if why == "done" and not had_work:
        say(
            f"nothing was left to train; try more settings with: {go_on} --trials"
            f" {spec.trials + 20}"
        )
    elif budget is not None and why == budget.why:
        ended = "ended" if had_work else "nothing was trained, for what was given is used up"
        say(f"{ended}: {why} ({budget.text}); go on with more: {go_on} {budget.option} ...")
    elif conductor.verdicts.broken_off is not None:
        say(f"ended: {why}; once that is mended, go on with: {go_on}")
    elif why != "done":
        say(f"ended: {why}; go on with: {go_on}")
    bundle = f", bundle {folder / 'bundle'}" if has_bundle else ""
    say(f"report {folder / 'report.html'}, leaderboard {folder / 'leaderboard.csv'}{bundle}")
