"""Final scores of a sweep's trials under a process that goes on seeing scores: what was computed
for a trial is kept and added to, so that a driver's time does not grow with the trials' number.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from search.suggest.gaussian_process import Array, CurveProcess, at_the_end

Places = NDArray[np.intp]
# Of means (K,), standard deviations (K,) and places (K,) of settings: what each is worth trying.
Value = Callable[[Array, Array, Places], Array]
_NUM_LEADERS = 16  # settings whose values are computed before those of others
_BLOCK = 128  # scores that are taken into account at once
_ROOM = 64  # rows for trials to come, whenever there is none left, and columns for scores


class Finals:
    """Of one process. Trials are numbers; N is how many scores the process has seen."""

    def __init__(self, process: CurveProcess, row_of: Callable[[int], Sequence[float]]) -> None:
        """`row_of`: a trial's settings as numbers."""
        self.process, self._row_of = process, row_of
        self._places: dict[int, int] = {}  # of trials in what follows
        self._features = np.empty((0, process.seen.features.shape[1]))
        self._kernel = np.empty((0, 0))  # with the scores seen, luck left out
        self._num_seen = 0
        # Of the trials that run, the rows of the kernel times the whitening's transpose.
        self._running: list[int] = []
        self._halves = np.empty((0, 0))
        self._num_whitened = 0

    def means(self, numbers: Sequence[int]) -> Array:
        """Final scores expected of the settings of these trials, whatever luck they had."""
        return self.process.mean(self._cross(numbers))

    def expected(self, numbers: Sequence[int]) -> Array:
        """Final scores expected of these trials, their luck so far included."""
        process = self.process
        seen, own = process.seen, process.seen.trials >= 0
        luck = process.luck_at_the_end(seen.progress[own]) * process.weights[own]
        # Only those of the trials asked for have to be there.
        of_each = np.zeros(max(numbers, default=0) + 1)
        places = seen.trials[own].astype(int)
        known = places < len(of_each)
        np.add.at(of_each, places[known], luck[known])
        own_luck = of_each[np.array(numbers, dtype=int)] * process.scale
        return np.asarray(self.means(numbers) + own_luck)

    def believed(self, numbers: Sequence[int]) -> "Believed":
        """The process as if these trials, which run, had ended as expected."""
        halves = self._whitened(numbers)
        return Believed(self.process, self._features[self._at(self._running)], halves)

    def _at(self, numbers: Sequence[int]) -> Places:
        return np.array([self._places[number] for number in numbers], dtype=np.intp)

    def _cross(self, numbers: Sequence[int]) -> Array:
        """(M, N): the kernel of these trials' final scores with what was seen."""
        seen, size = self.process.seen, len(self._places)
        if self._num_seen < len(seen):
            self._kernel = _with_room(self._kernel, size, len(seen))
            points = at_the_end(self._features[:size])
            new = seen.take(slice(self._num_seen, None))
            self._kernel[:size, self._num_seen : len(seen)] = self.process.kernel(points, new)
            self._num_seen = len(seen)
        if missing := [number for number in numbers if number not in self._places]:
            rows = np.array([self._row_of(number) for number in missing])
            total = size + len(missing)
            self._places.update(zip(missing, range(size, total), strict=True))
            self._features = np.vstack([self._features, rows])
            self._kernel = _with_room(self._kernel, total, len(seen))
            self._kernel[size:total, : len(seen)] = self.process.kernel(at_the_end(rows), seen)
        return np.asarray(self._kernel[self._at(numbers), : len(seen)])

    def _whitened(self, numbers: Sequence[int]) -> Array:
        """(M, N), in the order of `_running`, which has these trials afterwards."""
        whitening, wanted = self.process.whitening, set(numbers)
        kept = [place for place, number in enumerate(self._running) if number in wanted]
        if len(kept) < len(self._running):
            self._halves = self._halves[kept]
            self._running = [self._running[place] for place in kept]
        begun = sorted(wanted.difference(self._running))
        cross = self._cross([*self._running, *begun])
        size, total = len(self._running), len(whitening)
        self._halves = _with_room(self._halves, len(cross), total)
        if self._num_whitened < total:
            new = slice(self._num_whitened, total)
            self._halves[:size, new] = cross[:size] @ whitening[new].T
            self._num_whitened = total
        if size < len(cross):
            self._halves[size : len(cross), :total] = cross[size:] @ whitening.T
            self._running += begun
        return self._halves[: len(cross), :total]


