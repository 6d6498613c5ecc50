"""ASHA (Li et al. 2020, arXiv:1810.05934), its stopping form, as a plain function of what was
recorded.

Trials are compared by the final score that is expected of them (search/suggest/curve_model.py) as
soon as anything is: some systems learn slowly and end best, and one epoch's score is noisy. The
best so far goes on whatever is expected of it: a model of learning curves may be wrong about the
very trial that leads, and that is the one which would be exported.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from search.ledger.trial import Trial

_MAX_RIVALS = 400


@dataclass(frozen=True)
class Decision:
    """Whether a trial goes on after an epoch, and why."""

    stop: bool
    reason: str


def rivals(reached: Sequence[int], number: int) -> Sequence[int]:
    """The trials that trial `number` is compared with at a rung, itself among them: all that
    `reached` it, or many evenly spread.
    """
    if len(reached) <= _MAX_RIVALS:
        return reached
    spread = reached[:: -(-len(reached) // _MAX_RIVALS)]
    return spread if number in spread else [*spread, number]


def rung_scores(trials: Mapping[int, Trial], rung: int, metric: str) -> dict[int, float]:
    """Score of every trial that reached `rung`: its best so far, which is what its bundle would
    have.
    """
    found = {number: rung_score(trial, rung, metric) for number, trial in trials.items()}
    return {number: score for number, score in found.items() if score is not None}


def rung_score(trial: Trial, rung: int, metric: str) -> float | None:
    """A trial's best score up to a rung; None where it has not reached it."""
    if trial.epoch < rung:
        return None
    return max(
        (score for epoch, score in trial.scores(metric).items() if epoch <= rung), default=None
    )


def _leader(trials: Mapping[int, Trial], rung: int, metric: str) -> int | None:
    scores = rung_scores(
        {number: trial for number, trial in trials.items() if trial.state != "failed"}, rung, metric
    )
    return max(scores, key=lambda number: (scores[number], -number), default=None)


def decide(
    trials: Mapping[int, Trial],
    number: int,
    epoch: int,
    metric: str,
    factor: int,
    expected: Mapping[int, float] | None = None,
    leader: int | None = None,
) -> Decision:
    """Decide on trial `number` at the rung `epoch`, from the scores recorded there so far, its own
    included.

    `expected`: the final score expected of it and of each of its rivals; without it their scores at
    the rung are compared. It goes on when it is among the best 1/factor of them, rounded up, so
    that the first to arrive does; and when its own score is the best so far of all trials at the
    rung, which makes it the `leader`; None: it is looked for. Equal scores favour the lower number,
    and what failed does not lead. No side effects.
    """
    scores = rung_scores(trials, epoch, metric) if expected is None else expected
    own = scores[number]
    rank = 1 + sum(
        score > own or (score == own and other < number) for other, score in scores.items()
    )
    promoted = -(-len(scores) // factor)
    by = "" if expected is None else f" by the {metric} expected at the end ({own:.4f})"
    reason = f"rank {rank} of {len(scores)} at epoch {epoch}{by}, best {promoted} go on"
    if rank <= promoted:
        return Decision(False, reason)
    if (_leader(trials, epoch, metric) if leader is None else leader) == number:
        there = rung_score(trials[number], epoch, metric)
        return Decision(
            False, f"{reason}, and so does the best {metric} so far at epoch {epoch} ({there:.4f})"
        )
    return Decision(True, reason)
