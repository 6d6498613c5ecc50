"""What a ledger's events add up to: each trial's record, and the state of a sweep after any number
of events.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Self

from mmm.metrics import Metrics, mean_over_folds
from mmm.training.config import Params
from search.ledger.records import (
    Baseline,
    Checkpoint,
    ClockMoved,
    Close,
    DataNote,
    DeadWorker,
    End,
    EndState,
    Epoch,
    FoldDecision,
    LostNode,
    MemoryAttempt,
    OpenedTest,
    OutOfMemory,
    Prior,
    Record,
    RungDecision,
    ScoredOnTest,
    Session,
    SpaceNote,
    Suggestion,
    Sweep,
)
from search.ledger.spec import SweepSpec

State = Literal["running"] | EndState


class Event(NamedTuple):
    """One line of the ledger."""

    seq: int
    time: float  # seconds since 1970
    trial: int | None
    body: Record

    @property
    def kind(self) -> str:
        return self.body.kind


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
    is_lost: bool = (
        False  # it failed because its workers died, and nothing is known of its settings
    )
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


@dataclass
class History:
    """The ledger folded up: the state of a sweep after any number of events."""

    spec: SweepSpec
    started: float
    trials: dict[int, Trial] = field(default_factory=dict)
    priors: list[Prior] = field(default_factory=list)  # of other sweeps, for the sampler alone
    baseline: Baseline | None = None
    last_close: Close | None = None
    used_s: float = 0.0  # by sessions that ended, killed ones up to their last event
    trained_s: float = (
        0.0  # of all epochs, those included that a killed session's successor trained again
    )
    num_ended: int = 0
    best: tuple[float, int] | None = (
        None  # score and trial, failed ones aside, and those that may not win
    )
    ended_since_best: int = 0  # trials that ended after it was found, without a better one
    data: list[tuple[int, DataNote]] = field(
        default_factory=list
    )  # how many trials there were before each note about data
    spaces: list[tuple[int, SpaceNote]] = field(
        default_factory=list
    )  # each other file of the space, and how many trials there were before it
    # When the test split was opened for finalists, and for which.
    opened_test: list[tuple[float, OpenedTest]] = field(default_factory=list)
    test_scores: dict[int, Mapping[str, float]] = field(default_factory=dict)  # by trial
    sessions: list[tuple[float, Session]] = field(default_factory=list)  # with when they began
    closes: list[tuple[float, Close]] = field(default_factory=list)  # of those that were not killed
    dead: list[tuple[float, DeadWorker]] = field(default_factory=list)
    _session_started: float | None = None
    _last_time: float = 0.0

    @classmethod
    def of(cls, events: Iterable[Event]) -> Self | None:
        """What they add up to; None where the first is not a sweep's specification."""
        first, *others = events
        if not isinstance(first.body, Sweep):
            return None
        history = cls(first.body.spec, first.time, _last_time=first.time)
        for event in others:
            history.apply(event)
        return history

    def apply(self, event: Event) -> None:
        body = event.body
        match body:
            case Epoch():
                trial = self._trial(event)
                trial.add_epoch(body)
                self._count_epoch(trial, body)
            case Checkpoint():
                trial = self._trial(event)
                trial.earlier_checkpoint, trial.checkpoint = trial.checkpoint, body
            case RungDecision():
                self._trial(event).decided = body.epoch
            case FoldDecision():
                trial = self._trial(event)
                if body.action == "continue":
                    trial.fold = body.fold + 1
                    trial.checkpoint = trial.earlier_checkpoint = None
            case End():
                trial = self._trial(event)
                trial.state, trial.reason, trial.ended = body.state, body.reason, event.time
                trial.is_lost = body.is_lost
                self._count_end(trial)
            case Suggestion():
                assert event.trial is not None
                self.trials[event.trial] = Trial(
                    event.trial,
                    body.params,
                    body.distributions,
                    body.settings,
                    event.time,
                    num_parameters=body.num_parameters,
                    queued=body.queued,
                    precision=body.precision,
                    num_folds=self.spec.folds or 1,
                )
            case Session():
                # A resumed sweep may have more trials, another budget or another number of workers.
                self.spec, self.last_close = body.spec, None
                self._end_session(self._last_time)  # of a driver that died
                self._session_started = event.time
                self.sessions.append((event.time, body))
            case Close():
                self.last_close = body
                self.closes.append((event.time, body))
                self._end_session(event.time)
            case Prior():
                self.priors.append(body)
            case Baseline():
                self.baseline = body
            case DeadWorker():
                self.trials[body.trial].dead_workers += 1
                self.dead.append((event.time, body))
            case OpenedTest():
                self.opened_test.append((event.time, body))
            case ScoredOnTest():
                self.test_scores[body.trial] = body.metrics
            case LostNode():
                self.trials[body.trial].lost_nodes += 1
            case OutOfMemory():
                self.trials[body.trial].memory_attempt = body.attempt
            case SpaceNote():
                self.spaces.append((len(self.trials), body))
            case ClockMoved():
                if self._session_started is not None:
                    self._session_started += body.seconds
            case DataNote():
                self.data.append((len(self.trials), body))
                self._begin_again(body.restarted)
                if body.changed and not body.only_train_labels:
                    self.best, self.ended_since_best = None, 0
            case _:
                pass
        self._last_time = event.time

    def _end_session(self, when: float) -> None:
        if self._session_started is not None:
            self.used_s += when - self._session_started
            self._session_started = None

    @property
    def session_started(self) -> float | None:
        """Of the session that has not ended; None where there is none."""
        return self._session_started

    def _begin_again(self, numbers: Sequence[int]) -> None:
        """Trials that were interrupted, and whose data were changed: what they had is of no use."""
        for number in numbers:
            trial = self.trials[number]
            trial.epochs, trial.checkpoint, trial.earlier_checkpoint, trial.decided = (
                [],
                None,
                None,
                0,
            )
            trial.later_folds, trial.fold = {}, 1
        if self.best is not None and self.best[1] in numbers:
            self._find_best()

    @property
    def data_changes(self) -> list[tuple[int, DataNote]]:
        """The notes with what had `changed`, where somebody went on all the same."""
        return [(before, note) for before, note in self.data if note.changed]

    def data_of(self, number: int) -> int:
        """Which data a trial was trained on: 1 for those that the sweep began with, 2 after their
        first change.
        """
        return 1 + sum(
            number >= before or number in note.restarted for before, note in self.data_changes
        )

    def may_win(self, number: int) -> bool:
        """Whether a trial's score is of the validation data as they are now, and its weights are
        for these features.
        """
        return all(
            note.only_train_labels for _, note in self.data_changes[self.data_of(number) - 1 :]
        )

    def manifest_of(self, number: int) -> str | None:
        """SHA-256 of the manifest that a trial was trained on; None where the ledger does not
        say.
        """
        found = None
        for before, note in self.data:
            if found is None or number >= before or number in note.restarted:
                found = note.manifest.sha256
        return found

    def data_account(self) -> list[str]:
        """A sentence for each time that the data were changed."""
        found = []
        for version, (before, note) in enumerate(self.data_changes, start=2):
            scores = (
                ""
                if note.only_train_labels
                else "; those before it do not compete for the bundle any more"
            )
            again = (
                f"; begun again on them: {', '.join(map(str, note.restarted))}"
                if note.restarted
                else ""
            )
            found.append(
                f"data {version}, from trial {before} on, are not those that the trials before it"
                f" were trained on ({'; '.join(note.changed)}){again}{scores}"
            )
        return found

    def space_account(self) -> list[str]:
        """A sentence for each time that the file of the space was changed."""
        return [
            f"the space was changed before trial {before}: {now.space} has another text (SHA-256"
            f" {now.sha256[:16]}..., before {was.sha256[:16]}...); trials before it stay as they"
            " are"
            for (_, was), (before, now) in itertools.pairwise(self.spaces)
        ]

    def _count_epoch(self, trial: Trial, entry: Epoch) -> None:
        if entry.copied_from is None:
            self.trained_s += entry.seconds
        if trial.num_folds == 1:
            score = entry.metrics.get(self.spec.metric, -math.inf)
        elif (best := trial.best(self.spec.metric)) is not None:
            score = best[1]
        else:
            return
        if score > (self.best[0] if self.best else -math.inf):
            self.best, self.ended_since_best = (score, trial.number), 0

    def _count_end(self, trial: Trial) -> None:
        trial.end_order = self.num_ended
        self.num_ended += 1
        was_best = self.best is not None and self.best[1] == trial.number
        self.ended_since_best += not was_best or trial.state == "failed"
        if was_best and trial.state == "failed":
            self._find_best()  # what failed does not win: the best of the others is the best again

    def _find_best(self) -> None:
        first = next(
            (
                other
                for other in self.ranked(self.spec.metric)
                if other.state != "failed" and self.may_win(other.number)
            ),
            None,
        )
        found = first.best(self.spec.metric) if first else None
        self.best = (found[1], first.number) if first and found else None

    def _trial(self, event: Event) -> Trial:
        assert event.trial is not None
        return self.trials[event.trial]

    def ranked(self, metric: str) -> list[Trial]:
        """Trials that have a score, best first; failed ones are last."""
        scored = [
            (trial.state == "failed", -best[1], trial.number)
            for trial in self.trials.values()
            if (best := trial.best(metric))
        ]
        return [self.trials[number] for _, _, number in sorted(scored)]
