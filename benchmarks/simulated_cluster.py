"""What a sweep's driver costs at 10 to 4,000 workers, in simulated time: the real controller,
ledger and, where asked for, MLflow's outbox.

    python -m benchmarks.simulated_cluster [--workers 10 100 1000] [--epoch-s 10] [--outbox]

Workers are virtual: an epoch takes what it took in the recording, all of them scaled so that their
mean is `--epoch-s` (the recorded ones are of a small corpus and take a fraction of a second). The
driver is one server: a report waits until those before it are done and takes the seconds that the
controller really took for it, by the clock. A worker goes on training while its report waits,
except at a rung and at its end, as the real one does. One report in `--death` comes from a worker
that has died. What Ray itself takes to carry a report is not in it; benchmarks/sweep_efficiency.py
measures that.
"""

import argparse
import heapq
import json
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.recording import Curve, Task
from benchmarks.search_quality import load_task
from search.engine.controller import Controller
from search.ledger.events import create_sweep
from search.ledger.records import Epoch
from search.ledger.spec import SweepSpec
from search.messages import Order, Report

METRIC = "macro_f1"
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

    seat: list[int] = field(default_factory=list)
    epoch: int = 0
    curve: Curve | None = None
    free_at: float = 0.0
    slice: list[tuple[int, float]] = field(default_factory=list)  # epochs and their seconds

    def take(self, order: Order, curve: Curve) -> None:
        self.seat, self.curve = [order.number], curve
        self.epoch = max((found.epoch for found in order.checkpoints), default=0)


class Cluster:
    """Virtual workers and one driver."""

    def __init__(self, task: Task, workers: int, trials: int, epoch_s: float, death: float) -> None:
        self.task, self.epoch_s, self.death = task, epoch_s, death
        self.found = Found(workers, trials)
        self.rng = np.random.default_rng(0)
        self.now = self.driver_free = 0.0
        self.curves: dict[int, Curve] = {}
        self.events: list[_Event] = []
        self.workers = [_Worker() for _ in range(workers)]
        self.rungs: tuple[int, ...] = ()

    def run(self, folder: Path, outbox: bool) -> None:
        spec = SweepSpec(
            name="simulated",
            space="full",
            manifest="",
            features="",
            trials=self.found.trials,
            epochs=self.task.epochs,
            workers=self.found.workers,
            packs=1,
        )
        self.rungs = tuple(spec.rungs)
        self.task.restart()
        with ExitStack() as stack:
            ledger = stack.enter_context(create_sweep(folder / "simulated", spec, []))
            self.controller = Controller(
                ledger, spec, self.task.space, "cpu", lambda: None, clock=lambda: self.now
            )
            self.controller.open_session("simulated")
            if outbox:
                from search.tracking.outbox import Outbox

                box = stack.enter_context(Outbox())
                box.follow(folder, spec.name)
            for number in range(self.found.workers):
                self._ask(number)
            self.found.steady_from = self.driver_free
            while self.events:
                event = heapq.heappop(self.events)
                self.now = event.when
                self._report(event.worker)
            self.controller.close_session("done")
            if outbox:
                began = time.perf_counter()
                box.close()
                print(f"  the outbox was done {time.perf_counter() - began:.1f} s after the end")

    def _serve(self, act: Any) -> Any:
        """Let the driver act as soon as it is free; afterwards `driver_free` is when it is done."""
        began, before = max(self.now, self.driver_free), len(self.controller.trials)
        started = time.perf_counter()
        answer = act()
        took = time.perf_counter() - started
        self.driver_free = began + took
        self.found.driver_s.append(took)
        num_trials = len(self.controller.trials)
        self.found.suggested.append(num_trials > before)
        if num_trials > before:
            self.found.steady_to = self.driver_free
        return answer

    def _ask(self, number: int) -> None:
        orders = self._serve(self.controller.next_orders)
        self._take(number, orders)

    def _take(self, number: int, orders: list[Order]) -> None:
        """A worker learns of its next trial when the driver is done."""
        worker = self.workers[number]
        self._wait(worker)
        if not orders:
            worker.seat = []
            return
        (order,) = orders
        if order.number not in self.curves:
            params = dict(self.controller.trials[order.number].params)
            self.curves[order.number] = self.task.curve(params, np.random.default_rng(order.number))
        worker.take(order, self.curves[order.number])
        self._train(number, max(self.driver_free, self.now))

    def _wait(self, worker: _Worker) -> None:
        if len(self.controller.trials) < self.found.trials:
            self.found.waited_s += self.driver_free - worker.free_at

    def _train(self, number: int, begin: float) -> None:
        """One slice: a second at least, never past a rung or the end."""
        worker = self.workers[number]
        assert worker.curve is not None
        seconds, epochs = 0.0, []
        while True:
            took = float(worker.curve.seconds[worker.epoch]) * self.epoch_s
            seconds += took
            worker.epoch += 1
            epochs.append((worker.epoch, took))
            if seconds >= 1.0 or worker.epoch in self.rungs or worker.epoch == self.task.epochs:
                break
        worker.slice, worker.free_at = epochs, begin + seconds
        self.found.slices.append((begin, begin + seconds))
        heapq.heappush(self.events, _Event(begin + seconds, len(self.found.driver_s), number))

    def _report(self, number: int) -> None:
        worker = self.workers[number]
        if self.rng.random() < self.death:
            self.found.deaths += 1
            seat = list(worker.seat)
            self._serve(lambda: self.controller.lose(seat, "simulated death", ""))
            worker.free_at += _REPLACED_S
            self.driver_free = max(self.driver_free, self.now)
            self._ask(number)
            return
        assert worker.curve is not None
        curve, (trial,) = worker.curve, worker.seat
        entries = [
            Epoch(
                epoch=epoch,
                train_loss=0.0,
                metrics={METRIC: float(curve.observed[epoch - 1])},
                seconds=took,
                alone_seconds=took,
                ended=self.now,
            )
            for epoch, took in worker.slice
        ]
        is_last = worker.epoch == self.task.epochs
        self.found.reports += 1
        report = Report(trial, entries, is_last=is_last)
        _, orders = self._serve(lambda: self.controller.hear(worker.seat, [report]))
        if orders:
            self._take(number, orders)
        elif worker.seat:
            must_wait = worker.epoch in self.rungs
            if must_wait:
                self._wait(worker)
            self._train(number, self.driver_free if must_wait else self.now)


