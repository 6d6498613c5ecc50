"""Which trials reached each rung, and which leads there; and whose weights are kept. Kept up as
trials go on, so that a report costs the same however many trials there are.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence

from search.engine.asha import rung_score
from search.ledger.trial import Trial, touched_since


class Standings:
    """Of a sweep's trials at its rungs."""

    def __init__(self, trials: Mapping[int, Trial], rungs: Sequence[int], metric: str) -> None:
        """`trials` is the ledger's, followed as it grows."""
        self._trials, self._metric = trials, metric
        self._reached: dict[int, list[int]] = {rung: [] for rung in rungs}
        self._leaders: dict[int, tuple[float, int]] = {}  # score and number, by rung
        self._looked = 0

    def reached(self, rung: int) -> Sequence[int]:
        """The trials that were trained so far, by number."""
        self._look()
        return self._reached[rung]

    def leader(self, rung: int) -> int | None:
        """The trial with the best score at a rung, of equal ones the first; what failed does not
        lead.
        """
        self._look()
        return self._leaders[rung][1] if rung in self._leaders else None

    def _look(self) -> None:
        changed, self._looked = touched_since(self._trials, self._looked)
        for number in changed:
            for rung, numbers in self._reached.items():
                place = bisect_left(numbers, number)
                was_there = numbers[place : place + 1] == [number]
                is_there = self._trials[number].epoch >= rung
                if is_there and not was_there:
                    numbers.insert(place, number)
                elif was_there and not is_there:
                    del numbers[place]
                if is_there or was_there:
                    self._compare(rung, number)

    def _compare(self, rung: int, number: int) -> None:
        """Let a trial that has changed take the lead, or lose it."""
        score, leader = self._score(rung, number), self._leaders.get(rung)
        if leader is not None and leader[1] == number and score != leader[0]:
            del self._leaders[rung]
            for other in self._reached[rung]:
                self._compare(rung, other)
        elif score is not None and (leader is None or (score, -number) > (leader[0], -leader[1])):
            self._leaders[rung] = score, number

    def _score(self, rung: int, number: int) -> float | None:
        trial = self._trials[number]
        return None if trial.state == "failed" else rung_score(trial, rung, self._metric)


class Keepers:
    """The best ended trials, whose weights stay on the disk."""

    def __init__(self, trials: Iterable[Trial], metric: str, keep: int) -> None:
        self._metric, self._keep = metric, keep
        self._ended: list[tuple[bool, float, int]] = []  # the best first, failed ones last
        for trial in trials:
            if trial.state != "running":
                self.add(trial)

    def add(self, trial: Trial) -> int | None:
        """A trial that has ended: which trial's weights go for it, its own or those of the one that
        it pushed out.
        """
        best = trial.best(self._metric)
        if best is None or trial.copied_from is not None:
            return None
        rank = trial.state == "failed", -best[1], trial.number
        place = bisect_left(self._ended, rank)
        self._ended.insert(place, rank)
        if place >= self._keep:
            return trial.number
        return self._ended[self._keep][2] if len(self._ended) > self._keep else None
