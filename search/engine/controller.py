"""The sweep's decisions, without Ray: what a report means, whether a trial goes on, when the sweep
is over.
"""

import contextlib
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from search.engine.asha import decide, rivals
from search.engine.budgets import Budget, broken_constraint, budgets, seconds_left, used_up
from search.engine.failures import FailuresInARow
from search.engine.orders import Orders
from search.ledger.events import Entry, Ledger
from search.ledger.files import drop_weights
from search.ledger.history import Trial
from search.ledger.records import (
    Checkpoint,
    Close,
    DeadWorker,
    End,
    EndState,
    GoesOnAlone,
    PackMeasured,
    RungDecision,
    Session,
    Warned,
    epoch_of,
)
from search.ledger.spec import Params, SweepSpec
from search.suggest.searcher import Searcher
from spaces import Space

MAX_DEAD_WORKERS = 3  # of a trial that each of them trained alone; after that it fails


class Conductor:
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
        clock: Callable[[], float] = time.time,
        count_parameters: Callable[[Params], int] | None = None,
        searcher: Searcher | None = None,
    ) -> None:
        """A replay has its own `clock` and `searcher`, and no models whose parameters could be
        counted.
        """
        self.ledger, self.spec, self.space, self.device, self.on_change = (
            ledger,
            spec,
            space,
            device,
            on_change,
        )
        self.clock = clock
        self.orders = Orders(ledger, spec, space, device, self, searcher, count_parameters)
        self.session_started = self.clock()
        self.command_started = (
            self.session_started
        )  # earlier, where somebody waited for the imports
        self.earlier_s = 0.0
        self.budgets_before: list[Budget] = []
        self.first_step: float | None = None  # by the worker's clock
        self.first_result: float | None = None
        self.last_result: float = self.session_started
        self.trained_s: list[
            tuple[float, float, float]
        ] = []  # (ended, seconds by the clock, seconds alone) of each epoch
        self.used_up: Budget | None = None
        self.is_interrupted = False
        self.broken_off: str | None = None  # why the sweep ends though nobody wanted it to
        self.failures = FailuresInARow(spec.max_equal_failures)
        self.warnings: list[str] = []  # for whoever started the sweep
        self.dead_workers: list[str] = []  # why each of them died

    @property
    def trials(self) -> dict[int, Trial]:
        return self.ledger.history.trials

    def next_orders(self, seat: Sequence[int] = ()) -> list[dict[str, Any]]:
        """What a worker is to train next beside the trials `seat` that it has: one trial, or
        several of the same shape.
        """
        found = self.orders.next(seat)
        self.on_change()
        return found

    def next_order(self) -> dict[str, Any] | None:
        """The next trial to train, alone; None when there is none any more."""
        found = self.orders.next_one()
        self.on_change()
        return found

    def may_order(self) -> bool:
        """Whether anything more is to be trained."""
        return not self.check_budgets() and not self.is_stopping

    def report(self, number: int, report: dict[str, Any]) -> bool:
        """Record what a trial reported; True when it has to stop."""
        now = self.clock()
        trial = self.trials[number]
        epochs = [epoch_of(entry) for entry in report["epochs"]]
        if epochs:
            if self.first_result is None:
                self.first_result = now
            self.last_result = now
            first = epochs[0]
            started = first.ended - first.seconds if first.started is None else first.started
            self.first_step = started if self.first_step is None else min(self.first_step, started)
            self.trained_s += [
                (entry.ended, entry.seconds, entry.alone_seconds) for entry in epochs
            ]
        entries: list[Entry] = [(number, entry) for entry in epochs]
        if report["checkpoint"] is not None:
            entries.append((number, Checkpoint(**report["checkpoint"])))
        for text in report.get("warnings", ()):
            self.warnings.append(f"trial {number}: {text}")
            entries.append(Warned(number, text))
        if report.get("packs") is not None:
            self.orders.packs.measured(trial.settings, report["packs"]["size"])
            entries.append(PackMeasured(*self.orders.packs.key(trial.settings), **report["packs"]))
        self.ledger.append(*entries)
        if report["failure"] is not None:
            failure = report["failure"]
            if failure.get("together"):
                self._retry_alone(number, failure["reason"])
            else:
                self.fail(
                    number,
                    failure["reason"],
                    failure["traceback"],
                    is_finding=failure.get("diverged", False),
                )
            return True
        stop = True
        if (broken := broken_constraint(self.spec, trial.num_parameters, trial.epochs)) is not None:
            self.end(number, "failed", broken, is_finding=True)
        elif report["is_last"]:
            self.end(number, "complete", f"all {trial.epoch} epochs")
        else:
            stop = self.stops_at_rung(number)
        # Interrupted trials stay `running` in the ledger: resume goes on with them.
        stop = self.check_budgets() or stop or self.is_stopping
        self.on_change()
        return stop

    def lose(self, numbers: Sequence[int], reason: str, trace: str) -> None:
        """The worker that trained these trials has died.

        Nobody can tell whether one of them was why: each goes on from its last checkpoint in
        another worker, alone. One that was alone in MAX_DEAD_WORKERS of them fails, of which the
        searcher is told nothing.
        """
        if self.is_interrupted:  # the workers were sent away with the sweep
            return
        self.dead_workers.append(reason)
        for number in numbers:
            if len(numbers) > 1:
                self._retry_alone(number, reason)
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
                    self.end(number, "failed", why, trace, before=[note], is_lost=True)
                self.on_change()

    def _retry_alone(self, number: int, reason: str) -> None:
        if self._is_in_training(number):
            self.orders.retry_alone(number, GoesOnAlone(number, reason))
            self.orders.packs.failed(self.trials[number].settings)
            self.on_change()

    def _is_in_training(self, number: int) -> bool:
        return self.trials[number].state == "running" and number not in self.orders.unfinished

    @property
    def is_stopping(self) -> bool:
        """Whether trials that run are to stop where they are, for another session."""
        return self.used_up is not None or self.is_interrupted or self.broken_off is not None

    def interrupt(self) -> None:
        """Order nothing more; trials that run are left to another session."""
        self.is_interrupted = True

    def break_off(self, why: str) -> None:
        """As `interrupt`, because going on would make it worse; the first reason counts."""
        self.broken_off = self.broken_off or why

    def fail(self, number: int, reason: str, trace: str, *, is_finding: bool = False) -> None:
        """Record that a trial failed. The sweep goes on, unless the last ones all failed so."""
        self.orders.packs.not_measured(self.trials[number].settings)
        if self.trials[number].state == "running":
            self.end(number, "failed", reason, trace, is_finding=is_finding)
            self.on_change()

    def stops_at_rung(self, number: int) -> bool:
        """Decide on a trial that stands at a rung and was not decided on there; True when it
        ends.
        """
        trial = self.trials[number]
        epoch = trial.epoch
        if epoch not in self.spec.rungs or trial.decided >= epoch:
            return False
        expected = self.orders.searcher.expected(rivals(self.trials, number, epoch))
        decision = decide(self.trials, number, epoch, self.spec.metric, self.spec.factor, expected)
        record = RungDecision(epoch, "stop" if decision.stop else "continue", decision.reason)
        if decision.stop:
            self.end(number, "pruned", decision.reason, before=[(number, record)])
        else:
            self.ledger.append((number, record))
        return decision.stop

    def end(
        self,
        number: int,
        state: EndState,
        reason: str,
        trace: str = "",
        before: Sequence[Entry] = (),
        *,
        is_lost: bool = False,
        is_finding: bool = False,
    ) -> None:
        """Write down that a trial has ended, `before` in the same transaction.

        Of a failed one: `is_lost`, because its workers died; `is_finding`, because that is what its
        settings are like.
        """
        self.ledger.append(*before, (number, End(state, reason, trace, is_lost)))
        self.orders.searcher.tell(self.trials[number])
        if (why := self.failures.add(self.trials[number], is_finding)) is not None:
            self.break_off(why)
        self._drop_worst(number)

    def _drop_worst(self, number: int) -> None:
        """Keep the weights of the best `keep` ended trials; the disk must not fill with what nobody
        exports.
        """
        ended = [
            trial
            for trial in self.ledger.history.ranked(self.spec.metric)
            if trial.state != "running" and trial.copied_from is None
        ]
        beyond = [trial.number for trial in ended[self.spec.keep :]]
        # One trial ends at a time: either it is beyond itself, or it pushed the first of these out.
        for other in beyond[:1] if number not in beyond else [number]:
            with contextlib.suppress(OSError):  # a worker may just be writing it
                drop_weights(self.ledger.folder, other)

    def budgets(self) -> list[Budget]:
        """Every budget of the sweep and how much of it is used, over all sessions."""
        return budgets(self.spec, self.ledger.history, self.used_s())

    def check_budgets(self) -> bool:
        """Whether a budget is used up, or was before: trials that run stop after their slices."""
        if self.used_up is None:
            self.used_up = used_up(self.budgets())
        return self.used_up is not None

    def seconds_left(self) -> float | None:
        """Until the first budget is used up, by this session's rate so far; None where nothing
        tells yet.
        """
        if self.first_step is None:
            return None
        return seconds_left(self.budgets_before, self.budgets(), self.clock() - self.first_step)

    def first_step_s(self) -> float | None:
        """From the command to the first training step of this session."""
        return None if self.first_step is None else self.first_step - self.command_started

    def used_s(self) -> float:
        """Seconds of this and earlier sessions."""
        return self.earlier_s + self.clock() - self.session_started

    def efficiency(self) -> float | None:
        """Training seconds as they would be alone / workers / wall time, from the first result to
        the last.

        The part of an epoch that ran before the first result does not count.
        """
        if self.first_result is None or self.last_result <= self.first_result:
            return None
        trained = sum(
            alone * min(1.0, max(0.0, ended - self.first_result) / max(seconds, 1e-9))
            for ended, seconds, alone in self.trained_s
        )
        return trained / self.spec.workers / (self.last_result - self.first_result)

    def open_session(self, command: str) -> None:
        self.ledger.append(Session(self.spec, socket.gethostname(), command))
        self.earlier_s = self.ledger.history.used_s
        self.budgets_before = self.budgets()

    def close_session(self, why: str) -> None:
        seconds = self.clock() - self.session_started
        self.ledger.append(Close(why, seconds, self.efficiency(), self.first_step_s()))
