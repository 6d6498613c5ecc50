"""What a sweep's driver costs at 10 to 4,000 workers, in simulated time: the real controller,
ledger and, where asked for, MLflow's outbox; beside it Ray Tune's own OptunaSearch and
ASHAScheduler, called as Tune's controller calls them (benchmarks/replay.py).

    python -m benchmarks.simulated_cluster [--workers 10 100 1000] [--epoch-s 10] [--outbox]
        [--side ours stock]

Workers are virtual: an epoch takes what it took in the recording, all of them scaled so that their
mean is `--epoch-s` (the recorded ones are of a small corpus and take a fraction of a second). The
driver is one server: a report waits until those before it are done and takes the seconds that the
controller really took for it, by the clock. A worker goes on training while its report waits,
except at a rung and at its end, as the real one does. One report in `--death` comes from a worker
that has died. A stock worker reports each epoch and waits for the answer, as a function that calls
`tune.report` does; a stock trial whose worker died has failed, which is Tune's default. What Ray
itself takes to carry a report is not in it; benchmarks/sweep_efficiency.py measures that.
"""

import argparse
import heapq
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from benchmarks.recording import Curve, Task
from benchmarks.replay import Stock
from benchmarks.search_quality import load_task
from mmm.training.config import Params
from search.engine.controller import Controller
from search.ledger.events import Ledger, create_sweep
from search.ledger.records import Epoch
from search.ledger.spec import SweepSpec
from search.messages import Order, Report

METRIC = "macro_f1"
T = TypeVar("T")
_REPLACED_S = 10.0  # until a worker that has died is there again


@dataclass
class Found:
    """Of one number of workers."""

    workers: int
    trials: int
    reports: int = 0
    driver_s: list[float] = field(default_factory=list)  # of each answer
    suggested: list[bool] = field(default_factory=list)  # whether it had a new trial in it
    waited_s: float = 0.0  # of workers, for an answer that they need
    slices: list[tuple[float, float]] = field(default_factory=list)  # from when to when
    # While every worker has work: from the last one's first slice to the last trial's suggestion.
    steady_from: float = 0.0
    steady_to: float = 0.0
    deaths: int = 0

    @property
    def utilisation(self) -> float:
        """Trained seconds / workers / seconds, while there was work for all."""
        begin, end = np.clip(np.array(self.slices).T, self.steady_from, self.steady_to)
        return float((end - begin).sum() / self.workers / (self.steady_to - self.steady_from))


@dataclass(order=True)
class _Event:
    when: float
    place: int
    worker: int = field(compare=False)


@dataclass
class _Worker:
    """One trial at a time, cut into slices as search/worker/slices.py cuts them."""

    trial: int = -1
    epoch: int = 0
    curve: Curve | None = None
    free_at: float = 0.0
    slice: list[tuple[int, float, float]] = field(default_factory=list)  # epochs, scores, seconds


class Driver(Protocol):
    """Decides; what it takes for that is measured."""

    waits_always: bool  # whether a worker waits for the answer to each report

    @property
    def num_trials(self) -> int: ...

    def next(self, now: float) -> tuple[int, Params] | None:
        """Number and parameters of what a worker trains next."""

    def hear(
        self, number: int, epochs: Sequence[tuple[int, float, float]], is_last: bool, now: float
    ) -> tuple[bool, tuple[int, Params] | None]:
        """Of epochs with scores and seconds: whether the trial has ended, and what comes next."""

    def lose(self, number: int, now: float) -> None:
        """Its worker has died."""


class OurDriver:
    """The project's controller with its ledger."""

    waits_always = False

    def __init__(self, task: Task, spec: SweepSpec, ledger: Ledger) -> None:
        self.now = 0.0
        self.controller = Controller(
            ledger, spec, task.space, "cpu", lambda: None, clock=lambda: self.now
        )
        self.controller.open_session("simulated")

    @property
    def num_trials(self) -> int:
        return len(self.controller.trials)

    def next(self, now: float) -> tuple[int, Params] | None:
        self.now = now
        return self._first(self.controller.next_orders())

    def hear(
        self, number: int, epochs: Sequence[tuple[int, float, float]], is_last: bool, now: float
    ) -> tuple[bool, tuple[int, Params] | None]:
        self.now = now
        entries = [
            Epoch(
                epoch=epoch,
                train_loss=0.0,
                metrics={METRIC: score},
                seconds=took,
                alone_seconds=took,
                ended=now,
            )
            for epoch, score, took in epochs
        ]
        seat = [number]
        _, orders = self.controller.hear(seat, [Report(number, entries, is_last=is_last)])
        return number not in seat, self._first(orders)

    def lose(self, number: int, now: float) -> None:
        self.now = now
        self.controller.lose([number], "simulated death", "")

    def _first(self, orders: Sequence[Order]) -> tuple[int, Params] | None:
        if not orders:
            return None
        (order,) = orders
        return order.number, dict(self.controller.trials[order.number].params)


