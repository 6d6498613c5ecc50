"""What is tried where a trial runs out of memory, of its machine or of its GPU: fewer trials beside
it, none beside it, each of its batches in two halves. After that it fails.
"""

from collections.abc import Mapping, Sequence

from mmm.training.config import Params
from search.ledger.records import MemoryAttempt
from search.ledger.trial import Trial

WORDS: Mapping[MemoryAttempt, str] = {
    "fewer": "with no new trial beside it",
    "alone": "alone",
    "half": "alone, each batch in two halves",
}


def next_attempt(
    before: MemoryAttempt | None, num_beside: int, settings: Params
) -> MemoryAttempt | None:
    """How a trial is tried next that has run out of memory; None: it is not.

    `before`: how it was tried until now, None as every trial is; `num_beside` trials were in
    training beside it.
    """
    if before is None and num_beside:
        return "fewer"
    # Once in any case: what others than this sweep hold counts too, and passes.
    if before in (None, "fewer"):
        return "alone"
    return "half" if before == "alone" and _has_halves(settings) else None


def batch_parts(attempt: MemoryAttempt | None) -> int:
    """In how many parts each batch is computed; the step is that of the whole batch."""
    return 2 if attempt == "half" else 1


def _has_halves(settings: Params) -> bool:
    size = settings.get("batch_size")
    return settings.get("architecture") != "linear" and isinstance(size, int) and size > 1


class Sparing:
    """Who may begin while trials that ran out of memory are tried again: these come first, one at a
    time, and beside one of them none begins.
    """

    def __init__(self, trials: Mapping[int, Trial]) -> None:
        self._trials = trials
        self._numbers = {number for number, trial in trials.items() if trial.memory_attempt}

    def add(self, number: int) -> None:
        """A trial that is to be tried again."""
        self._numbers.add(number)

    def may_begin(self, waiting: Sequence[int]) -> list[int] | None:
        """Of those `waiting` the one that may begin now, or none; None: any, and new ones."""
        self._numbers = {
            number for number in self._numbers if self._trials[number].state == "running"
        }
        if not self._numbers:
            return None
        if not self._numbers.issubset(waiting):
            return []  # one of them is in training
        number = min(self._numbers)
        has_to_be_alone = self._trials[number].memory_attempt != "fewer"
        return [] if has_to_be_alone and num_in_training(self._trials, waiting) else [number]


def num_in_training(trials: Mapping[int, Trial], waiting: Sequence[int]) -> int:
    """How many trials have begun, have not ended, and do not wait to be trained on."""
    return sum(trial.state == "running" for trial in trials.values()) - len(waiting)
