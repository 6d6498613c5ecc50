"""A driver that is killed ten times: `resume` loses no more than the report that was on its way,
and suggests as if nothing had been.
"""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmm.device import cpus_here
from search.engine.controller import Controller
from search.ledger.events import create_sweep, read_events, read_history
from search.ledger.history import History
from search.ledger.spec import SweepSpec
from search.ledger.trial import Trial
from search.space.load import load_space
from tests.conftest import Corpus
from tests.search.cluster.loss_parts import trained_again
from tests.search.cluster.test_worker_death import processes_below, statuses
from tests.sweep_parts import call, command, environment, train_serially, write_space

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path("/proc/self/stat").is_file(), reason="processes are found through /proc"
    ),
]

KILLS_ON_RAY = 3  # whose start takes seconds; one of the three falls into it
SERIAL_KILLS = 7
NUM_TRIALS = 12
# Trials of several reports, whose checkpoints cost next to nothing.
SPACE = """
def suggest(trial):
    return {"architecture": "mlp_mixer", "context": trial.suggest_int("context", 1, 3),
            "width": 24, "num_blocks": 1,
            "lr": trial.suggest_float("lr", 1e-4, 1e-2, log=True)}
"""


def options(
    corpus: Corpus, store: Path, folder: Path, name: str, workers: int, epochs: int
) -> list[object]:
    """A sweep's command line, with an empty store for its MLflow runs in place."""
    (folder / "runs").mkdir(parents=True)
    shutil.copy(store, folder / "runs")
    space = write_space(folder / "space.py", SPACE)
    return [
        "run",
        space,
        corpus.manifest.path,
        "--features",
        corpus.features_dir,
        "--name",
        name,
        "--trials",
        NUM_TRIALS,
        "--epochs",
        epochs,
        "--first-rung",
        epochs // 3,
        "--workers",
        workers,
        "--packs",
        "off",
        "--runs",
        folder / "runs",
    ]


def count_events(path: Path) -> int:
    if not path.is_file():
        return 0
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
        try:
            return int(connection.execute("SELECT count(*) FROM events").fetchone()[0])
        finally:
            connection.close()
    except sqlite3.OperationalError:  # the table is just being made
        return 0