class StockDriver:
    """Ray Tune's own searcher and scheduler."""

    waits_always = True

    def __init__(self, task: Task, trials: int) -> None:
        self.policy, self.most = Stock(task, 0), trials

    @property
    def num_trials(self) -> int:
        return self.policy.count

    def next(self, now: float) -> tuple[int, Params] | None:
        return self.policy.next(now) if self.policy.count < self.most else None

    def hear(
        self, number: int, epochs: Sequence[tuple[int, float, float]], is_last: bool, now: float
    ) -> tuple[bool, tuple[int, Params] | None]:
        ((epoch, score, took),) = epochs
        is_over = self.policy.report(number, epoch, score, took, now)
        return is_over, self.next(now) if is_over else None

    def lose(self, number: int, now: float) -> None:
        self.policy.searcher.on_trial_complete(str(number), None, error=True)


class Cluster:
    """Virtual workers and one driver."""

    def __init__(
        self, task: Task, driver: Driver, rungs: Sequence[int], found: Found, epoch_s: float
    ) -> None:
        """`epoch_s`: what a recorded second is worth."""
        self.task, self.driver, self.rungs, self.found = task, driver, rungs, found
        self.epoch_s = epoch_s
        self.rng = np.random.default_rng(0)
        self.now = self.driver_free = 0.0
        self.curves: dict[int, Curve] = {}
        self.events: list[_Event] = []
        self.workers = [_Worker() for _ in range(found.workers)]

    def run(self, death: float) -> None:
        """`death`: share of reports that are of a worker that has died."""
        for number in range(self.found.workers):
            self._ask(number)
        self.found.steady_from = self.driver_free
        while self.events:
            event = heapq.heappop(self.events)
            self.now = event.when
            if self.rng.random() < death:
                self._die(event.worker)
            else:
                self._report(event.worker)

    def _serve(self, act: Callable[[], T]) -> T:
        """Let the driver act as soon as it is free; afterwards `driver_free` is when it is done."""
        began, before = max(self.now, self.driver_free), self.driver.num_trials
        started = time.perf_counter()
        answer = act()
        took = time.perf_counter() - started
        self.driver_free = began + took
        self.found.driver_s.append(took)
        self.found.suggested.append(self.driver.num_trials > before)
        if self.driver.num_trials > before:
            self.found.steady_to = self.driver_free
        return answer

    def _ask(self, number: int) -> None:
        self._take(number, self._serve(lambda: self.driver.next(self.now)))

    def _take(self, number: int, given: tuple[int, Params] | None) -> None:
        """A worker learns of its next trial when the driver is done."""
        worker = self.workers[number]
        self._wait(worker)
        if given is None:
            return
        worker.trial, params = given
        if worker.trial not in self.curves:
            rng = np.random.default_rng(worker.trial)
            self.curves[worker.trial] = self.task.curve(params, rng)
        worker.epoch, worker.curve = 0, self.curves[worker.trial]
        self._train(number, max(self.driver_free, self.now))

    def _wait(self, worker: _Worker) -> None:
        if self.driver.num_trials < self.found.trials:
            self.found.waited_s += max(0.0, self.driver_free - worker.free_at)

    def _train(self, number: int, begin: float) -> None:
        """One slice: a second at least, never past a rung or the end; a stock one is an epoch."""
        worker = self.workers[number]
        assert worker.curve is not None
        seconds, epochs = 0.0, []
        while True:
            took = float(worker.curve.seconds[worker.epoch]) * self.epoch_s
            seconds += took
            worker.epoch += 1
            epochs.append((worker.epoch, float(worker.curve.observed[worker.epoch - 1]), took))
            is_slice = seconds >= 1.0 or self.driver.waits_always
            if is_slice or worker.epoch in self.rungs or worker.epoch == self.task.epochs:
                break
        worker.slice, worker.free_at = epochs, begin + seconds
        self.found.slices.append((begin, begin + seconds))
        heapq.heappush(self.events, _Event(begin + seconds, len(self.found.driver_s), number))

    def _die(self, number: int) -> None:
        worker = self.workers[number]
        self.found.deaths += 1
        self._serve(lambda: self.driver.lose(worker.trial, self.now))
        worker.free_at += _REPLACED_S
        self.driver_free = max(self.driver_free, self.now)
        self._ask(number)

    def _report(self, number: int) -> None:
        worker = self.workers[number]
        is_last = worker.epoch == self.task.epochs
        self.found.reports += 1
        is_over, given = self._serve(
            lambda: self.driver.hear(worker.trial, worker.slice, is_last, self.now)
        )
        if is_over:
            self._take(number, given)
            return
        must_wait = self.driver.waits_always or worker.epoch in self.rungs
        if must_wait:
            self._wait(worker)
        self._train(number, self.driver_free if must_wait else self.now)


