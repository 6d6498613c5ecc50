"""What a ledger's events say of one trial: its settings, epochs and checkpoints, its score, and how
it ended.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mmm.metrics import Metrics, mean_over_folds
from mmm.training.config import Params
from search.ledger.records import Checkpoint, EndState, Epoch, MemoryAttempt

State = Literal["running"] | EndState


@dataclass
class Trial:
    """What the ledger says of one trial."""

    number: int
    params: Params  # as the sampler suggested them
    distributions: Mapping[str, str]  # Optuna's JSON of each
    settings: Params  # complete, as trained
    suggested: float
    state: State = "running"
    reason: str = ""
    epochs: list[Epoch] = field(default_factory=list)  # of the first fold where there are several
    checkpoint: Checkpoint | None = None
    earlier_checkpoint: Checkpoint | None = None  # the one before it, which is still on the disk
    decided: int = 0  # the last epoch at which it was decided whether it goes on
    ended: float | None = None
    end_order: int | None = None  # how many trials had ended before it
    num_parameters: int | None = None
    queued: str | None = None  # which known good or enqueued point it was
    precision: str | None = None  # that it is trained in; None in ledgers that do not say
    dead_workers: int = 0  # that trained it and nothing else when they died
    lost_nodes: int = 0  # that trained it when they died or were taken away
    memory_attempt: MemoryAttempt | None = None  # how it is tried since it ran out of memory
    # It failed because its workers died, and nothing is known of its settings.
    is_lost: bool = False
    num_folds: int = 1  # its score is the mean over so many
    fold: int = 1  # which of them it is in
    later_folds: dict[int, list[Epoch]] = field(default_factory=dict)  # epochs by fold, from 2 on

    # Metric -> the epoch that was the last when this was made, scores, best: everyone asks for them
    # all the time.
    _scores: dict[str, tuple[Epoch, dict[int, float], tuple[int, float]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _mean: dict[str, tuple[Epoch, tuple[int, float]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def add_epoch(self, entry: Epoch) -> None:
        # Epochs after the last checkpoint are trained again by a resumed trial: the newer report
        # counts.
        epochs = self.epochs if entry.fold == 1 else self.later_folds.setdefault(entry.fold, [])
        while epochs and epochs[-1].epoch >= entry.epoch:
            epochs.pop()
        epochs.append(entry)

    @property
    def epoch(self) -> int:
        """The last one that was reported, of the first fold; 0 before the first."""
        return self.epochs[-1].epoch if self.epochs else 0

    @property
    def folds(self) -> list[list[Epoch]]:
        """Epochs of each fold that was begun, in order."""
        return [fold for fold in (self.epochs, *self.later_folds.values()) if fold]

    @property
    def all_epochs(self) -> list[Epoch]:
        """Of every fold."""
        return [entry for fold in self.folds for entry in fold]

    @property
    def has_trained_fold(self) -> bool:
        """Whether the fold that it is in, of several, is trained to the last epoch."""
        epochs = int(self.settings.get("epochs") or 0)
        return self.num_folds > 1 and self.num_whole_folds(epochs) >= self.fold

    def num_whole_folds(self, epochs: int) -> int:
        """How many folds were trained for so many epochs."""
        return sum(fold[-1].epoch >= epochs for fold in self.folds)

    @property
    def has_all_folds(self) -> bool:
        """Whether it has a mean over the folds: all of them have come as far as the first."""
        return len(self.folds) == self.num_folds and all(
            fold[-1].epoch >= self.epoch for fold in self.folds
        )

    def fold_scores(self, metric: str, num_folds: int) -> dict[int, list[float]]:
        """The scores of the first so many folds after each epoch that all of them have."""
        folds = [
            {one.epoch: one.metrics[metric] for one in fold} for fold in self.folds[:num_folds]
        ]
        shared = [epoch for epoch in folds[0] if all(epoch in fold for fold in folds)]
        return {epoch: [fold[epoch] for fold in folds] for epoch in shared}

    @property
    def architecture(self) -> str:
        """Empty where its settings could not be made."""
        return str(self.settings.get("architecture", ""))

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """Those that are on the disk, the newer first."""
        return [found for found in (self.checkpoint, self.earlier_checkpoint) if found is not None]

    def scores(self, metric: str) -> dict[int, float]:
        """Score of each epoch, of the first fold where there are several; not to be changed."""
        return self._scored(metric)[1] if self.epochs else {}

    def best(self, metric: str) -> tuple[int, float] | None:
        """Best epoch and its score; the earliest where several are equal.

        Over folds: the epoch whose mean is best, and that mean; None before all are trained, for
        the mean of some does not compare with the mean of all.
        """
        if self.num_folds == 1:
            return self._scored(metric)[2] if self.epochs else None
        if not self.has_all_folds:
            return None
        last = self.folds[-1][-1]
        known = self._mean.get(metric)
        if known is None or known[0] is not last:
            known = last, best_mean(self.fold_scores(metric, self.num_folds))
            self._mean[metric] = known
        return known[1]

    def metrics(self, epoch: int) -> Metrics:
        """All metrics of an epoch, the tables among them; over folds their means."""
        folds = self.folds if self.has_all_folds else self.folds[:1]
        found = [
            next(entry for entry in fold if entry.epoch == epoch).all_metrics for fold in folds
        ]
        return found[0] if len(found) == 1 else mean_over_folds(found)

    def _scored(self, metric: str) -> tuple[Epoch, dict[int, float], tuple[int, float]]:
        known = self._scores.get(metric)
        if known is None or known[0] is not self.epochs[-1]:
            scores = {entry.epoch: entry.metrics[metric] for entry in self.epochs}
            known = (
                self.epochs[-1],
                scores,
                max(scores.items(), key=lambda pair: (pair[1], -pair[0])),
            )
            self._scores[metric] = known
        return known

    @property
    def alone_seconds(self) -> float:
        return (
            0.0
            if self.copied_from is not None
            else float(sum(entry.alone_seconds for entry in self.all_epochs))
        )

    @property
    def is_failure(self) -> bool:
        """Whether it failed and its settings may be the reason."""
        return self.state == "failed" and not self.is_lost

    @property
    def copied_from(self) -> int | None:
        """The trial with the same settings that this one's epochs are copied from."""
        return self.epochs[0].copied_from if self.epochs else None


def best_mean(scores: Mapping[int, Sequence[float]]) -> tuple[int, float]:
    """The epoch whose mean over folds is best, the earliest of equal ones, and that mean."""
    means = {epoch: sum(values) / len(values) for epoch, values in scores.items()}
    return max(means.items(), key=lambda pair: (pair[1], -pair[0]))


class Trials(dict[int, Trial]):
    """A sweep's trials by number, and which of them something was written down of, in that order:
    whoever derives something from them need not look at each whenever one has changed.
    """

    def __init__(self, trials: Mapping[int, Trial] | None = None) -> None:
        super().__init__(trials or {})
        self.touched = list(self)

    def touch(self, number: int) -> None:
        if not self.touched or self.touched[-1] != number:
            self.touched.append(number)


def touched_since(trials: Mapping[int, Trial], place: int) -> tuple[Iterable[int], int]:
    """The trials that may have changed since `place`, in the order of their numbers, and the place
    to ask from the next time; of a mapping that does not know, all of them.
    """
    if not isinstance(trials, Trials):
        return trials, 0
    # The last one may have been touched again.
    return sorted(set(trials.touched[max(0, place - 1) :])), len(trials.touched)
