"""ASHA (Li et al. 2020, arXiv:1810.05934), its stopping form, as a plain function of what was recorded."""

from collections.abc import Mapping
from dataclasses import dataclass

from search.ledger import Trial


@dataclass(frozen=True)
class Decision:
    """Whether a trial goes on after an epoch, and why."""

    stop: bool
    reason: str


def rung_scores(trials: Mapping[int, Trial], rung: int, metric: str) -> dict[int, float]:
    """Score of every trial that reached `rung`: its best so far, which is what its bundle would have."""
    found = {}
    for number, trial in trials.items():
        scores = [score for epoch, score in trial.scores(metric).items() if epoch <= rung]
        if trial.epochs and trial.epochs[-1]["epoch"] >= rung and scores:
            found[number] = max(scores)
    return found


def decide(trials: Mapping[int, Trial], number: int, epoch: int, metric: str, factor: int) -> Decision:
    """Decide on trial `number` at the rung `epoch`, from the scores recorded there so far, its own included.

    It goes on when it is among the best 1/factor of them, rounded up, so that the first to arrive does. Equal scores
    favour the lower number. No side effects.
    """
    scores = rung_scores(trials, epoch, metric)
    own = scores[number]
    rank = 1 + sum(score > own or (score == own and other < number) for other, score in scores.items())
    promoted = -(-len(scores) // factor)
    reason = f"rank {rank} of {len(scores)} at epoch {epoch}, best {promoted} go on"
    return Decision(rank > promoted, reason)
