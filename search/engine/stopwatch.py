"""How long a session has taken, and how much of it was training."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any


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
        # (ended, seconds by the clock, seconds alone) of each epoch
        self._trained: list[tuple[float, float, float]] = []

    def add(self, epochs: Sequence[Mapping[str, Any]]) -> None:
        """Take note of epochs that are reported now."""
        if not epochs:
            return
        self.last_result = self.clock()
        if self.first_result is None:
            self.first_result = self.last_result
        first = epochs[0]
        started = first.get("started", first["ended"] - first["seconds"])
        self.first_step = started if self.first_step is None else min(self.first_step, started)
        self._trained += [
            (entry["ended"], entry["seconds"], entry["alone_seconds"]) for entry in epochs
        ]

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
            alone * min(1.0, max(0.0, ended - self.first_result) / max(seconds, 1e-9))
            for ended, seconds, alone in self._trained
        )
        return trained / self.workers / (self.last_result - self.first_result)
