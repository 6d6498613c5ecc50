"""What a ledger's events add up to: each trial's record, and the state of a sweep after any number
of events.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from search.ledger.spec import SweepSpec

State = Literal["running", "complete", "pruned", "failed"]


class Event(NamedTuple):
    """One line of the ledger."""

    seq: int
    time: float  # seconds since 1970
    kind: str
    trial: int | None
    body: dict[str, Any]


def stored_body(kind: str, body: dict[str, Any]) -> dict[str, Any]:
    """A body as it is written and folded: tables among an epoch's metrics (classes, confusions) as
    text, because a large sweep has tens of thousands of epochs and few of them are ever asked for
    theirs.
    """
    metrics = body["metrics"] if kind == "epoch" else {}
    tables = {name: value for name, value in metrics.items() if isinstance(value, dict | list)}
    if not tables:
        return body
    scalars = {name: value for name, value in metrics.items() if name not in tables}
    return {**body, "metrics": scalars, "tables": as_json(tables)}


def whole_body(body: dict[str, Any]) -> dict[str, Any]:
    """A body as it was appended."""
    if "tables" not in body:
        return body
    rest = {name: value for name, value in body.items() if name != "tables"}
    return {**rest, "metrics": {**body["metrics"], **json.loads(body["tables"])}}


def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@dataclass
class Trial:
    """What the ledger says of one trial."""

    number: int
    params: dict[str, Any]  # as the sampler suggested them
    distributions: dict[str, str]  # Optuna's JSON of each
    settings: dict[str, Any]  # complete, as trained
    suggested: float
    state: State = "running"
    reason: str = ""
    epochs: list[dict[str, Any]] = field(default_factory=list)
    checkpoint: dict[str, Any] | None = None
    earlier_checkpoint: dict[str, Any] | None = (
        None  # the one before it, which is still on the disk
    )
    decided: int = 0  # the last epoch at which it was decided whether it goes on
    ended: float | None = None
    end_order: int | None = None  # how many trials had ended before it
    num_parameters: int | None = None
    queued: str | None = None  # which known good or enqueued point it was
    precision: str | None = None  # that it is trained in; None in ledgers that do not say
    dead_workers: int = 0  # that trained it and nothing else when they died
    is_lost: bool = (
        False  # it failed because its workers died, and nothing is known of its settings
    )

    # Metric -> the epoch that was the last when this was made, scores, best: everyone asks for them
    # all the time.
    _scores: dict[str, tuple[Any, dict[int, float], tuple[int, float]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def add_epoch(self, entry: dict[str, Any]) -> None:
        # Epochs after the last checkpoint are trained again by a resumed trial: the newer report
        # counts.
        while self.epochs and self.epochs[-1]["epoch"] >= entry["epoch"]:
            self.epochs.pop()
        self.epochs.append(entry)

    @property
    def checkpoints(self) -> list[dict[str, Any]]:
        """Those that are on the disk, the newer first."""
        return [found for found in (self.checkpoint, self.earlier_checkpoint) if found is not None]

    def scores(self, metric: str) -> dict[int, float]:
        """Score of each epoch; not to be changed."""
        return self._scored(metric)[1] if self.epochs else {}

    def best(self, metric: str) -> tuple[int, float] | None:
        """Best epoch and its score; the earliest where several are equal."""
        return self._scored(metric)[2] if self.epochs else None

    def metrics(self, epoch: int) -> dict[str, Any]:
        """All metrics of an epoch, the tables among them."""
        body = whole_body(next(entry for entry in self.epochs if entry["epoch"] == epoch))
        return body["metrics"]  # type: ignore[no-any-return]

    def _scored(self, metric: str) -> tuple[Any, dict[int, float], tuple[int, float]]:
        known = self._scores.get(metric)
        if known is None or known[0] is not self.epochs[-1]:
            scores = {entry["epoch"]: entry["metrics"][metric] for entry in self.epochs}
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
            else float(sum(entry["alone_seconds"] for entry in self.epochs))
        )

    @property
    def is_failure(self) -> bool:
        """Whether it failed and its settings may be the reason."""
        return self.state == "failed" and not self.is_lost

    @property
    def copied_from(self) -> int | None:
        """The trial with the same settings that this one's epochs are copied from."""
        return self.epochs[0].get("copied_from") if self.epochs else None


