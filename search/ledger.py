"""The ledger: one append-only record of everything that happened in a sweep. All else is rebuilt from it.

`runs/NAME/ledger.sqlite`, a table of events in the order they happened, in WAL mode with full sync and one writer:
an event is on the disk before it is acted on.

kind        trial  body
sweep       -      the frozen specification (search.config.SweepSpec) and versions
session     -      host, process, options of this start (run or resume)
suggest     n      params, their distributions, complete settings
epoch       n      epoch, train_loss, metrics, seconds, alone_seconds, ended (worker's clock)
checkpoint  n      epoch, path, sha256
decision    n      epoch, action (continue or stop), reason
end         n      state (complete, pruned or failed), reason, traceback where it failed
close       -      why this session ended (done, time budget, interrupted), efficiency
note        -      anything a person should find later (exports, removed weights)
"""

import fcntl
import json
import os
import socket
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from search.config import SweepSpec

State = Literal["running", "complete", "pruned", "failed"]
Entry = tuple[str, int | None, dict[str, Any]]  # kind, trial, body


class LedgerError(ValueError):
    """A ledger that cannot be read or is held by someone else."""


@dataclass(frozen=True)
class Event:
    """One line of the ledger."""

    seq: int
    time: float  # seconds since 1970
    kind: str
    trial: int | None
    body: dict[str, Any]


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
    decided: int = 0  # the last epoch at which it was decided whether it goes on
    ended: float | None = None

    def scores(self, metric: str) -> dict[int, float]:
        """Score of each epoch."""
        return {entry["epoch"]: entry["metrics"][metric] for entry in self.epochs}

    def best(self, metric: str) -> tuple[int, float] | None:
        """Best epoch and its score; the earliest where several are equal."""
        scores = self.scores(metric)
        return max(scores.items(), key=lambda pair: (pair[1], -pair[0])) if scores else None

    @property
    def alone_seconds(self) -> float:
        return float(sum(entry["alone_seconds"] for entry in self.epochs))


@dataclass
class History:
    """The ledger folded up: the state of a sweep after any number of events."""

    spec: SweepSpec | None = None
    started: float = 0.0
    trials: dict[int, Trial] = field(default_factory=dict)
    last_close: dict[str, Any] | None = None
    used_s: float = 0.0  # by sessions that ended, killed ones up to their last event
    _session_started: float | None = None
    _last_time: float = 0.0

    def apply(self, event: Event) -> None:
        body = event.body
        if event.kind in ("session", "close") and self._session_started is not None:
            self.used_s += (event.time if event.kind == "close" else self._last_time) - self._session_started
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
            case "suggest":
                assert event.trial is not None
                self.trials[event.trial] = Trial(
                    event.trial, body["params"], body["distributions"], body["settings"], event.time
                )
            case "epoch":
                trial = self._trial(event)
                # Epochs after the last checkpoint are trained again by a resumed trial: the newer report counts.
                trial.epochs = [entry for entry in trial.epochs if entry["epoch"] < body["epoch"]] + [body]
            case "checkpoint":
                self._trial(event).checkpoint = body
            case "decision":
                self._trial(event).decided = body["epoch"]
            case "end":
                trial = self._trial(event)
                trial.state, trial.reason, trial.ended = body["state"], body["reason"], event.time
            case "close":
                self.last_close = body
            case _:
                pass

    def _trial(self, event: Event) -> Trial:
        assert event.trial is not None
        return self.trials[event.trial]

    def ranked(self, metric: str) -> list[Trial]:
        """Trials that have a score, best first; failed ones are last."""
        scored = [
            (trial.state == "failed", -best[1], trial.number) for trial in self.trials.values() if (best := trial.best(metric))
        ]
        return [self.trials[number] for _, _, number in sorted(scored)]


def read_events(path: Path, after: int = 0) -> Iterator[Event]:
    """The events with a number above `after`, without writing anything."""
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=30)
        try:
            for seq, when, kind, trial, body in connection.execute(
                "SELECT seq, time, kind, trial, body FROM events WHERE seq > ? ORDER BY seq", (after,)
            ):
                yield Event(seq, when, kind, trial, json.loads(body))
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        raise LedgerError(f"{path}: cannot be read as a ledger ({error})") from None


def read_history(path: Path) -> History:
    """The state of a sweep. Raises LedgerError."""
    history = History()
    for event in read_events(path):
        history.apply(event)
    if history.spec is None:
        raise LedgerError(f"{path}: an empty ledger: the sweep never started; remove its folder")
    return history


class Ledger:
    """The writer. Use it in a `with` block; only one process holds a sweep's ledger at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "ledger.sqlite"
        self.history = History()

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.folder / "lock", "a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.seek(0)
            holder = self._lock.read().strip() or "another process"
            self._lock.close()
            raise LedgerError(
                f"sweep {self.folder.name!r} is being run by {holder}; wait for it, or choose another --name"
            ) from None
        self._lock.truncate(0)
        self._lock.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        self._lock.flush()
        self._connection = sqlite3.connect(self.path, isolation_level=None)
        try:
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS events (seq INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, "
                "kind TEXT NOT NULL, trial INTEGER, body TEXT NOT NULL) STRICT"
            )
            for event in read_events(self.path):
                self.history.apply(event)
        except sqlite3.DatabaseError as error:
            self.__exit__()
            raise LedgerError(f"{self.path}: cannot be read as a ledger ({error})") from None
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._lock.truncate(0)
        self._lock.close()

    def append(self, *entries: Entry) -> None:
        """Record (kind, trial, body) entries in one synced transaction, then fold them into the history."""
        now = time.time()
        events = []
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            for kind, trial, body in entries:
                cursor = self._connection.execute(
                    "INSERT INTO events (time, kind, trial, body) VALUES (?, ?, ?, ?)",
                    (now, kind, trial, json.dumps(body, ensure_ascii=False)),
                )
                events.append(Event(cursor.lastrowid or 0, now, kind, trial, body))
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        for event in events:
            self.history.apply(event)