def simulate(
    task: Task, workers: int, trials: int, epoch_s: float, death: float, outbox: bool
) -> Found:
    """A sweep of so many workers."""
    points = [{**point} for point in task.space.known_good]
    curves = [task.curve(point, np.random.default_rng(0)) for point in points]
    mean = float(np.mean([curve.seconds.mean() for curve in curves]))
    cluster = Cluster(task, workers, trials, epoch_s / mean, death)
    root = "/dev/shm" if Path("/dev/shm").is_dir() and not outbox else None
    with tempfile.TemporaryDirectory(dir=root) as folder:
        cluster.run(Path(folder), outbox)
    return cluster.found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--trials-a-worker", type=float, default=3.0)
    parser.add_argument("--epoch-s", type=float, default=10.0)
    parser.add_argument("--death", type=float, default=0.001, help="share of reports")
    parser.add_argument("--task", default="demo")
    parser.add_argument("--outbox", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    task = load_task(options.task)
    rows = []
    print("workers  trials  reports  median ms  95 % ms  ms with a new trial  utilisation  waited")
    for workers in options.workers:
        trials = int(workers * options.trials_a_worker)
        found = simulate(task, workers, trials, options.epoch_s, options.death, options.outbox)
        ms = [1e3 * took for took in found.driver_s[workers:]]
        pairs = zip(ms, found.suggested[workers:], strict=True)
        new = [took for took, is_new in pairs if is_new]
        row = {
            "workers": workers,
            "trials": trials,
            "reports": found.reports,
            "deaths": found.deaths,
            "median_ms": statistics.median(ms),
            "mean_ms": statistics.mean(ms),
            "p95_ms": float(np.percentile(ms, 95)),
            "utilisation": found.utilisation,
            "waited_s_a_worker": found.waited_s / workers,
        }
        rows.append(row)
        print(
            f"{workers:7d} {trials:7d} {found.reports:8d} {row['median_ms']:10.2f}"
            f" {row['p95_ms']:8.2f} {statistics.mean(new) if new else 0.0:20.2f}"
            f" {found.utilisation:12.3f} {row['waited_s_a_worker']:7.1f} s;"
            f" mean {row['mean_ms']:.2f} ms, {found.deaths} deaths",
            flush=True,
        )
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
