"""What to try next: the settings from which the surrogate expects the most for their cost."""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalChoiceType,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from scipy.special import ndtr

from search.ledger import Trial
from search.surrogate import Array, Encoding, GaussianProcess, extrapolated
from spaces import Space

# Chosen in benchmarks/search_quality.py on the recording `demo`: with 10 and no exploring the model settled on what learns fast.
NUM_STARTUP = 25  # trials with a score at the first rung, before which settings are drawn at random
_EXPLORE = 0.25  # of the later suggestions are drawn at random: never far behind random search, and something new to learn from
_NUM_CANDIDATES = 150
_NUM_LOOKS = 300  # draws that show which parameters the space has
_FEWEST_PRIORS = 5
_NUM_BEST = 8  # settings near which half of the candidates are drawn
_KEEP = 0.75  # chance that such a candidate keeps a parameter's value, or a number's neighbourhood
_STEP = 0.1  # of a range, standard deviation
_GROWTH = 1.4  # the hyperparameters are fitted again when there are so many times more trials
_MAX_TRIALS = 400  # shown to the surrogate
_BOTTOM, _BOTTOM_SLOPE = 0.3, 0.5  # among this share of bad trials differences count half: they need not be told apart
_TYPICAL_NOISE = 0.1  # of the targets' variance: what an estimate's variance is compared with


class Draw:
    """In a trial's place for a space's function: draws what is asked for, at random or near `around`."""

    def __init__(self, rng: np.random.Generator, around: Mapping[str, Any] | None = None) -> None:
        self._rng, self._around = rng, around or {}
        self.params: dict[str, Any] = {}
        self.distributions: dict[str, BaseDistribution] = {}

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False) -> float:
        return float(self._number(name, FloatDistribution(low, high, log=log, step=step)))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return int(self._number(name, IntDistribution(low, high, log=log, step=step)))

    def _number(self, name: str, distribution: FloatDistribution | IntDistribution) -> float:
        if name not in self.params:
            low, high, step = distribution.low, distribution.high, distribution.step or 0
            start, end = (math.log(low), math.log(high)) if distribution.log else (low, high)
            if name in self._around and low <= self._around[name] <= high and self._rng.random() < _KEEP:
                if isinstance(distribution, IntDistribution):
                    self.params[name] = self._around[name]
                    self.distributions[name] = distribution
                    return self.params[name]  # type: ignore[no-any-return]
                middle = math.log(self._around[name]) if distribution.log else self._around[name]
                place = min(max(self._rng.normal(middle, _STEP * (end - start)), start), end)
            elif isinstance(distribution, IntDistribution):  # each whole number gets its share of the range
                edges = (math.log(low - 0.5), math.log(high + 0.5)) if distribution.log else (low - step / 2, high + step / 2)
                place = self._rng.uniform(*edges)
            else:
                place = self._rng.uniform(start, end)
            value = math.exp(place) if distribution.log else place
            if step:
                value = low + round((value - low) / step) * step
            value = min(max(value, low), high)
            self.params[name] = int(value) if isinstance(distribution, IntDistribution) else value
            self.distributions[name] = distribution
        return self.params[name]  # type: ignore[no-any-return]

    def suggest_categorical(self, name: str, choices: Sequence[CategoricalChoiceType]) -> Any:
        if name not in self.params:
            if self._around.get(name) in choices and name in self._around and self._rng.random() < _KEEP:
                self.params[name] = self._around[name]
            else:
                self.params[name] = choices[int(self._rng.integers(len(choices)))]
            self.distributions[name] = CategoricalDistribution(choices)
        return self.params[name]


@dataclass
class _Known:
    """What the proposer keeps of a trial."""

    last_epoch: int
    row: list[float]
    scores: list[float]  # best at each rung, NaN where it was not reached
    log_seconds: float  # of an epoch, NaN where it had none