@dataclass
class History:
    """The ledger folded up: the state of a sweep after any number of events."""

    spec: SweepSpec | None = None
    started: float = 0.0
    trials: dict[int, Trial] = field(default_factory=dict)
    priors: list[dict[str, Any]] = field(
        default_factory=list
    )  # of other sweeps, for the sampler alone
    baseline: dict[str, Any] | None = (
        None  # the linear system on the same features (search/results/baseline.py)
    )
    last_close: dict[str, Any] | None = None
    used_s: float = 0.0  # by sessions that ended, killed ones up to their last event
    trained_s: float = (
        0.0  # of all epochs, those included that a killed session's successor trained again
    )
    num_ended: int = 0
    best: tuple[float, int] | None = (
        None  # score and trial, failed ones aside, and those that may not win
    )
    ended_since_best: int = 0  # trials that ended after it was found, without a better one
    data: list[tuple[int, dict[str, Any]]] = field(
        default_factory=list
    )  # how many trials there were before each note about data
    _session_started: float | None = None
    _last_time: float = 0.0

    def apply(self, event: Event) -> None:
        body = event.body
        if event.kind in ("session", "close") and self._session_started is not None:
            self.used_s += (
                event.time if event.kind == "close" else self._last_time
            ) - self._session_started
            self._session_started = None
        if event.kind == "session":
            self._session_started = event.time
        self._last_time = event.time
        match event.kind:
            case "sweep":
                self.spec, self.started = SweepSpec(**body["spec"]), event.time
            case "session":
                # A resumed sweep may have more trials, another budget or another number of workers.
                self.spec, self.last_close = SweepSpec(**body["spec"]), None
            case "prior":
                self.priors.append(body)
            case "baseline":
                self.baseline = body
            case "suggest":
                assert event.trial is not None
                self.trials[event.trial] = Trial(
                    event.trial,
                    body["params"],
                    body["distributions"],
                    body["settings"],
                    event.time,
                    num_parameters=body.get("num_parameters"),
                    queued=body.get("queued"),
                    precision=body.get("precision"),
                )
            case "epoch":
                trial = self._trial(event)
                trial.add_epoch(body)
                self._count_epoch(trial, body)
            case "checkpoint":
                trial = self._trial(event)
                trial.earlier_checkpoint, trial.checkpoint = trial.checkpoint, body
            case "decision":
                self._trial(event).decided = body["epoch"]
            case "end":
                trial = self._trial(event)
                trial.state, trial.reason, trial.ended = body["state"], body["reason"], event.time
                trial.is_lost = body.get("is_lost", False)
                self._count_end(trial)
            case "close":
                self.last_close = body
            case "note" if body.get("about") == "dead worker":
                self.trials[body["trial"]].dead_workers += 1
            case "note" if body.get("about") == "data":
                self.data.append((len(self.trials), body))
                self._begin_again(body.get("restarted", ()))
                if body.get("changed") and not body["only_train_labels"]:
                    self.best, self.ended_since_best = None, 0
            case _:
                pass

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
        if self.best is not None and self.best[1] in numbers:
            self._find_best()

    @property
    def data_changes(self) -> list[tuple[int, dict[str, Any]]]:
        """The notes with what had `changed`, where somebody went on all the same."""
        return [(before, body) for before, body in self.data if body.get("changed")]

    def data_of(self, number: int) -> int:
        """Which data a trial was trained on: 1 for those that the sweep began with, 2 after their
        first change.
        """
        return 1 + sum(
            number >= before or number in body["restarted"] for before, body in self.data_changes
        )

    def may_win(self, number: int) -> bool:
        """Whether a trial's score is of the validation data as they are now, and its weights are
        for these features.
        """
        return all(
            body["only_train_labels"] for _, body in self.data_changes[self.data_of(number) - 1 :]
        )

    def manifest_of(self, number: int) -> str | None:
        """SHA-256 of the manifest that a trial was trained on; None where the ledger does not
        say.
        """
        found = None
        for before, body in self.data:
            if found is None or number >= before or number in body.get("restarted", ()):
                found = str(body["manifest"]["sha256"])
        return found

    def data_account(self) -> list[str]:
        """A sentence for each time that the data were changed."""
        found = []
        for version, (before, body) in enumerate(self.data_changes, start=2):
            scores = (
                ""
                if body["only_train_labels"]
                else "; those before it do not compete for the bundle any more"
            )
            again = (
                f"; begun again on them: {', '.join(map(str, body['restarted']))}"
                if body["restarted"]
                else ""
            )
            found.append(
                f"data {version}, from trial {before} on, are not those that the trials before it"
                f" were trained on ({'; '.join(body['changed'])}){again}{scores}"
            )
        return found

    def _count_epoch(self, trial: Trial, body: dict[str, Any]) -> None:
        if "copied_from" not in body:
            self.trained_s += body["seconds"]
        score = body["metrics"].get(self.spec.metric, -math.inf) if self.spec else -math.inf
        if score > (self.best[0] if self.best else -math.inf):
            self.best, self.ended_since_best = (score, trial.number), 0

    def _count_end(self, trial: Trial) -> None:
        trial.end_order = self.num_ended
        self.num_ended += 1
        was_best = self.best is not None and self.best[1] == trial.number
        self.ended_since_best += not was_best or trial.state == "failed"
        if was_best and trial.state == "failed" and self.spec is not None:
            self._find_best()  # what failed does not win: the best of the others is the best again

    def _find_best(self) -> None:
        assert self.spec is not None
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
