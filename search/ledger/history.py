"""What a ledger's events add up to: the state of a sweep after any number of them."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from search.ledger.records import (
    Baseline,
    Checkpoint,
    ClockMoved,
    Close,
    DataNote,
    DeadWorker,
    End,
    Epoch,
    Event,
    FoldDecision,
    LostNode,
    OpenedTest,
    OutOfMemory,
    Prior,
    RungDecision,
    ScoredOnTest,
    Session,
    SpaceNote,
    Suggestion,
    Sweep,
)
from search.ledger.spec import SweepSpec
from search.ledger.trial import Trial, Trials


@dataclass
class History:
    """The ledger folded up: the state of a sweep after any number of events."""

    spec: SweepSpec
    started: float
    trials: Trials = field(default_factory=Trials)
    priors: list[Prior] = field(default_factory=list)  # of other sweeps, for the sampler alone
    baseline: Baseline | None = None
    last_close: Close | None = None
    used_s: float = 0.0  # by sessions that ended, killed ones up to their last event
    # Of all epochs, those included that a killed session's successor trained again.
    trained_s: float = 0.0
    num_ended: int = 0
    # Score and trial, failed ones aside, and those that may not win.
    best: tuple[float, int] | None = None
    ended_since_best: int = 0  # trials that ended after it was found, without a better one
    # How many trials there were before each note about data.
    data: list[tuple[int, DataNote]] = field(default_factory=list)
    # Each other file of the space, and how many trials there were before it.
    spaces: list[tuple[int, SpaceNote]] = field(default_factory=list)
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
        if event.trial is not None:
            self.trials.touch(event.trial)
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
            self.trials.touch(number)
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
