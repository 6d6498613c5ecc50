"""How long a session has taken, and how much of it was training."""

import time
from collections.abc import Callable, Sequence

from search.ledger.records import Epoch

_SINCE_1970 = time.time() - time.monotonic()


def steady() -> float:
    """Seconds since 1970 as they were when this process began, and on from there whatever is done
    to the machine's clock; the time that the machine sleeps does not count.
    """
    return time.monotonic() + _SINCE_1970


class Stopwatch:
    """Started with the session."""

    def __init__(self, clock: Callable[[], float], workers: int) -> None:
        self.clock, self.workers = clock, workers
        self.started = clock()
        self.command_started = self.started  # earlier, where somebody waited for the imports
        self.earlier_s = 0.0  # of earlier sessions
        self.first_step: float | None = None  # by the worker's clock
        self.first_result: float | None = None
        self.last_result = self.started
        self._trained: list[Epoch] = []

    def add(self, epochs: Sequence[Epoch]) -> None:
        """Take note of epochs that are reported now."""
        if not epochs:
            return
        self.last_result = self.clock()
        if self.first_result is None:
            self.first_result = self.last_result
        first = epochs[0]
        started = first.ended - first.seconds if first.started is None else first.started
        self.first_step = started if self.first_step is None else min(self.first_step, started)
        self._trained += epochs

    def session_s(self) -> float:
        return self.clock() - self.started

    def used_s(self) -> float:
        """Seconds of this and earlier sessions."""
        return self.earlier_s + self.session_s()

    def first_step_s(self) -> float | None:
        """From the command to the first training step of this session."""
        return None if self.first_step is None else self.first_step - self.command_started

    def efficiency(self) -> float | None:
        """Training seconds as they would be alone / workers / wall time, from the first result to
        the last.

        The part of an epoch that ran before the first result does not count.
        """
        if self.first_result is None or self.last_result <= self.first_result:
            return None
        trained = sum(
            epoch.alone_seconds
            * min(1.0, max(0.0, epoch.ended - self.first_result) / max(epoch.seconds, 1e-9))
            for epoch in self._trained
        )
        return trained / self.workers / (self.last_result - self.first_result)