def run_and_kill(
    arguments: list[object], ledger: Path, num_events: int, then_s: float, most_events: int
) -> None:
    """Kill a driver (-9) so long after it wrote that many events, or as soon as the ledger has
    `most_events`.

    What Ray leaves of it is ended as well.
    """
    there = count_events(ledger)
    wanted = max(min(there + num_events, most_events), there + 1)  # at least the session has begun
    with subprocess.Popen(
        command("search", *arguments),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as driver:
        try:
            while count_events(ledger) < wanted and driver.poll() is None:
                wait(driver, 0.05)
            deadline = time.monotonic() + then_s
            while (
                time.monotonic() < deadline
                and count_events(ledger) < most_events
                and driver.poll() is None
            ):
                wait(driver, 0.05)
            assert driver.poll() is None, f"ended before it was killed: {driver.communicate()[1]}"
        finally:
            started = processes_below(driver.pid)
            driver.kill()
    assert driver.returncode == -signal.SIGKILL
    for process in started:  # Ray's own end with their driver, in some seconds
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue


def wait(driver: subprocess.Popen[str], seconds: float) -> None:
    try:
        driver.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def kill_and_resume(
    first: list[object], ledger: Path, workers: int, epochs: int, serial_kills: int = 0
) -> None:
    """Run a sweep whose driver is killed at random moments, first on Ray, then so many times
    without it, and which then ends.
    """
    draw = random.Random(workers)
    ended: dict[int, Trial] = {}
    name, runs = ledger.parent.name, ledger.parent.parent
    resume = ["resume", name, "--runs", runs]
    num_kills = KILLS_ON_RAY + serial_kills
    least = NUM_TRIALS * (
        epochs // 3 + 3
    )  # events of any such sweep: suggestion, epochs to the first rung, decision, end
    for kill in range(num_kills):
        # Every third while it starts, of which the ledger has the two events of an opened session;
        # the others while it trains.
        is_starting = kill % 3 == 1
        if kill == KILLS_ON_RAY:
            resume.append("--serial")
        num_events = 2 if is_starting else draw.randrange(3, 60)
        if kill == num_kills - 1:  # by then a trial has ended, however its rival stands
            num_events = workers * (epochs + 3)
        run_and_kill(
            resume if kill else first,
            ledger,
            num_events,
            then_s=draw.uniform(0.0, 5.0 if is_starting and kill < KILLS_ON_RAY else 1.0),
            most_events=least
            * (kill + 1)
            // (num_kills + 1),  # however fast the machine, all kills fit into the sweep
        )
        before = read_history(ledger)
        assert before.last_close is None
        ended |= {
            number: trial for number, trial in before.trials.items() if trial.state != "running"
        }
    call("search", *resume)
    after = read_history(ledger)
    assert ended
    assert {number: after.trials[number] for number in ended} == ended


def recomputed(ledger: Path) -> dict[tuple[int, int], list[tuple[int, float]]]:
    """(session, trial) -> epochs that were reported a second time, each with when it was reported
    before.
    """
    found = defaultdict(list)
    before: dict[tuple[Any, int], float] = {}
    session = 0
    for event in read_events(ledger):
        session += event.kind == "session"
        if event.kind == "epoch":
            assert event.trial is not None
            key = event.trial, event.body.epoch
            if key in before:
                found[session, event.trial].append((event.body.epoch, before[key]))
            before[key] = event.time
    return dict(found)


def check(ledger: Path, num_kills: int) -> str:
    """What kills may not have done to a sweep; what they cost it."""
    events = list(read_events(ledger))
    assert sum(event.kind == "session" for event in events) == num_kills + 1
    history = read_history(ledger)
    assert history.last_close is not None
    assert history.last_close.why == "done"
    assert list(history.trials) == list(range(NUM_TRIALS))
    assert {trial.state for trial in history.trials.values()} <= {"complete", "pruned"}
    # Nothing that had ended was run again.
    once = Counter(range(NUM_TRIALS))
    assert Counter(event.trial for event in events if event.kind == "suggest") == once
    assert Counter(event.trial for event in events if event.kind == "end") == once
    ended: set[int | None] = set()
    for event in events:
        assert not (event.kind == "epoch" and event.trial in ended)
        ended |= {event.trial} if event.kind == "end" else set()
    for trial in history.trials.values():
        assert [entry.epoch for entry in trial.epochs] == list(range(1, len(trial.epochs) + 1))
    # What was trained twice came in one report: events of one append have one time.
    cases = recomputed(ledger)
    for (session, trial_number), epochs in cases.items():
        assert len({when for _, when in epochs}) == 1, (session, trial_number, epochs)
    found = statuses(ledger.parent.parent)
    assert found.keys() == {"sweep", *map(str, range(NUM_TRIALS))}
    assert found["sweep"] == "FINISHED"
    assert "RUNNING" not in found.values()
    assert (ledger.parent / "bundle" / "checksums.json").is_file()
    ends = Counter(event.trial for event in events if event.kind == "end")
    return (
        f"{num_kills} kills: {trained_again(events)}, in {len(cases)} reports;"
        f" {sum(ends.values()) - len(ends)} of {len(ends)} finished trials again"
    )


def test_kills_of_the_driver_cost_at_most_a_report_a_trial(
    corpus: Corpus,
    empty_store: Path,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    workers, epochs = 2, 90
    ledger = tmp_path / "runs" / "killed" / "ledger.sqlite"
    first = options(corpus, empty_store, tmp_path, "killed", workers, epochs)
    kill_and_resume(first, ledger, workers, epochs)
    record_property("lost", check(ledger, KILLS_ON_RAY))


def train_undisturbed(spec: SweepSpec, folder: Path) -> History:
    """The same sweep without Ray, in this process."""
    num_threads = torch.get_num_threads()
    try:
        with create_sweep(folder, spec) as ledger:
            controller = Controller(ledger, spec, load_space(spec.space), "cpu", lambda: None)
            controller.open_session("")
            # As many threads as Ray's one worker has: sums of floats depend on it.
            for _ in train_serially(controller, threads=cpus_here()):
                pass
        return ledger.history
    finally:
        torch.set_num_threads(num_threads)


@pytest.mark.chaos
def test_a_serial_sweep_killed_ten_times_suggests_what_an_undisturbed_one_does(
    corpus: Corpus,
    empty_store: Path,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    workers, epochs = 1, 60
    ledger = tmp_path / "runs" / "killed" / "ledger.sqlite"
    first = options(corpus, empty_store, tmp_path, "killed", workers, epochs)
    kill_and_resume(first, ledger, workers, epochs, SERIAL_KILLS)
    record_property("lost", check(ledger, KILLS_ON_RAY + SERIAL_KILLS))
    killed = read_history(ledger)
    assert killed.spec is not None
    whole = train_undisturbed(killed.spec, tmp_path / "whole")
    assert [trial.settings for trial in killed.trials.values()] == [
        trial.settings for trial in whole.trials.values()
    ]
    for one, other in zip(whole.trials.values(), killed.trials.values(), strict=True):
        assert (one.params, one.state, one.reason) == (other.params, other.state, other.reason)
        assert one.scores("macro_f1") == other.scores("macro_f1")
