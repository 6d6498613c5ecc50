"""Whether a trial that has trained some folds is worth the others, as a plain function of what was
recorded.

Folds differ in how hard they are, and all trials share them: a trial is compared with the best
complete one fold by fold. Given up is only what cannot reach that one's mean within the spread of
these differences. Optuna's WilcoxonPruner asks for a signed-rank test instead, which no pair of
trials can fail before four folds.
"""

import math
import statistics
from collections.abc import Mapping

from search.engine.asha import Decision
from search.ledger.trial import Trial, best_mean

DEVIATIONS = 2.0  # of the predicted mean, that a trial may lie behind and still go on


def decide_after_fold(trials: Mapping[int, Trial], number: int, metric: str) -> Decision:
    """Decide on trial `number`, whose last fold is trained. No side effects.

    Of k folds f are trained, with a mean difference d to the best complete trial on them. The mean
    over all k is then expected to differ by d as well, with the variance of what is not known yet:
    that of d itself and that of the folds to come, each from the spread s of differences around
    their trial's mean: s^2 (r^2 / f + r) / k^2 with r = k - f.
    """
    trial = trials[number]
    done, of = trial.fold, trial.num_folds
    complete = [
        (best[1], -other.number)
        for other in trials.values()
        if other.state == "complete" and (best := other.best(metric)) is not None
    ]
    if not complete:
        return Decision(False, f"fold {done} of {of} trained, no trial has a mean over all yet")
    leader = trials[-max(complete)[1]]
    at_best = _scores(leader, metric, of)
    differences = [
        own - best for own, best in zip(_scores(trial, metric, done), at_best, strict=False)
    ]
    mean, left = sum(differences) / done, of - done
    spread = _spread(trials, leader, at_best, metric)
    deviation = spread * math.sqrt(left**2 / done + left) / of
    reason = (
        f"fold {done} of {of}: {metric} {mean:+.4f} against trial {leader.number} on the same"
        f" folds, to be told from it by {DEVIATIONS * deviation:.4f}"
    )
    return Decision(mean + DEVIATIONS * deviation < 0, reason)


def _scores(trial: Trial, metric: str, num_folds: int) -> list[float]:
    """Of each of the first folds, at the epoch whose mean over them is best."""
    found = trial.fold_scores(metric, num_folds)
    return found[best_mean(found)[0]]


def _spread(trials: Mapping[int, Trial], leader: Trial, at_best: list[float], metric: str) -> float:
    """Standard deviation of a trial's differences to the leader around their mean, pooled over
    trials; before any other has two folds that of the leader's own scores, which is larger.
    """
    squares, degrees = 0.0, 0
    for other in trials.values():
        whole = other.num_whole_folds(other.epoch)
        if other is leader or whole < 2 or other.state == "failed":
            continue
        own = _scores(other, metric, whole)
        differences = [score - best for score, best in zip(own, at_best, strict=False)]
        squares += statistics.variance(differences) * (whole - 1)
        degrees += whole - 1
    if degrees == 0:
        return statistics.stdev(at_best)
    return math.sqrt(squares / degrees)