class Proposer:
    """Proposes parameters from a sweep's trials. A function of them: what it keeps only saves time.

    Expected improvement (Jones et al. 1998) of the best expected score, over the predicted seconds to the power of
    `cost_weight` (Snoek et al. 2012, section 3.2); running trials are believed to turn out as expected.
    """

    def __init__(
        self, space: Space, metric: str, rungs: Sequence[int], cost_weight: float, priors: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """`rungs` end with the last epoch; `priors` are trials of other sweeps as the ledger has them."""
        self.space, self.metric, self.rungs, self.cost_weight = space, metric, rungs, cost_weight
        distributions: dict[str, BaseDistribution] = {}
        for draw in self._draws([None] * _NUM_LOOKS, np.random.default_rng(0)):
            distributions = {**draw.distributions, **distributions}
        self._encoding = Encoding(distributions)
        self._known: dict[int, _Known] = {}
        self._theta: tuple[int, Array] | None = None
        self._priors = [prior for prior in priors if prior["scores"]]
        self._elsewhere = self._learn_elsewhere()

    def propose(self, trials: Mapping[int, Trial], rng: np.random.Generator) -> dict[str, Any] | None:
        """Parameters for the next trial; None where they are to be drawn at random."""
        seen, running = [], []
        for trial in trials.values():
            if trial.state == "running":
                running.append(trial)
            if trial.state == "failed" or (trial.epochs and trial.epochs[-1]["epoch"] >= self.rungs[0]):
                seen.append(trial)
        if len(seen) < NUM_STARTUP and self._elsewhere is None:
            return None
        if len(seen) >= NUM_STARTUP and rng.random() < _EXPLORE:
            return None
        drawn = self._draws([None] * (_NUM_CANDIDATES // 2), rng)
        if not drawn:
            return None
        if len(seen) < NUM_STARTUP:
            return self._as_elsewhere(trials, drawn, rng)
        known = [self._look(trial) for trial in seen]
        features, target, noise, shown = self._lesson(seen, known)
        trend = self._trend(features, target)
        process = GaussianProcess(features, target - trend(features), noise, self._hyperparameters(seen, known))
        mean = process.predict(features)[0] + trend(features)
        best = float(mean.max())
        if running:
            process = process.believing(np.array([self._encoding(trial.params) for trial in running]))
        around = [shown[place].params for place in np.argsort(-mean)[:_NUM_BEST]]
        drawn += self._draws([around[place] for place in rng.integers(len(around), size=_NUM_CANDIDATES // 2)], rng)
        points = np.array([self._encoding(one.params) for one in drawn])
        expected, deviation = process.predict(points)
        value = log_expected_improvement(expected + trend(points), deviation, best)
        if self.cost_weight:
            value -= self.cost_weight * self._log_seconds(known, points)
        return drawn[int(np.argmax(value))].params

    def _learn_elsewhere(self) -> GaussianProcess | None:
        """What the priors say, the scores of each source in units of their own spread."""
        rows, targets = [], []
        for source in sorted({prior["source"] for prior in self._priors}):
            here = [prior for prior in self._priors if prior["source"] == source]
            scores = np.array([_best_at(self.rungs, {int(epoch): score for epoch, score in prior["scores"].items()})
                               for prior in here])  # fmt: skip
            reached = ~np.isnan(scores[:, 0])
            if reached.sum() < _FEWEST_PRIORS:
                continue
            here = [prior for prior, is_there in zip(here, reached, strict=True) if is_there]
            target, _ = extrapolated(scores[reached], [prior["architecture"] for prior in here])
            targets.append((target - target.mean()) / (target.std() + 1e-9))
            rows += [self._encoding(prior["params"]) for prior in here]
        if not rows:
            return None
        target = np.concatenate(targets)
        shown = _most_telling(target)
        return GaussianProcess(np.array(rows)[shown], target[shown], np.ones(len(shown)))

    def _as_elsewhere(self, trials: Mapping[int, Trial], drawn: list[Draw], rng: np.random.Generator) -> dict[str, Any]:
        """What the priors promise most of, away from what is tried already."""
        process = self._elsewhere
        assert process is not None
        best = sorted(self._priors, key=lambda prior: -max(prior["scores"].values()))[:_NUM_BEST]
        drawn = drawn + self._draws([best[place]["params"] for place in rng.integers(len(best), size=len(drawn))], rng)
        goal = float(process.predict(process.features)[0].max())
        if trials:
            process = process.believing(np.array([self._encoding(trial.params) for trial in trials.values()]))
        points = np.array([self._encoding(one.params) for one in drawn])
        return drawn[int(np.argmax(log_expected_improvement(*process.predict(points), goal)))].params

    def _trend(self, features: Array, target: Array) -> Callable[[Array], Array]:
        """What the priors say of settings, in this sweep's scores: a line through its trials, flat while they are few."""
        if self._elsewhere is None:
            return lambda points: np.zeros(len(points))
        elsewhere = self._elsewhere
        said = elsewhere.predict(features)[0]
        apart = said - said.mean()
        slope = max(0.0, float(apart @ (target - target.mean()) / (apart @ apart + 5 * elsewhere.scale**2)))
        return lambda points: target.mean() + slope * (elsewhere.predict(points)[0] - said.mean())

    def _draws(self, arounds: Sequence[Mapping[str, Any] | None], rng: np.random.Generator) -> list[Draw]:
        found = []
        for around in arounds:
            draw = Draw(rng, around)
            with contextlib.suppress(Exception):  # a space may fail on rare settings
                self.space.suggest(draw)
                found.append(draw)
        return found

    def _look(self, trial: Trial) -> _Known:
        last = trial.epochs[-1]["epoch"] if trial.epochs else 0
        known = self._known.get(trial.number)
        if known is None or known.last_epoch != last:
            seconds = trial.alone_seconds
            known = _Known(last, self._encoding(trial.params), _best_at(self.rungs, trial.scores(self.metric)),
                           math.log(seconds / len(trial.epochs)) if seconds > 0 else math.nan)  # fmt: skip
            self._known[trial.number] = known
        return known

    def _lesson(self, seen: Sequence[Trial], known: Sequence[_Known]) -> tuple[Array, Array, Array, list[Trial]]:
        """Features, estimated final scores, and noise of the trials that the surrogate is shown, and these trials."""
        scores = np.array([one.scores for one in known])
        scored = ~np.isnan(scores[:, 0]) & np.array([trial.state != "failed" for trial in seen])
        groups = [trial.settings.get("architecture") for trial, is_scored in zip(seen, scored, strict=True) if is_scored]
        target, variance = np.zeros(len(seen)), np.zeros(len(seen))
        if scored.any():
            target[scored], variance[scored] = extrapolated(scores[scored], groups)
            target[~scored] = target[scored].min()  # what failed is as bad as the worst
        bottom = np.quantile(target, _BOTTOM)
        target = np.where(target < bottom, bottom - _BOTTOM_SLOPE * (bottom - target), target)
        noise = 1 + variance / (_TYPICAL_NOISE * target.var() + 1e-12)
        shown = _most_telling(target)
        return np.array([known[place].row for place in shown]), target[shown], noise[shown], [seen[place] for place in shown]

    def _hyperparameters(self, seen: Sequence[Trial], known: Sequence[_Known]) -> Array:
        """Those of the first so many trials: fitted a few times in a sweep, and after a crash the same as without."""
        count = NUM_STARTUP
        while count * _GROWTH <= min(seen[-1].number + 1, _MAX_TRIALS):
            count = math.ceil(count * _GROWTH)
        if self._theta is None or self._theta[0] != count:
            num_first = max(sum(trial.number < count for trial in seen), NUM_STARTUP)
            features, target, noise, _ = self._lesson(seen[:num_first], known[:num_first])
            self._theta = (count, GaussianProcess(features, target - self._trend(features, target)(features), noise).theta)
        return self._theta[1]

    def _log_seconds(self, known: Sequence[_Known], points: Array) -> Array:
        """Logarithm of the seconds of an epoch that each of `points` is expected to take."""
        timed = [one for one in known if not math.isnan(one.log_seconds)][-_MAX_TRIALS:]
        if not timed:
            return np.zeros(len(points))
        width = points.shape[1]
        theta = np.array([math.log(1.5)] * width + [0.0, math.log(0.05)])
        seconds = np.array([one.log_seconds for one in timed])
        return GaussianProcess(np.array([one.row for one in timed]), seconds, np.ones(len(timed)), theta).predict(points)[0]


def _best_at(rungs: Sequence[int], scores: Mapping[int, float]) -> list[float]:
    """Best score at each rung, NaN where it was not reached."""
    last = max(scores, default=0)
    return [max(score for epoch, score in scores.items() if epoch <= rung) if last >= rung else math.nan for rung in rungs]


def _most_telling(target: Array) -> Any:
    """Indices of the trials to show the surrogate: all, or the best half of what it can take and others evenly spread."""
    if len(target) <= _MAX_TRIALS:
        return np.arange(len(target))
    order = np.argsort(-target, kind="stable")
    half = _MAX_TRIALS // 2
    others = np.sort(order[half:])
    return np.sort(np.concatenate([order[:half], others[np.linspace(0, len(others) - 1, _MAX_TRIALS - half).astype(int)]]))


def log_expected_improvement(mean: Array, deviation: Array, best: float) -> Array:
    """Logarithm of the expected improvement over `best`, of each point; finite however unlikely it is."""
    z = (mean - best) / deviation
    improvement = z * ndtr(z) + np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    # Far below, the difference above is lost in rounding; it behaves as density / z^2.
    far = -0.5 * z**2 - math.log(math.sqrt(2 * math.pi)) - 2 * np.log(np.maximum(-z, 1.0))
    return np.log(deviation) + np.where(z > -5, np.log(np.maximum(improvement, 1e-300)), far)  # type: ignore[no-any-return]
