"""A sweep from its options to its report: what `run`, `resume` and `quickstart` share."""

import contextlib
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mmm.console import say
from mmm.device import cpus_here
from mmm.files import write_text
from mmm.manifest import Manifest
from mmm.manifest_csv import manifest_text
from mmm.metrics import value_of
from mmm.training.own_system import load_recorded
from search.engine.controller import Controller
from search.engine.verdicts import INTERRUPTED
from search.ledger.data import Changes, data_changes, restarts, with_classes_of
from search.ledger.events import create_sweep, open_sweep, read_history
from search.ledger.files import SEALED, check_new, drop_weights, existing_sweep, sweep_dir
from search.ledger.history import History
from search.ledger.records import DataNote, Prior
from search.ledger.spec import SweepSpec
from search.live import View, lasting
from search.plan.checks import Checked, check
from search.results.baseline import baseline_of, fit_baseline, verdict, words
from search.results.encoders import cross_table, crosses
from search.results.export import export_trial
from search.results.kept import best_trial
from search.results.leaderboard import counts, leaderboard_table, write_leaderboard
from search.space.enqueue import Point
from search.space.load import space_note
from search.space.settings import SettingsCheck, sweep_precisions, with_features_there
from search.stopping import Stopping
from search.storage.copies import Copies
from search.storage.disks import shared_disk_warning
from search.storage.fetch import bring, check_storage, found_here
from search.storage.here import staged_here
from search.tracking.outbox import Outbox
from spaces import Space

if TYPE_CHECKING:
    from search.cluster.connect import Place

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
    check_new(runs, spec.name, is_tracked_here=spec.tracking_uri is None)
    if (warning := shared_disk_warning(runs)) is not None:
        say(console, warning)
    with lasting(console), Outbox() as outbox:
        checked = check(spec, points, tell=lambda text: say(console, text))
        priors: list[Prior] = []
        if warm_start:
            from search.suggest.warm_start import load_priors

            priors = [
                prior for source in warm_start for prior in load_priors(source, runs, spec.metric)
            ]
        data = checked.settings_check.data()
        if spec.storage is not None:
            with console.status("looking at the storage"):
                check_storage(spec.storage, spec.name)
        return _run(checked, runs, console, outbox, data, priors, serial=serial)


