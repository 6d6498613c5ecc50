"""Where the spread of confirmed scores comes from: settings, seeds and folds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from search.ledger.trial import Trial


@dataclass(frozen=True)
class VarianceSplit:
    """Standard deviations, in the units of the score; None where nothing tells."""

    settings: float | None  # between finalists, the seeds' share of their means taken out
    seeds: float | None  # between runs of one finalist, pooled
    folds: float | None  # between the folds of one run, pooled


def variance_split(runs: Mapping[str, Sequence[Trial]], metric: str) -> VarianceSplit:
    """Of the runs of each finalist, as the search counts their scores (over folds their mean), by
    the moments of a one-way layout with random effects (Searle et al. 1992, chapter 3). A variance
    that would come out negative is 0.
    """
    scores = [
        [best[1] for trial in trials if (best := trial.best(metric)) is not None]
        for trials in runs.values()
    ]
    scores = [some for some in scores if some]
    within = _pooled(scores)
    between = None
    if len(scores) > 1 and within is not None:
        # The mean of a finalist has the seeds' variance by its number of runs.
        of_means = float(np.var([np.mean(some) for some in scores], ddof=1))
        share = within * float(np.mean([1 / len(some) for some in scores]))
        between = max(0.0, of_means - share)
    by_fold = _pooled(
        [
            _at_best(trial, metric)
            for trials in runs.values()
            for trial in trials
            if trial.num_folds > 1 and trial.has_all_folds
        ]
    )
    return VarianceSplit(_root(between), _root(within), _root(by_fold))


def _at_best(trial: Trial, metric: str) -> list[float]:
    """Of each fold, at the epoch that is best in the mean."""
    best = trial.best(metric)
    assert best is not None
    return trial.fold_scores(metric, trial.num_folds)[best[0]]


def _pooled(groups: Sequence[Sequence[float]]) -> float | None:
    """The variance within groups; None where none has two."""
    several = [np.array(some) for some in groups if len(some) > 1]
    if not several:
        return None
    squares = sum(float(((some - some.mean()) ** 2).sum()) for some in several)
    return squares / sum(len(some) - 1 for some in several)


def _root(variance: float | None) -> float | None:
    return None if variance is None else math.sqrt(variance)
