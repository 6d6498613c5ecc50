"""What a worker's report means: what is written down, whether its trials go on, what it trains
next. Without Ray.
"""

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from search.engine.budgets import broken_constraint
from search.engine.orders import Orders, waiting_points
from search.engine.stopwatch import Stopwatch
from search.engine.verdicts import Verdicts
from search.ledger.events import Entry, Ledger
from search.ledger.spec import SweepSpec
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
        count_parameters: Callable[[Mapping[str, Any]], int] | None = None,
        searcher: Searcher | None = None,
    ) -> None:
        """A replay has its own `clock` and `searcher`, and no models whose parameters could be
        counted.
        """
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
        )
        self.stopwatch = Stopwatch(clock, spec.workers)
        self.verdicts = Verdicts(ledger, spec, searcher, self.stopwatch)
        self.orders = Orders(
            ledger, spec, space, device, self.verdicts, searcher, list(queue), count_parameters
        )
        self.warnings: list[str] = []  # for whoever started the sweep
        self.dead_workers: list[str] = []  # why each of them died

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

    def hear(
        self, seat: list[int], reports: Sequence[dict[str, Any]]
    ) -> tuple[list[int], list[dict[str, Any]]]:
        """Record what the worker of the trials `seat` reported: which of them have ended, and what
        it is to train beside the others.

        `seat` is what it has from then on; with nothing in it, it is done.
        """
        told = {report["number"]: report for report in reports}
        stopped = [number for number, report in told.items() if self.report(number, report)]
        if lost := [number for number in seat if number not in told]:
            # A worker that does not do what it is told: what it has goes to others.
            self.lose(seat, f"trial {lost[0]} was not in its report", "")
            seat.clear()
            return [], []
        seat[:] = [number for number in seat if number not in stopped]
        # What stops without having ended goes on from its checkpoint, here or in another session:
        # it has to stay.
        ended = [number for number in stopped if self.trials[number].state != "running"]
        orders = [] if self.verdicts.is_stopping else self.next_orders(seat)
        seat += [order["number"] for order in orders]
        if self.verdicts.is_stopping:
            seat.clear()
        return ended, orders

    def report(self, number: int, report: dict[str, Any]) -> bool:
        """Record what a trial reported; True when it has to stop."""
        trial = self.trials[number]
        self.stopwatch.add(report["epochs"])
        entries: list[Entry] = [("epoch", number, entry) for entry in report["epochs"]]
        if report["checkpoint"] is not None:
            entries.append(("checkpoint", number, report["checkpoint"]))
        for text in report.get("warnings", ()):
            self.warnings.append(f"trial {number}: {text}")
            entries.append(("note", None, {"about": "warning", "trial": number, "text": text}))
        if report.get("packs") is not None:
            self.orders.packs.measured(trial.settings, report["packs"]["size"])
            entries.append(
                (
                    "note",
                    None,
                    {"about": "packs", **self.orders.packs.key(trial.settings), **report["packs"]},
                )
            )
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
        epoch = trial.epochs[-1]["epoch"] if trial.epochs else 0
        stop = True
        if (broken := broken_constraint(self.spec, trial.num_parameters, trial.epochs)) is not None:
            self.verdicts.end(number, "failed", broken, is_finding=True)
        elif report["is_last"]:
            self.verdicts.end(number, "complete", f"all {epoch} epochs")
        else:
            stop = self.verdicts.stops_at_rung(number)
        # Interrupted trials stay `running` in the ledger: resume goes on with them.
        stop = self.verdicts.check_budgets() or stop or self.verdicts.is_stopping
        self.on_change()
        return stop

    def lose(self, numbers: Sequence[int], reason: str, trace: str) -> None:
        """The worker that trained these trials has died.

        Nobody can tell whether one of them was why: each goes on from its last checkpoint in
        another worker, alone. One that was alone in MAX_DEAD_WORKERS of them fails, of which the
        searcher is told nothing.
        """
        if self.verdicts.is_interrupted:  # the workers were sent away with the sweep
            return
        self.dead_workers.append(reason)
        for number in numbers:
            if len(numbers) > 1:
                self._retry_alone(number, reason)
            elif self._is_in_training(number):
                trial = self.trials[number]
                self.orders.packs.not_measured(trial.settings)
                note: Entry = (
                    "note",
                    None,
                    {"about": "dead worker", "trial": number, "reason": reason},
                )
                if trial.dead_workers + 1 < MAX_DEAD_WORKERS:
                    self.orders.retry_alone(number, note)
                else:
                    why = (
                        f"{MAX_DEAD_WORKERS} workers that trained it alone have died, the last one:"
                        f" {reason}"
                    )
                    self.verdicts.end(number, "failed", why, trace, before=[note], is_lost=True)
                self.on_change()

    def _retry_alone(self, number: int, reason: str) -> None:
        if self._is_in_training(number):
            self.orders.retry_alone(
                number, ("note", None, {"about": "alone", "trial": number, "reason": reason})
            )
            self.orders.packs.failed(self.trials[number].settings)
            self.on_change()

    def _is_in_training(self, number: int) -> bool:
        return self.trials[number].state == "running" and number not in self.orders.unfinished

    def fail(self, number: int, reason: str, trace: str, *, is_finding: bool = False) -> None:
        """Record that a trial failed. The sweep goes on, unless the last ones all failed so."""
        self.orders.packs.not_measured(self.trials[number].settings)
        if self.trials[number].state == "running":
            self.verdicts.end(number, "failed", reason, trace, is_finding=is_finding)
            self.on_change()

    def open_session(self, command: str) -> None:
        body = {"spec": asdict(self.spec), "host": socket.gethostname(), "command": command}
        self.ledger.append(("session", None, body))
        self.stopwatch.earlier_s = self.ledger.history.used_s
        self.verdicts.budgets_before = self.verdicts.budgets()

    def close_session(self, why: str) -> None:
        body = {
            "why": why,
            "seconds": self.stopwatch.session_s(),
            "efficiency": self.stopwatch.efficiency(),
            "first_step_s": self.stopwatch.first_step_s(),
        }
        self.ledger.append(("close", None, body))
