"""A worker that hangs is told from one that takes its time, by how it went on before."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from search.cluster.watch import Silence
from search.ledger.events import read_events
from search.ledger.records import DeadWorker
from tests.conftest import Corpus
from tests.search.cluster.loss_parts import gone_on
from tests.search.cluster.test_growing import Sweep, with_epochs
from tests.search.cluster.test_worker_death import training_workers_of
from tests.sweep_parts import TIMEOUT_S, environment


class Looks:
    """A driver that looks every five seconds of a clock of its own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.silence = Silence(lambda: self.now)

    def until(self, found: Callable[[list[str]], bool], most_s: float = 1e5) -> float:
        """Seconds until a look finds that."""
        began = self.now
        while not found(self.silence.too_long(["a", "b"])):
            self.now += 5.0
            assert self.now - began < most_s
            self.silence.heard("b", is_new=False)
        return self.now - began


@pytest.mark.parametrize(("epoch_s", "limit_s"), [(1.0, 60.0), (3.0, 60.0), (40.0, 800.0)])
def test_a_worker_may_be_silent_for_a_minute_or_for_twenty_times_its_longest_silence(
    epoch_s: float, limit_s: float
) -> None:
    looks = Looks()
    looks.silence.heard("a", is_new=True)
    for _ in range(3):
        for _ in range(10):
            looks.now += epoch_s / 10
            assert looks.silence.too_long(["a", "b"]) == []
        looks.silence.heard("a", is_new=False)
    assert limit_s <= looks.until(lambda found: found == ["a"]) <= limit_s + 10
    assert looks.silence.end("a").startswith("its worker said nothing for ")
    assert looks.silence.ended["a"].endswith(f", before that for {epoch_s:.0f} s at most")


def test_one_that_has_other_trials_now_is_not_judged_by_those_before() -> None:
    looks = Looks()
    for is_new in (True, False, False, True):
        looks.now += 1.0
        assert looks.silence.too_long(["a"]) == []
        looks.silence.heard("a", is_new=is_new)
    assert looks.until(lambda found: found == ["a"]) >= 1800


def test_a_driver_that_stood_still_does_not_blame_its_workers() -> None:
    looks = Looks()
    for _ in range(3):
        looks.silence.heard("a", is_new=False)
        assert looks.silence.too_long(["a", "b"]) == []
    looks.now += 3600.0
    assert looks.silence.too_long(["a", "b"]) == []


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/stat").is_file(), reason="processes are found through /proc"
)
def test_the_trial_of_a_worker_that_hangs_goes_on_in_another_from_its_checkpoint(
    corpus: Corpus,
    empty_store: Path,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    sweep = Sweep(corpus, empty_store, tmp_path, "--trials", 2, "--workers", 2)
    with sweep.running(environment()) as driver:
        sweep.wait(driver, lambda history: with_epochs(history) == 2, TIMEOUT_S)
        stopped = None
        while stopped is None:
            for process in training_workers_of(driver.pid)[:1]:
                os.kill(process, signal.SIGSTOP)
                stopped = process
            with contextlib.suppress(subprocess.TimeoutExpired):
                driver.wait(0.1)
        sweep.wait(
            driver,
            lambda history: any(trial.dead_workers for trial in history.trials.values()),
            TIMEOUT_S,
        )
        (number,) = [n for n, trial in sweep.history.trials.items() if trial.dead_workers]
        before = sweep.history.trials[number].epoch
        sweep.wait(driver, lambda history: history.trials[number].epoch > before, TIMEOUT_S)
        driver.send_signal(signal.SIGTERM)
        told, _ = driver.communicate(timeout=TIMEOUT_S)
    assert driver.returncode == 0, told
    assert not Path(f"/proc/{stopped}").exists()
    events = [
        event
        for event in read_events(sweep.folder / "ledger.sqlite")
        if number in (event.trial, getattr(event.body, "trial", None))
    ]
    place = next(i for i, event in enumerate(events) if isinstance(event.body, DeadWorker))
    assert events[place].body.reason.startswith("its worker said nothing for ")
    saved = [event.body.epoch for event in events[:place] if event.kind == "checkpoint"]
    after = [event.body.epoch for event in events[place:] if event.kind == "epoch"]
    assert after[0] == (saved[-1] if saved else 0) + 1
    assert {trial.state for trial in sweep.history.trials.values()} == {"running"}
    assert f"trial {number}: {events[place].body.reason}; it goes on in another" in told
    record_property("lost", gone_on(events, place))