def simulate(
    task: Task, side: str, workers: int, trials: int, epoch_s: float, death: float, outbox: bool
) -> Found:
    """A sweep of so many workers."""
    task.restart()
    points = [{**point} for point in task.space.known_good]
    curves = [task.curve(point, np.random.default_rng(0)) for point in points]
    epoch_s /= float(np.mean([curve.seconds.mean() for curve in curves]))
    found = Found(workers, trials)
    if side == "stock":
        Cluster(task, StockDriver(task, trials), (), found, epoch_s).run(death)
        return found
    spec = SweepSpec(
        name="simulated",
        space="full",
        manifest="",
        features="",
        trials=trials,
        epochs=task.epochs,
        workers=workers,
        packs=1,
    )
    root = "/dev/shm" if Path("/dev/shm").is_dir() and not outbox else None
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=root)))
        ledger = stack.enter_context(create_sweep(folder / "simulated", spec, []))
        driver = OurDriver(task, spec, ledger)
        if outbox:
            from search.tracking.outbox import Outbox

            box = stack.enter_context(Outbox())
            box.follow(folder, spec.name)
        Cluster(task, driver, spec.rungs, found, epoch_s).run(death)
        driver.controller.close_session("done")
        if outbox:
            began = time.perf_counter()
            box.close()
            print(f"  the outbox was done {time.perf_counter() - began:.1f} s after the end")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--trials-a-worker", type=float, default=3.0)
    parser.add_argument("--epoch-s", type=float, default=10.0)
    parser.add_argument("--death", type=float, default=0.001, help="share of reports")
    parser.add_argument("--task", default="demo")
    parser.add_argument("--outbox", action="store_true")
    parser.add_argument("--side", nargs="+", choices=("ours", "stock"), default=["ours", "stock"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    task = load_task(options.task)
    rows = []
    print(
        "side   workers  trials  reports  median ms  mean ms  95 % ms  ms with a new trial"
        "  utilisation  waited a worker"
    )
    for workers, side in itertools.product(options.workers, options.side):
        trials = int(workers * options.trials_a_worker)
        found = simulate(
            task, side, workers, trials, options.epoch_s, options.death, options.outbox
        )
        ms = [1e3 * took for took in found.driver_s[workers:]]
        pairs = zip(ms, found.suggested[workers:], strict=True)
        new = [took for took, is_new in pairs if is_new]
        row = {
            "side": side,
            "workers": workers,
            "trials": trials,
            "reports": found.reports,
            "deaths": found.deaths,
            "median_ms": statistics.median(ms),
            "mean_ms": statistics.mean(ms),
            "p95_ms": float(np.percentile(ms, 95)),
            "new_trial_ms": statistics.mean(new) if new else None,
            "utilisation": found.utilisation,
            "waited_s_a_worker": found.waited_s / workers,
        }
        rows.append(row)
        print(
            f"{side:6} {workers:7d} {trials:7d} {found.reports:8d} {row['median_ms']:10.2f}"
            f" {row['mean_ms']:8.2f} {row['p95_ms']:8.2f} {row['new_trial_ms'] or 0.0:20.2f}"
            f" {found.utilisation:12.3f} {row['waited_s_a_worker']:14.1f} s;"
            f" {found.deaths} deaths",
            flush=True,
        )
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
