"""What a sweep's trials let us expect: the curve process, kept up with the ledger's history. A
function of that history alone.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from optuna.distributions import BaseDistribution

from mmm.training.config import Params
from search.ledger.records import Prior
from search.ledger.trial import Trial, touched_since
from search.suggest.finals import Finals
from search.suggest.gaussian_process import Array, CurveProcess, Observations, fitted
from search.suggest.parameter_vectors import Encoding

NUM_FIRST = 8  # ended trials, before which nothing is expected
_GROWTH = 1.4  # the hyperparameters are fitted again when there are so many times more ended trials
_MAX_TRIALS = 400  # that the process is started with; it grows by the newer ones
_MAX_GROWTH = 160  # trials, after which it is started anew with others
_MAX_PRIORS = 150  # trials of one other sweep
# Ended trials, from which on other sweeps are left out: they help at the start, and what is best
# here may be elsewhere.
_ON_ITS_OWN = 24


class Belief:
    """Expected final scores of trials and settings. What it keeps between calls only saves time,
    but for sweeps of more than _MAX_TRIALS running trials.
    """

    def __init__(
        self,
        parameters: Mapping[str, BaseDistribution],
        metric: str,
        rungs: Sequence[int],
        priors: Sequence[Prior] = (),
        num_folds: int = 1,
    ) -> None:
        """`parameters` are all that settings may have; `rungs` end with the last epoch. Over folds
        they are of the first one, and the mean over all is one more rung, as far from the last
        epoch as that is from the rung before it.
        """
        self.metric, self.rungs = metric, list(rungs)
        self._last: float = self.rungs[-1]
        if num_folds > 1:
            self._last *= self.rungs[-1] / self.rungs[-2] if len(self.rungs) > 1 else 3
        self.encoding = Encoding(parameters)
        self._rows: dict[int, list[float]] = {}
        # Settings of other sweeps, as rows and as parameters.
        self.priors: list[tuple[list[float], Params]] = []
        self._elsewhere = self._seen_elsewhere(priors)
        self._theta: tuple[int, Array] | None = None  # how many trials it was fitted to
        self._start = -1  # how many trials the process was started with
        self._process: CurveProcess | None = None
        self._finals: Finals | None = None
        self._trials: Mapping[int, Trial] = {}  # what the following was derived from
        self._looked = 0  # up to where in the order in which they were touched
        self._ended: set[int] = set()  # trials, without lost ones
        self.running: list[int] = []  # trials, by number
        # Trials that failed or reached a rung, and their best scores, minus infinity without any.
        self.tried: dict[int, float] = {}
        self._has: set[tuple[int, float]] = set()  # (trial, progress) in it
        self._marks: dict[int, tuple[str, int]] = {}  # of each trial, when it was last looked at
        self._worst: float | None = None  # what a failure counts as

    def row(self, trial: Trial) -> list[float]:
        """A trial's settings as numbers."""
        if trial.number not in self._rows:
            self._rows[trial.number] = self.encoding(trial.params)
        return self._rows[trial.number]

    def reached(self, trial: Trial) -> int:
        """How many rungs a trial has scores for, the last epoch counting as one, and a mean over
        folds.
        """
        return sum(trial.epoch >= rung for rung in self.rungs) + self._has_mean(trial)

    def process(self, trials: Mapping[int, Trial]) -> CurveProcess | None:
        """The process that has seen all of `trials`; None while there are too few to expect
        anything.
        """
        changed = self._look_at(trials)
        start, fit = _levels(len(self._ended))
        if start == 0:
            return self._of_priors(trials)
        if self._process is None or self._start != start:
            ended = sorted((trials[number] for number in self._ended), key=_order)
            self._begin(trials, ended, start, fit)
            changed = trials
        assert self._process is not None
        new = []
        for number in changed:
            trial = trials[number]
            mark = (trial.state, len(trial.epochs) + self._has_mean(trial))
            if self._marks.get(number) != mark:
                self._marks[number] = mark
                new += [row for row in self._observed(trial) if (number, row[1]) not in self._has]
        if new:
            self._has.update((row[2], row[1]) for row in new)
            self._process.see(Observations.of(new, self.encoding.width))
        return self._process

    def finals(self, trials: Mapping[int, Trial]) -> Finals | None:
        """Final scores under `process(trials)`."""
        process = self.process(trials)
        if process is None:
            return None
        if self._finals is None or self._finals.process is not process:
            self._finals = Finals(process, lambda number: self.row(self._trials[number]))
        return self._finals

    def _look_at(self, trials: Mapping[int, Trial]) -> Iterable[int]:
        """Which trials may have changed since the last look; what is kept of them is right
        afterwards.
        """
        if trials is not self._trials:
            self._trials, self._looked = trials, 0
            self._ended, self.running, self.tried = set(), [], {}
        changed, self._looked = touched_since(trials, self._looked)
        for number in changed:
            trial = trials[number]
            place = bisect_left(self.running, number)
            was_running = self.running[place : place + 1] == [number]
            if was_running and trial.state != "running":
                del self.running[place]
            elif trial.state == "running" and not was_running:
                self.running.insert(place, number)
            # A lost trial is as one that still runs: its scores count, its end does not.
            if trial.state != "running" and not trial.is_lost:
                self._ended.add(number)
            else:
                self._ended.discard(number)
            if trial.is_failure or self.reached(trial):
                best = trial.best(self.metric)
                self.tried[number] = -math.inf if best is None else best[1]
            else:
                self.tried.pop(number, None)
        return changed

    def _of_priors(self, trials: Mapping[int, Trial]) -> CurveProcess | None:
        """What other sweeps say and the few trials there are, made anew each time: these have no
        centre of their own yet.
        """
        if not self.priors:
            return None
        if self._theta is None:
            self._theta = (0, fitted(self._elsewhere))
        rows = [row for trial in trials.values() for row in self._observed(trial)]
        return CurveProcess(
            self._elsewhere + Observations.of(rows, self.encoding.width), self._theta[1]
        )

    def expected(self, trials: Mapping[int, Trial], numbers: Sequence[int]) -> Array | None:
        """Final scores expected of trials that reached a rung, their luck so far included; None
        while nothing is.
        """
        finals = self.finals(trials)
        return None if finals is None else finals.expected(numbers)

    def _begin(
        self, trials: Mapping[int, Trial], ended: Sequence[Trial], start: int, fit: int
    ) -> None:
        if self._theta is None or self._theta[0] != fit:
            # Fitted a few times in a sweep, and after a crash to the same trials as without one.
            self._theta = (fit, fitted(self._shown(ended[:fit])))
        self._start = start
        seen = self._shown(ended[:start])
        self._process = CurveProcess(seen, self._theta[1])
        self._marks = {}
        # Those of them that are not shown are not to come in as new ones either; nor are all of
        # many that go on, or a sweep on thousands of workers would have thousands of scores. Which
        # are shown of more than that depends on when the process was started, and so does what a
        # sweep that was killed suggests.
        others = (trials[number] for number in sorted(set(trials).difference(self._ended)))
        going_on = [trial for trial in others if self.reached(trial)]
        shown = {trial.number for trial in _most_telling(going_on, self.metric)}
        left_out = [*ended[:start], *(one for one in going_on if one.number not in shown)]
        self._has = {(trial.number, row[1]) for trial in left_out for row in self._observed(trial)}

    def _shown(self, ended: Sequence[Trial]) -> Observations:
        """What is seen of the priors and of these trials, or of those that tell most if there are
        too many.
        """
        scores = [score for trial in ended for score in trial.scores(self.metric).values()]
        self._worst = min(scores, default=None)
        rows = [row for trial in _most_telling(ended, self.metric) for row in self._observed(trial)]
        own = Observations.of(rows, self.encoding.width)
        return self._elsewhere + own if len(ended) < _ON_ITS_OWN else own

    def _observed(self, trial: Trial) -> list[tuple[list[float], float, int, int, float]]:
        """A trial's best score at each rung that it reached; one that failed ends with the worst
        there is.
        """
        row, curve = self.row(trial), _best_at(self.rungs, trial.scores(self.metric))
        found = [(row, self._progress(rung), trial.number, 0, best) for rung, best in curve]
        if self._has_mean(trial) and (mean := trial.best(self.metric)) is not None:
            found.append((row, 1.0, trial.number, 0, mean[1]))
        if trial.is_failure and self._worst is not None:
            found = [one for one in found if one[1] < 1.0]
            found.append((row, 1.0, trial.number, 0, self._worst))
        return found

    def _progress(self, epoch: int) -> float:
        return math.log(epoch) / math.log(self._last) if self._last > 1 else 1.0

    @staticmethod
    def _has_mean(trial: Trial) -> bool:
        return trial.num_folds > 1 and trial.has_all_folds

    def _seen_elsewhere(self, priors: Sequence[Prior]) -> Observations:
        rows = []
        for number, source in enumerate(sorted({prior.source for prior in priors}), start=1):
            here = [prior for prior in priors if prior.source == source and prior.scores]
            here = sorted(here, key=lambda prior: -max(prior.scores.values()))
            for place in _best_and_others(
                [max(prior.scores.values()) for prior in here], _MAX_PRIORS
            ):
                prior = here[place]
                row = self.encoding(prior.params)
                curve = [
                    (self._progress(rung), best)
                    for rung, best in _best_at(self.rungs, prior.scores)
                ]
                rows += [
                    (row, progress, -1_000_000 * number - place, number, best)
                    for progress, best in curve
                ]
                if curve:
                    self.priors.append((row, prior.params))
        return Observations.of(rows, self.encoding.width)


