"""What a worker's report means: what is written down, whether its trials go on, what it trains
next. Without Ray.
"""

import socket
from collections.abc import Callable, Sequence
from typing import Literal

from mmm.device import processor_here
from mmm.training.config import Params
from search.engine.budgets import broken_constraint
from search.engine.memory import WORDS, next_attempt, num_in_training
from search.engine.orders import Orders, waiting_points
from search.engine.stopwatch import Stopwatch, steady
from search.engine.verdicts import Verdicts
from search.ledger.events import Entry, Ledger
from search.ledger.records import (
    Close,
    DeadWorker,
    GoesOnAlone,
    LostNode,
    OutOfMemory,
    Session,
    Warned,
)
from search.ledger.spec import SweepSpec
from search.messages import Order, Report
from search.suggest.fair_share import FairShare
from search.suggest.searcher import Searcher
from spaces import Space

MAX_DEAD_WORKERS = 3  # of a trial that each of them trained alone; after that it fails
# Why a worker died: memory, its node, or anything else, which may be what it trained.
Death = Literal["memory", "node", "unknown"]
MAX_NEVER_RAN = 20  # workers one after the other; after that the sweep ends


class Controller:
    """Stands between the ledger and whatever runs trials. Every answer is in the ledger before it
    is given.
    """

    def __init__(
        self,
        ledger: Ledger,
        spec: SweepSpec,
        space: Space,
        device: str,
        on_change: Callable[[], None],
        clock: Callable[[], float] = steady,
        count_parameters: Callable[[Params], int] | None = None,
        searcher: Searcher | None = None,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        """A replay has its own `clock` and `searcher`, and no models whose parameters could be
        counted. `tell` is told of trials that are tried again with less.
        """
        self.tell = tell
        self.ledger, self.spec, self.on_change = ledger, spec, on_change
        self.trials = ledger.history.trials
        queue = waiting_points(spec, space, self.trials)
        searcher = searcher or Searcher(
            space,
            spec.metric,
            spec.seed,
            self.trials,
            queue=list(queue.values()),
            rungs=[*spec.rungs, spec.epochs],
            priors=ledger.history.priors,
            num_folds=spec.folds or 1,
        )
        self.stopwatch = Stopwatch(clock, spec.workers)
        self.verdicts = Verdicts(
            *(ledger, spec, searcher, self.stopwatch),
            FairShare(space, spec.min_per_system),
        )
        self.orders = Orders(
            ledger, spec, space, device, self.verdicts, searcher, list(queue), count_parameters
        )
        self.warnings: list[str] = []  # for whoever started the sweep
        self.dead_workers: list[str] = []  # why each of them died
        self._num_never_ran = 0  # workers, since the last report

    def next_orders(self, seat: Sequence[int] = ()) -> list[Order]:
        """What a worker is to train next beside the trials `seat` that it has: one trial, or
        several of the same shape.
        """
        found = self.orders.next(seat)
        self.on_change()
        return found

    def hear(self, seat: list[int], reports: Sequence[Report]) -> tuple[list[int], list[Order]]:
        """Record what the worker of the trials `seat` reported: which of them have ended, and what
        it is to train beside the others.

        `seat` is what it has from then on; with nothing in it, it is done.
        """
        told = [report.number for report in reports]
        stopped = [report.number for report in reports if self.report(report)]
        if lost := [number for number in seat if number not in told]:
            # A worker that does not do what it is told: what it has goes to others.
            self.lose(seat, f"trial {lost[0]} was not in its report", "")
            seat.clear()
            return [], []
        seat[:] = [number for number in seat if number not in stopped]
        # What stops without having ended goes on from its checkpoint, here or in another session:
        # it has to stay.
        # A fold that has ended is done with, too: the next one is another order.
        ended = [
            number
            for number in stopped
            if self.trials[number].state != "running" or number in self.orders.unfinished
        ]
        orders = [] if self.verdicts.is_stopping else self.next_orders(seat)
        seat += [order.number for order in orders]
        if self.verdicts.is_stopping:
            seat.clear()
        return ended, orders

    def report(self, report: Report) -> bool:
        """Record what a trial reported; True when it has to stop."""
        number, trial = report.number, self.trials[report.number]
        self._num_never_ran = 0
        self.stopwatch.add(report.epochs)
        entries: list[Entry] = [(number, epoch) for epoch in report.epochs]
        if report.checkpoint is not None:
            entries.append((number, report.checkpoint))
        for text in report.warnings:
            self.warnings.append(f"trial {number}: {text}")
            entries.append(Warned(number, text))
        if report.packs is not None:
            self.orders.packs.measured(trial.settings, report.packs.size)
            entries.append(report.packs)
        self.ledger.append(*entries)
        if (failure := report.failure) is not None:
            if failure.is_together:
                self._retry_alone(number, failure.reason)
            elif failure.is_memory:
                self._retry_with_less(number, failure.reason, failure.traceback, is_lost=False)
            else:
                self.fail(number, failure.reason, failure.traceback, is_finding=failure.is_diverged)
            return True
        stop = True
        if (broken := broken_constraint(self.spec, trial.num_parameters, trial.epochs)) is not None:
            self.verdicts.end(number, "failed", broken, is_finding=True)
        elif report.is_last:
            if not self.verdicts.ends_fold(number):
                self.orders.unfinished.append(number)
        else:
            stop = self.verdicts.stops_at_rung(number)
        # Interrupted trials stay `running` in the ledger: resume goes on with them.
        stop = self.verdicts.check_budgets() or stop or self.verdicts.is_stopping
        self.on_change()
        return stop

    def lose(
        self, numbers: Sequence[int], reason: str, trace: str, death: Death = "unknown"
    ) -> None:
        """The worker that trained these trials has died.

        With its node: they go on elsewhere from their last checkpoints. For memory: one that was
        alone in it is tried again with less (search/engine/memory.py). Otherwise nobody can tell
        whether one of them was why: each goes on in another worker, alone. One that was alone in
        MAX_DEAD_WORKERS of them fails, of which the searcher is told nothing.
        """
        if self.verdicts.is_interrupted:  # the workers were sent away with the sweep
            return
        self.dead_workers.append(reason)
        for number in numbers:
            if death == "node" and self._is_in_training(number):
                self.orders.packs.not_measured(self.trials[number].settings)
                self.ledger.append(LostNode(number, reason))
                self.orders.unfinished.append(number)
                self.on_change()
            elif len(numbers) > 1:
                self._retry_alone(number, reason)
            elif death == "memory" and self._is_in_training(number):
                self._retry_with_less(number, reason, trace, is_lost=True)
            elif self._is_in_training(number):
                trial = self.trials[number]
                self.orders.packs.not_measured(trial.settings)
                note = DeadWorker(number, reason)
                if trial.dead_workers + 1 < MAX_DEAD_WORKERS:
                    self.orders.retry_alone(number, note)
                else:
                    why = (
                        f"{MAX_DEAD_WORKERS} workers that trained it alone have died, the last one:"
                        f" {reason}"
                    )
                    self.verdicts.end(number, "failed", why, trace, before=[note], is_lost=True)
                self.on_change()

    def give_back(self, numbers: Sequence[int], reason: str) -> None:
        """The worker that was to train these trials never began: others get them, and nobody is to
        blame. Where no worker begins any more the sweep ends.
        """
        self.orders.unfinished += [number for number in numbers if self._is_in_training(number)]
        self._num_never_ran += 1
        if self._num_never_ran >= MAX_NEVER_RAN:
            self.verdicts.break_off(
                f"{self._num_never_ran} workers one after the other were not started: {reason}"
            )
        self.on_change()

    def _retry_alone(self, number: int, reason: str) -> None:
        if self._is_in_training(number):
            self.orders.retry_alone(number, GoesOnAlone(number, reason))
            self.orders.packs.failed(self.trials[number].settings)
            self.on_change()

    def _retry_with_less(self, number: int, reason: str, trace: str, *, is_lost: bool) -> None:
        trial, waiting = self.trials[number], self.orders.unfinished
        self.orders.packs.not_measured(trial.settings)
        beside = num_in_training(self.trials, waiting) - 1
        attempt = next_attempt(trial.memory_attempt, beside, trial.settings)
        if attempt is None:
            tried = "" if trial.memory_attempt is None else f" even {WORDS[trial.memory_attempt]}"
            why = f"out of memory{tried}: {reason}"
            self.verdicts.end(number, "failed", why, trace, is_lost=is_lost)
        else:
            self.orders.retry_with_less(number, OutOfMemory(number, reason, attempt))
            text = f"out of memory; it goes on {WORDS[attempt]} ({reason})"
            self.warnings.append(f"trial {number}: {text}")
            self.tell(f"trial {number}: {text}")
        self.on_change()

    def _is_in_training(self, number: int) -> bool:
        return self.trials[number].state == "running" and number not in self.orders.unfinished

    def fail(self, number: int, reason: str, trace: str, *, is_finding: bool = False) -> None:
        """Record that a trial failed. The sweep goes on, unless the last ones all failed so."""
        self.orders.packs.not_measured(self.trials[number].settings)
        if self.trials[number].state == "running":
            self.verdicts.end(number, "failed", reason, trace, is_finding=is_finding)
            self.on_change()

    def open_session(self, command: str, threads: int | None = None) -> None:
        """`threads`: of each worker."""
        here = socket.gethostname(), command, processor_here(), threads
        self.ledger.append(Session(self.spec, *here))
        self.stopwatch.earlier_s = self.ledger.history.used_s
        self.verdicts.budgets_before = self.verdicts.budgets()

    def close_session(self, why: str) -> None:
        watch = self.stopwatch
        self.ledger.append(Close(why, watch.session_s(), watch.efficiency(), watch.first_step_s()))