def resume(
    runs: Path,
    name: str,
    changes: Mapping[str, Any],
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
    if changes.get("storage") is not None:
        with console.status("looking at the storage"):
            brought = bring(changes["storage"], name, runs)
        if brought is not None:
            say(console, f"sweep {name} {brought}")
    folder = existing_sweep(runs, name)
    history = read_history(folder / "ledger.sqlite")
    _load_systems(history)
    spec = replace(history.spec, **changes, command=command_line())
    with console.status("bringing features"):
        spec = staged_here(spec)
    if spec.storage is not None:
        spec = found_here(spec, folder, history, changes, spec.command)
    with lasting(console), Outbox() as outbox:
        if Path(spec.features).is_dir():
            spec = with_features_there(spec)
        settings_check = SettingsCheck(spec)
        settings_check.manifest = with_classes_of(history, settings_check.manifest)
        try:
            checked = check(spec, points, settings_check, lambda text: say(console, text))
        except (ValueError, FileNotFoundError):
            # Features may be missing because the manifest was changed: that is to be decided first.
            if not accept_changed_data:
                _refuse_changed(history, data_changes(history, settings_check.data()))
            raise
        data = settings_check.data()
        changed = data_changes(history, data)
        if not accept_changed_data:
            _refuse_changed(history, changed)
        data = restarts(history, data, changed)
        return _run(checked, runs, console, outbox, data, serial=serial)


def _load_systems(history: History) -> None:
    """Load the systems of the user's own that trials were trained with. Raises ValueError or
    FileNotFoundError where a file is not the one of then: scores would not compare, nor weights
    fit.
    """
    for trial in history.trials.values():
        try:
            load_recorded(trial.settings)
        except (ValueError, FileNotFoundError) as error:
            raise type(error)(
                f"sweep {history.spec.name!r}, trial {trial.number}: {error}; or start a new sweep"
                " with it under another --name"
            ) from None


def _refuse_changed(history: History, changed: Changes) -> None:
    if changed.what:
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
    data: DataNote,
    priors: Sequence[Prior] | None = None,
    *,
    serial: bool,
) -> History:
    """A session on `data`; `priors` are those of a new sweep, None goes on with one."""
    spec, space = checked.spec, checked.space
    if spec.precisions is None:  # decided once: a resumed sweep keeps it, wherever it goes on
        spec = replace(spec, precisions=sweep_precisions(spec))
    folder = sweep_dir(runs, spec.name)
    threads = max(1, cpus_here() // spec.workers) if spec.address is None else 1
    device = "cuda" if spec.gpus_per_trial > 0 else "cpu"
    place = None if serial else _reach(spec, threads, console)
    if place is not None and priors is not None:
        # Ray takes seconds to import; everything that can be refused has been by now.
        from search.cluster.connect import start_ray

        with console.status("starting Ray"):
            start_ray(place, spec, threads)  # nothing is written where that fails
    # A debugger's prompt and a table that refreshes itself would write over each other.
    view = View(console, spec.name, is_live=console.is_terminal and not serial)
    for note in checked.settings_check.manifest.notes:
        say(console, f"note: {note}")
    opened = open_sweep(folder) if priors is None else create_sweep(folder, spec, priors)
    with opened as ledger, view, _copying(spec, folder, console) as copies:
        if ledger.lock.replaced is not None:
            say(console, f"took over the sweep from {ledger.lock.replaced}")
        controller = Controller(
            *(ledger, spec, space, device, view.changed),
            count_parameters=checked.settings_check,
            tell=lambda text: say(console, text),
        )
        controller.stopwatch.command_started = command_started()
        controller.open_session(spec.command, threads)
        ledger.append(data)
        source = space_note(spec.space)
        if not ledger.history.spaces or not source.is_same(ledger.history.spaces[-1][1]):
            ledger.append(source)
            for sentence in ledger.history.space_account()[-1:]:
                say(console, f"warning: {sentence}")
        write_text(folder / SEALED, manifest_text(checked.settings_check.manifest))
        for number in data.restarted:
            with contextlib.suppress(OSError):  # none were kept
                drop_weights(folder, number)
        if copies is not None:
            copies.start()
        view.follow(controller)
        outbox.follow(runs, spec.name)
        why, has_work = INTERRUPTED, True
        with Stopping(controller.verdicts.interrupt) as stopping:
            try:
                has_work = controller.orders.has_work and not controller.verdicts.check_budgets()
                if has_work and space.has_baseline and baseline_of(ledger.history) is None:
                    _fit_baseline(controller, checked.settings_check.manifest, view, console)
                if has_work:
                    _train(controller, threads, place, console)
                unfinished = any(trial.state == "running" for trial in controller.trials.values())
                if not unfinished and len(controller.trials) >= spec.trials:
                    why = "done"
                elif controller.verdicts.used_up is not None:
                    why = controller.verdicts.used_up.why
            except KeyboardInterrupt:
                # the session closes as interrupted, and `resume` goes on with what was running
                pass
            finally:
                with stopping.ending():
                    if controller.verdicts.broken_off is not None:
                        why = f"broken off: {controller.verdicts.broken_off}"
                    controller.close_session(why)
                    history = ledger.history
                    write_leaderboard(folder / "leaderboard.csv", history, spec.metric)
            has_bundle = _write_results(folder, history, console, is_hurried=stopping.is_asked)
            with console.status("sending the rest to MLflow"):
                # Whoever sent a signal kills what has not ended some seconds later; the outbox goes
                # on by itself.
                trouble = outbox.close(_HURRIED_WAIT_S) if stopping.is_asked else outbox.close()
            if copies is not None:
                with console.status(f"copying to {copies.store.url}"):
                    copies.finish(is_hurried=stopping.is_asked)
    _tell_results(history, console)
    for line in _account(controller, folder, why, has_work, trouble, outbox, has_bundle):
        say(console, line)
    return history


@contextlib.contextmanager
def _copying(spec: SweepSpec, folder: Path, console: Console) -> Iterator[Copies | None]:
    """Copies of the sweep, where they are wanted. They are not begun yet."""
    if spec.storage is None:
        yield None
        return
    manifest = Path(spec.manifest)
    copies = Copies(
        folder, manifest, spec.storage, spec.storage_interval_s, lambda text: say(console, text)
    )
    try:
        yield copies
    finally:
        copies.stop()


def end_broken_off(runs: Path, name: str, why: str, console: Console) -> History:
    """End the session of a sweep whose process could not, as it would have ended itself."""
    folder = existing_sweep(runs, name)
    with lasting(console), Outbox() as outbox, open_sweep(folder) as ledger:
        history, spec = ledger.history, ledger.history.spec
        _load_systems(history)
        # Nothing is suggested any more.
        controller = Controller(ledger, spec, Space(lambda _: {}), "cpu", lambda: None)
        controller.stopwatch.started = controller.stopwatch.command_started = (
            history.session_started or controller.stopwatch.started
        )
        is_asked = why == INTERRUPTED
        if is_asked:
            controller.verdicts.interrupt()
        else:
            controller.verdicts.break_off(why)
            why = f"broken off: {why}"
        outbox.follow(runs, name)
        controller.close_session(why)
        write_leaderboard(folder / "leaderboard.csv", history, spec.metric)
        has_bundle = _write_results(folder, history, console, is_hurried=is_asked)
        trouble = outbox.close(_HURRIED_WAIT_S)
    _tell_results(history, console)
    for line in _account(controller, folder, why, True, trouble, outbox, has_bundle):
        say(console, line)
    return history


def _write_results(
    folder: Path, history: History, console: Console, *, is_hurried: bool = False
) -> bool:
    """The report, and the bundle of the best trial; whether there is one.

    `is_hurried`: whoever sent a signal kills what has not ended some seconds later, so that nothing
    is trained any more.
    """
    from search.results.report import read_confirmed, read_winner, write_report

    write_report(
        folder / "report.html",
        history,
        read_confirmed(folder),
        None if is_hurried else read_winner(history, folder),
    )
    winner = best_trial(history)
    if winner is None:
        return False
    if history.spec.folds:
        if is_hurried:
            say(
                console,
                f"trial {winner.number} is not trained on the rows of all folds now; for its"
                f" bundle: mmm-search export {history.spec.name} -o best --runs"
                f" {shlex.quote(str(folder.parent))}",
            )
            return False
        say(console, f"training trial {winner.number} on the rows of all folds")
    export_trial(history, folder, winner.number, folder / "bundle")
    return True


def _tell_results(history: History, console: Console) -> None:
    spec = history.spec
    title = f"leaderboard of {spec.name}, {spec.score_name}"
    console.print(leaderboard_table(history, spec.metric, 10, title, console.width))
    for cross in crosses(history, spec.metric):
        say(console, cross.title)
        console.print(cross_table(cross))


def _reach(spec: SweepSpec, threads: int, console: Console) -> "Place":
    """Where the sweep will train. Raises ValueError where there is no such place."""
    from search.cluster.connect import reach, wanted_by

    place = reach(spec.address, wanted_by(spec, threads), spec.workers, insecure=spec.insecure)
    if place.warning is not None:
        say(console, place.warning)
    if spec.ship and place.cluster is not None:
        from search.cluster.shipping import sentence

        say(console, sentence())
    return place


def _train(controller: Controller, threads: int, place: "Place | None", console: Console) -> None:
    if place is None:
        from search.serial import train_here

        train_here(controller, threads)
        return
    from search.cluster.connect import ray_on

    with ray_on(place, controller.spec, threads):
        from search.cluster.tune import train_on_ray

        train_on_ray(controller, threads, place, lambda text: say(console, text))


def _fit_baseline(controller: Controller, manifest: Manifest, view: View, console: Console) -> None:
    """The linear system, before the first trial."""
    ledger, metric = controller.ledger, controller.spec.metric
    found = fit_baseline(
        controller.spec, manifest, ledger.folder, len(ledger.history.data_changes), view.doing
    )
    ledger.append(found)
    say(
        console,
        f"linear baseline: {metric} {value_of(found.metrics, metric):.4f} (logistic regression,"
        f" {words(found)}), in {found.seconds:.1f} s",
    )
    view.doing("")


def _account(
    controller: Controller,
    folder: Path,
    why: str,
    had_work: bool,
    trouble: str,
    outbox: Outbox,
    has_bundle: bool,
) -> Iterator[str]:
    """What a session says at its end: efficiency, what is left to do, where things are."""
    spec, history, watch = controller.spec, controller.ledger.history, controller.stopwatch
    states = (f"{number} {state}" for state, number in counts(history).items() if number)
    yield f"{len(history.trials)} trials: {', '.join(states)}"
    changes = *history.data_account(), *history.space_account()
    yield from (f"warning: {sentence}" for sentence in changes)
    efficiency = watch.efficiency()
    if efficiency is not None and watch.first_result is not None:
        wall_s = watch.last_result - watch.first_result
        yield (
            f"steady efficiency {efficiency:.2f} (training time / {spec.workers} workers /"
            f" {wall_s:.1f} s after the first result, which came"
            f" {watch.first_result - watch.started:.1f} s after the start)"
        )
    if (first_step_s := watch.first_step_s()) is not None:
        yield f"first training step {first_step_s:.1f} s after the command"
    if dead := controller.dead_workers:
        yield (
            f"warning: {len(dead)} workers died, and what they trained went on in others from its"
            f" last checkpoints; the last one died so: {dead[-1]}"
        )
    yield from (f"warning: {warning}" for warning in controller.warnings)
    in_runs = f"--runs {shlex.quote(str(folder.parent))}"
    if trouble:
        yield (
            f"MLflow did not take everything ({trouble}); it is safe in the ledger, send it with:"
            f" mmm-search mlflow-sync {spec.name} {in_runs}"
        )
    go_on, budget = f"mmm-search resume {spec.name} {in_runs}", controller.verdicts.used_up
    if why == "done" and not had_work:
        more = f"{go_on} --trials {spec.trials + 20}"
        yield f"nothing was left to train; try more settings with: {more}"
    elif budget is not None and why == budget.why:
        ended = "ended" if had_work else "nothing was trained, for what was given is used up"
        yield f"{ended}: {why} ({budget.text}); go on with more: {go_on} {budget.more}"
    elif controller.verdicts.broken_off is not None:
        yield f"ended: {why}; once that is mended, go on with: {go_on}"
    elif why != "done":
        yield f"ended: {why}; go on with: {go_on}"
    bundle = f", bundle {folder / 'bundle'}" if has_bundle else ""
    yield f"report {folder / 'report.html'}, leaderboard {folder / 'leaderboard.csv'}{bundle}"
    where = "" if spec.tracking_uri else f" (while this runs: mmm-search ui {in_runs})"
    if outbox.ranking is not None:
        yield f"all trials, best first{where}: {outbox.ranking}"
    if outbox.comparison is not None:
        yield f"compare the best of each architecture{where}: {outbox.comparison}"
    if (sentence := verdict(history)) is not None:
        yield sentence
