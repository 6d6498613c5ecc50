"""The ledger: one append-only record of everything that happened in a sweep. All else is rebuilt
from it.

`runs/NAME/ledger.sqlite`, a table of events in the order they happened, in WAL mode with full sync
and one writer: an event is on the disk before it is acted on. Events are numbered without a gap,
and each carries a checksum of itself and all before it: SQLite has none of its own, and a byte that
flips must not change what a sweep was. A write-ahead log that was cut short ends with its last
whole transaction; any other damage is refused.

kind        trial  body
sweep       -      the frozen specification (search.ledger.spec.SweepSpec) and versions
prior       -      a trial of another sweep to learn from: source, params, distributions, scores by
                   epoch, seconds of an epoch
session     -      host, process, options of this start (run or resume)
baseline    -      the linear system on the same features: settings, metrics, seconds,
                   num_parameters, sha256 of its bundle, data_changes
suggest     n      params, their distributions, complete settings, num_parameters, precision, queued
                   (which point of the queue it was)
epoch       n      epoch, train_loss, metrics, seconds, alone_seconds, ended (worker's clock);
                   copied_from where another trial had
                   the same settings and nothing was trained
checkpoint  n      epoch, path, sha256
decision    n      epoch, action (continue or stop), reason
end         n      state (complete, pruned or failed), reason, traceback where it failed, is_lost
                   where it did because its workers died
close       -      why this session ended (done, time budget, interrupted, broken off: and the
                   reason), efficiency
note        -      anything a person should find later (warnings, packs); about a dead worker: trial
                   (the only one it trained), reason; about data: what each session trains on
                   (search/ledger/data.py), what of it had changed, and which trials began again
"""

import contextlib
import gc
import json
import re
import sqlite3
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from search.ledger.history import Event, History, as_json, stored_body, whole_body
from search.ledger.lock import Lock, LockError

FORMAT = 1  # SQLite's user_version
_TABLE = """CREATE TABLE events (seq INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL,
kind TEXT NOT NULL, trial INTEGER,
body TEXT NOT NULL, checksum INTEGER NOT NULL) STRICT"""
_NOT_DAMAGE = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOMEM,
)
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_BATCH = 1000  # events parsed together, so that they share the names in them

Entry = tuple[str, int | None, dict[str, Any]]  # kind, trial, body


class LedgerError(ValueError):
    """A ledger that cannot be read or is held by someone else."""


def _checksum(before: int, seq: Any, when: Any, kind: Any, trial: Any, body: bytes) -> int:
    """Of an event and, by `before`, of all events before it."""
    return zlib.crc32(body, zlib.crc32(b"%r %r %r %r " % (seq, when, kind, trial), before))


def _damaged(path: Path, what: str) -> LedgerError:
    return LedgerError(
        f"{path}: {what}; the file is damaged: restore it from a copy, or start anew under another"
        " --name"
    )


def _read(path: Path, after: int) -> Iterator[tuple[Event, int]]:
    """Events with their checksums. Raises LedgerError where anything was changed or is missing."""
    if path.is_file() and path.stat().st_size == 0:
        log = path.with_name(path.name + "-wal")
        if log.is_file() and log.stat().st_size > 0:  # SQLite would remove it
            raise _damaged(path, f"is empty, but {log.name} is not")
        return  # its writer died before the first byte
    last = after
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=30)
        ) as connection:
            connection.isolation_level = None
            connection.text_factory = bytes
            connection.execute("BEGIN")  # one state for all that follows
            (found,) = connection.execute("PRAGMA user_version").fetchone()
            if found != FORMAT:
                if (
                    found == 0
                    and connection.execute("SELECT name FROM sqlite_schema").fetchone() is None
                ):
                    return  # its writer died before the first transaction
                raise LedgerError(
                    f"{path}: a ledger of format {found}, this version of mmm-search reads and"
                    f" writes {FORMAT}; go on with the version that made it, or start anew under"
                    " another --name"
                )
            rows = connection.execute(
                "SELECT seq, time, kind, trial, body, checksum FROM events WHERE seq >= ? ORDER"
                " BY seq",
                (after,),
            )
            checksum = 0
            if after > 0:
                first = rows.fetchone()
                if first is None or first[0] != after:
                    raise _damaged(path, f"event {after} is missing")
                checksum = first[5]
            while batch := rows.fetchmany(_BATCH):
                for seq, when, kind, trial, body, found in batch:
                    if seq != last + 1:
                        raise _damaged(path, f"event {last + 1} is missing (the next is {seq})")
                    checksum = (
                        _checksum(checksum, seq, when, kind, trial, body)
                        if isinstance(body, bytes)
                        else -1
                    )
                    if checksum != found:
                        raise _damaged(path, f"event {seq} is not what was written")
                    last = seq
                bodies = json.loads(b"[%b]" % b",".join([row[4] for row in batch]))
                for (seq, when, kind, trial, _, found), body in zip(batch, bodies, strict=True):
                    yield Event(seq, when, kind.decode(), trial, body), found
            (count,) = connection.execute(
                "SELECT seq FROM sqlite_sequence WHERE name = 'events'"
            ).fetchone() or (0,)
            if count != last:
                raise _damaged(path, f"ends with event {last} instead of {count}")
    except (
        sqlite3.DatabaseError,
        UnicodeDecodeError,
    ) as error:  # the second where SQLite quotes damaged bytes
        what = f"cannot be read as a ledger (after event {last}: {error})"
        if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF in _NOT_DAMAGE:
            raise LedgerError(f"{path}: {what}") from None
        raise _damaged(path, what) from None