class Believed:
    """What is known once trials that run have ended as expected: no other means, less doubt."""

    def __init__(self, process: CurveProcess, features: Array, halves: Array) -> None:
        """`features` (R, D) of these trials' settings; `halves` (R, N): their final scores' kernel
        with what was seen, whitened.
        """
        self.process, self._halves = process, halves
        count = len(features)
        # Each has a luck of its own, which nobody has seen.
        self._ends = replace(at_the_end(features), trials=np.asarray(-2.0 - np.arange(count)))
        covariance = process.noisy_kernel(self._ends) - halves @ halves.T
        self._lower = np.linalg.cholesky(covariance)

    def best(self, features: Array, value: Value) -> int:
        """The settings (M, D) of the highest `value`, the first of equal ones; it must not fall
        where a deviation rises.

        Exact: settings are left out as soon as what they can still reach, their doubt falling with
        every score that is taken into account, is below the value of others.
        """
        process = self.process
        cross = process.kernel(at_the_end(features), process.seen)
        means, places = process.mean(cross), np.arange(len(features))
        highest = value(means, np.full(len(means), self._deviation(process.variance)), places)
        order = np.argsort(-highest, kind="stable")
        leaders, others = np.sort(order[:_NUM_LEADERS]), np.sort(order[_NUM_LEADERS:])
        found: dict[int, float] = {}
        for some in (leaders, others):
            least = max(found.values(), default=-math.inf)
            found |= self._values(features, cross, means, some, value, least)
        return min(found, key=lambda place: (-found[place], place))

    def _values(
        self,
        features: Array,
        cross: Array,
        means: Array,
        places: Places,
        value: Value,
        least: float,
    ) -> dict[int, float]:
        """By place, the values of those that reach `least`."""
        whitening, total = self.process.whitening, cross.shape[1]
        half, variance = np.empty((len(places), 0)), np.full(len(places), self.process.variance)
        for begin in range(0, total, _BLOCK):
            end = min(begin + _BLOCK, total)
            new = cross[places, :end] @ whitening[begin:end, :end].T
            half, variance = np.hstack([half, new]), variance - (new**2).sum(axis=1)
            reached = value(means[places], self._deviation(variance), places) >= least
            places, half, variance = places[reached], half[reached], variance[reached]
            if not len(places):
                return {}
        ends = at_the_end(features[places])
        own = self.process.kernel(ends, self._ends) - half @ self._halves.T
        own = solve_triangular(self._lower, own.T, lower=True, check_finite=False)
        variance -= (own**2).sum(axis=0)
        values = value(means[places], self._deviation(variance), places)
        return dict(zip(places.tolist(), values.tolist(), strict=True))

    def _deviation(self, variance: Array | float) -> Array:
        return np.asarray(np.sqrt(np.maximum(variance, 1e-10)) * self.process.scale)


def _with_room(array: Array, rows: int, columns: int) -> Array:
    """The same array, or a copy of it in a larger one where it has not so many rows or columns."""
    if array.shape[0] >= rows and array.shape[1] >= columns:
        return array
    # Rows by a share, so that all copying together stays in proportion to what there is.
    room = np.empty(
        (max(array.shape[0], rows + rows // 4 + _ROOM), max(array.shape[1], columns + _ROOM))
    )
    room[: array.shape[0], : array.shape[1]] = array
    return room