def _levels(num_ended: int) -> tuple[int, int]:
    """With how many of the ended trials the process is started, and to how many its hyperparameters
    are fitted; 0: none.
    """
    if num_ended < NUM_FIRST:
        return 0, 0
    start = fit = NUM_FIRST
    while (more := min(math.ceil(start * _GROWTH), start + _MAX_GROWTH)) <= num_ended:
        start = more
        if start >= fit * _GROWTH:
            fit = start
    return start, fit


def _best_at(rungs: Sequence[int], scores: Mapping[int, float]) -> list[tuple[int, float]]:
    """Each rung that was reached, and the best score up to it."""
    last = max(scores, default=0)
    return [
        (rung, max(score for epoch, score in scores.items() if epoch <= rung))
        for rung in rungs
        if last >= rung
    ]


def _order(trial: Trial) -> int:
    return trial.number if trial.end_order is None else trial.end_order


def _most_telling(ended: Sequence[Trial], metric: str) -> list[Trial]:
    """The trials to show, as many as can be: the best half of that and others evenly spread."""
    best = [
        max(scores.values())
        if (scores := trial.scores(metric)) and trial.state != "failed"
        else -math.inf
        for trial in ended
    ]
    return [ended[place] for place in _best_and_others(best, _MAX_TRIALS)]


def _best_and_others(scores: Sequence[float], most: int) -> list[int]:
    """Places of at most so many scores: the best half, and others evenly spread."""
    if len(scores) <= most:
        return list(range(len(scores)))
    order = np.argsort(-np.array(scores), kind="stable")
    others = np.sort(order[most // 2 :])
    spread = others[np.linspace(0, len(others) - 1, most - most // 2).astype(int)]
    return sorted(int(place) for place in np.concatenate([order[: most // 2], spread]))
