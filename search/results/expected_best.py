"""The best score that so many trials are expected to find, for each system: a fair comparison where
systems had different numbers of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from search.ledger.trial import Trial
from search.results.importance import Expected

Array = npt.NDArray[np.float64]

FEWEST = 4  # trials of a system, before which nothing is said
_MOST_NUMBERS = 60  # of trials, for which it is told
_RESAMPLES = 400


@dataclass(frozen=True)
class SystemExpected:
    """Of one system; `scores`, `low` and `high` (n,) are after `numbers` (n,) trials."""

    system: str
    num_trials: int
    num_stopped: int  # of them, with the final score that the sweep's model expects
    seconds: float  # of training, a trial, in the mean
    numbers: npt.NDArray[np.int64]
    scores: Array
    low: Array
    high: Array


def expected_best(scores: Sequence[float], number: int) -> float:
    """The mean, over all choices of `number` of the scores without putting back, of the best of
    them: the unbiased estimator (arXiv:2004.13705) of the expected validation performance of Dodge
    et al. 2019.
    """
    if not 1 <= number <= len(scores):
        raise ValueError(f"the best of {number} of {len(scores)} scores")
    return float(_weights(len(scores), np.array([number]))[0] @ np.sort(scores))


def by_system(expected: Expected) -> list[SystemExpected]:
    """Of every system with enough trials that reached a rung, in the order of what one trial is
    expected to score.

    Stopped trials count with the final score that the sweep's model of learning curves expects of
    them, since what they had reached when they were stopped says little of what they were worth.
    Bands are of 95 %, by a bootstrap over the system's trials. All of it is of trials as this
    sweep drew them: a search that learns draws better ones later.
    """
    finals = expected.finals()
    trials: dict[str, list[Trial]] = {}
    for number in finals:
        trial = expected.history.trials[number]
        trials.setdefault(trial.architecture, []).append(trial)
    found = [
        _of_system(name, some, np.array([finals[trial.number] for trial in some]))
        for name, some in trials.items()
        if len(some) >= FEWEST
    ]
    return sorted(found, key=lambda one: -one.scores[0])


def _of_system(name: str, trials: Sequence[Trial], finals: Array) -> SystemExpected:
    count = len(trials)
    numbers = np.unique(np.geomspace(1, count, _MOST_NUMBERS).round().astype(np.int64))
    weights = _weights(count, numbers)
    rng = np.random.default_rng(0)
    drawn = np.sort(rng.choice(finals, size=(_RESAMPLES, count)), axis=1) @ weights.T
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    whole = [trial.alone_seconds for trial in trials if trial.state == "complete"]
    return SystemExpected(
        name,
        count,
        sum(trial.state != "complete" for trial in trials),
        float(np.mean(whole or [trial.alone_seconds for trial in trials])),
        numbers,
        weights @ np.sort(finals),
        low,
        high,
    )


def _weights(count: int, numbers: npt.NDArray[np.int64]) -> Array:
    """(n, count) of sorted scores: that in place k, counted from 0, is the best of those that are
    chosen with number - 1 of the k below it.
    """
    places = np.arange(count, dtype=np.float64)[None]
    chosen = (numbers - 1).astype(np.float64)[:, None]
    logs = _log_comb(places, chosen) - _log_comb(np.array([[float(count)]]), chosen + 1)
    return np.where(places >= chosen, np.exp(logs), 0.0)


def _log_comb(of: Array, number: Array) -> Array:
    return np.asarray(
        gammaln(of + 1) - gammaln(number + 1) - gammaln(np.maximum(of - number, 0) + 1)
    )