def read_events(path: Path, after: int = 0) -> Iterator[Event]:
    """The events with a number above `after`, without writing anything. Raises LedgerError."""
    return (event._replace(body=whole_body(event.body)) for event, _ in _read(path, after))


@contextlib.contextmanager
def _without_collecting() -> Iterator[None]:
    # A million small dictionaries without a cycle: looking for cycles in them makes loading half as
    # fast.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def read_history(path: Path) -> History:
    """The state of a sweep. Raises LedgerError."""
    history = History()
    with _without_collecting():
        for event, _ in _read(path, 0):
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
        self.lock = Lock(folder / "lock")
        self._last, self._checksum = 0, 0  # of the last event

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self.lock.acquire()
        except LockError as error:
            raise LedgerError(
                f"sweep {self.folder.name!r} is being run by {error}; wait for it, or choose"
                " another --name"
            ) from None
        try:
            # Read before it is opened for writing: what is refused stays as it is.
            if self.path.is_file():
                with _without_collecting():
                    for event, checksum in _read(self.path, 0):
                        self.history.apply(event)
                        self._last, self._checksum = event.seq, checksum
            self._connection = self._open()
        except BaseException:
            self.lock.release()
            raise
        return self

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, timeout=30)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            (fault,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if fault != "ok":
                raise _damaged(self.path, f"cannot be written to ({' '.join(fault.split())})")
            connection.execute("BEGIN IMMEDIATE")
            if connection.execute("PRAGMA user_version").fetchone() == (0,):
                connection.execute(_TABLE)
            connection.execute(
                f"PRAGMA user_version={FORMAT}"
            )  # each time: what cannot be written to is known now
            connection.execute("COMMIT")
        except BaseException as error:
            connection.close()
            if isinstance(error, sqlite3.DatabaseError):
                raise LedgerError(f"{self.path}: cannot be written to ({error})") from None
            raise
        return connection

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self.lock.release()

    def append(self, *entries: Entry) -> None:
        """Record (kind, trial, body) entries in one synced transaction, then fold them into the
        history.
        """
        now = time.time()
        events, checksum = [], self._checksum
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            for seq, (kind, trial, body) in enumerate(entries, start=self._last + 1):
                stored = stored_body(kind, body)
                text = as_json(stored)
                if _HALF_CHARACTER.search(
                    text
                ):  # in what a space raised, or a file is called: no file can hold it
                    text = text.encode(errors="replace").decode()
                    stored = json.loads(text)
                checksum = _checksum(checksum, seq, now, kind.encode(), trial, text.encode())
                # With its number: had another process written in spite of the lock, SQLite would
                # refuse it.
                row = (seq, now, kind, trial, text, checksum)
                self._connection.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", row)
                events.append(Event(seq, now, kind, trial, stored))
            self._connection.execute("COMMIT")
        except BaseException as error:
            if self._connection.in_transaction:  # SQLite ends it itself where the disk is full
                self._connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.IntegrityError):
                raise LedgerError(
                    f"{self.path}: another process writes to it as well; this one stops"
                ) from None
            raise
        self._last, self._checksum = self._last + len(events), checksum
        for event in events:
            self.history.apply(event)
