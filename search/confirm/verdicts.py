"""Better, tie or worse: what a difference of two systems lets one say."""

from typing import Literal

from mmm.metrics import LEVEL
from search.confirm.statistics import Difference

Verdict = Literal["better", "tie", "worse", "cannot be told"]
MOST_WINS = 0.75  # Bouthillier et al. 2021, arXiv:2103.03098: what beats another less often ties
ALPHA = 1 - LEVEL


def verdict_of(found: Difference | None, p: float | None) -> Verdict:
    """How the first of two systems stands to the second; `p` is corrected for how many were
    compared. None where the units were too few.

    Better only where all three say so: the interval leaves out 0, p is small, and one run beats
    another often enough.
    """
    if found is None or p is None:
        return "cannot be told"
    if p > ALPHA:
        return "tie"
    if found.interval.low > 0 and found.wins >= MOST_WINS:
        return "better"
    if found.interval.high < 0 and found.wins <= 1 - MOST_WINS:
        return "worse"
    return "tie"
