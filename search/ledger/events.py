"""The ledger: one append-only record of everything that happened in a sweep. All else is rebuilt
from it.

`runs/NAME/ledger.sqlite`, a table of events in the order they happened, in WAL mode with full sync
and one writer: an event is on the disk before it is acted on. Events are numbered without a gap,
and each carries a checksum of itself and all before it: SQLite has none of its own, and a byte that
flips must not change what a sweep was. A write-ahead log that was cut short ends with its last
whole transaction; any other damage is refused. What there is of events: search/ledger/records.py.
"""

import contextlib
import gc
import os
import re
import shutil
import sqlite3
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmm.files import parse_json
from search.ledger.files import command_for
from search.ledger.history import History
from search.ledger.lock import Lock, LockError
from search.ledger.record_json import body_of, record_of
from search.ledger.records import (
    ClockMoved,
    Event,
    Prior,
    Sweep,
    SweepRecord,
    TrialRecord,
    as_json,
)
from search.ledger.spec import SweepSpec

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
_NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR)
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_CLOCK_S = 10.0  # by which the machine's clock may be moved without a word
_BATCH = 1000  # events parsed together, so that they share the names in them

Entry = SweepRecord | tuple[int, TrialRecord]  # the latter with the trial's number


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
        with (
            _address(path) as address,
            contextlib.closing(sqlite3.connect(address, uri=True, timeout=30)) as connection,
        ):
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
                try:
                    bodies = parse_json(f"[{','.join([row[4].decode() for row in batch])}]")
                except ValueError as error:
                    raise _damaged(path, f"holds what is no JSON ({error})") from None
                for (seq, when, kind, trial, _, found), body in zip(batch, bodies, strict=True):
                    try:
                        record = record_of(kind.decode(), body)
                    except (AttributeError, KeyError, TypeError, ValueError) as error:
                        raise LedgerError(
                            f"{path}: event {seq} ({kind.decode()}) is none that this version of"
                            f" mmm-search reads ({error}); go on with the version that wrote it, or"
                            " start anew under another --name"
                        ) from None
                    yield Event(seq, when, trial, record), found
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


@contextlib.contextmanager
def _address(path: Path) -> Iterator[str]:
    """What SQLite reads a ledger by. Beside one with a log it writes a file, also to read it."""
    log = path.with_name(path.name + "-wal")
    if not path.is_file() or os.access(path.parent, os.W_OK):
        yield f"{path.resolve().as_uri()}?mode=ro"
    elif not (log.is_file() and log.stat().st_size):
        yield f"{path.resolve().as_uri()}?immutable=1"
    else:  # in a folder that can only be read
        with tempfile.TemporaryDirectory(prefix="mmm-search-") as folder:
            for file in (path, log):
                shutil.copyfile(file, Path(folder) / file.name)
            yield f"{(Path(folder) / path.name).as_uri()}?mode=ro"


def read_events(path: Path, after: int = 0) -> Iterator[Event]:
    """The events with a number above `after`, without writing anything. Raises LedgerError."""
    return (event for event, _ in _read(path, after))


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


def _load(path: Path) -> tuple[History | None, int, int]:
    """The state of a sweep, None where its file holds none yet, and the number and checksum of its
    last event.
    """
    history: History | None = None
    last = checksum = 0
    with _without_collecting():
        for event, checksum in _read(path, 0):  # noqa: B007
            last = event.seq
            if history is not None:
                history.apply(event)
            elif (history := History.of([event])) is None:
                raise LedgerError(f"{path}: begins with {event.kind} instead of a specification")
    return history, last, checksum


def _empty(path: Path) -> LedgerError:
    return LedgerError(f"{path}: an empty ledger: the sweep never started; remove its folder")


def read_history(path: Path) -> History:
    """The state of a sweep. Raises LedgerError."""
    history, _, _ = _load(path)
    if history is None:
        raise _empty(path)
    return history


class Ledger:
    """The one writer of a sweep that began: made by `create_sweep` or `open_sweep`, and closed by
    them.
    """

    def __init__(
        self,
        folder: Path,
        lock: Lock,
        connection: sqlite3.Connection,
        history: History,
        last: int,
        checksum: int,
    ) -> None:
        """`last` and `checksum` are of the last event."""
        self.folder, self.path, self.lock, self.history = folder, _file(folder), lock, history
        self._connection, self._last, self._checksum = connection, last, checksum
        self._clock = time.time() - time.monotonic()
        self._file = _identity(self.path)

    def append(self, *entries: Entry) -> None:
        """Record entries in one synced transaction, then fold them into the history. Raises
        LedgerError where that cannot be, or the ledger is not at its place any more: what others
        write by its path, weights and reports, would lie elsewhere.
        """
        if _identity(self.path) != self._file:
            raise LedgerError(
                f"{self.path}: was moved or removed while the sweep ran; move its folder back, with"
                " what was written at its place since, then go on with:"
                f" {command_for('resume', self.folder)}"
            )
        clock = time.time() - time.monotonic()
        if abs(moved := clock - self._clock) > _CLOCK_S:
            self._clock = clock
            entries = (ClockMoved(round(moved, 3)), *entries)
        events, self._checksum = _write(
            self._connection, self.path, self._last, self._checksum, entries
        )
        self._last += len(events)
        for event in events:
            self.history.apply(event)


@contextlib.contextmanager
def create_sweep(folder: Path, spec: SweepSpec, priors: Sequence[Prior] = ()) -> Iterator[Ledger]:
    """A new sweep's ledger, with its specification and what it may learn from other sweeps; this
    process is its one writer. Raises LedgerError where a sweep began there before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = _file(folder)
    with _held(folder) as lock:
        # Read before it is opened for writing: what is refused stays as it is.
        if path.is_file() and _load(path)[1] > 0:
            raise LedgerError(
                f"{path}: a sweep began here before; choose another --name, or go on with it:"
                f" {command_for('resume', folder)}"
            )
        with contextlib.closing(_connect(path)) as connection:
            events, checksum = _write(connection, path, 0, 0, (Sweep(spec), *priors))
            history = History.of(events)
            assert history is not None
            yield Ledger(folder, lock, connection, history, len(events), checksum)


@contextlib.contextmanager
def open_sweep(folder: Path) -> Iterator[Ledger]:
    """The ledger of a sweep that began, with this process as its one writer. Raises LedgerError."""
    path = _file(folder)
    with _held(folder) as lock:
        history, last, checksum = _load(path)
        if history is None:
            raise _empty(path)
        with contextlib.closing(_connect(path)) as connection:
            yield Ledger(folder, lock, connection, history, last, checksum)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _file(folder: Path) -> Path:
    return folder / "ledger.sqlite"


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[Lock]:
    lock = Lock(folder / "lock")
    try:
        lock.acquire()
    except LockError as error:
        raise LedgerError(
            f"sweep {folder.name!r} is being run by {error}; wait for it, or choose another --name"
        ) from None
    try:
        yield lock
    finally:
        lock.release()


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=30)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        (fault,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if fault != "ok":
            raise _damaged(path, f"cannot be written to ({' '.join(fault.split())})")
        connection.execute("BEGIN IMMEDIATE")
        if connection.execute("PRAGMA user_version").fetchone() == (0,):
            connection.execute(_TABLE)
        # Each time: what cannot be written to is known now.
        connection.execute(f"PRAGMA user_version={FORMAT}")
        connection.execute("COMMIT")
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.DatabaseError):
            raise LedgerError(f"{path}: cannot be written to ({error})") from None
        raise
    return connection


def _write(
    connection: sqlite3.Connection, path: Path, last: int, checksum: int, entries: Sequence[Entry]
) -> tuple[list[Event], int]:
    """Entries as events after the event `last`, in one transaction; returns them and the checksum
    of the newest.
    """
    now = time.time()
    events = []
    connection.execute("BEGIN IMMEDIATE")
    try:
        for seq, entry in enumerate(entries, start=last + 1):
            trial, record = entry if isinstance(entry, tuple) else (None, entry)
            text = as_json(body_of(record))
            if _HALF_CHARACTER.search(text):
                # In what a space raised, or a file is called: no file can hold it.
                text = text.encode(errors="replace").decode()
                record = record_of(record.kind, parse_json(text))
            checksum = _checksum(checksum, seq, now, record.kind.encode(), trial, text.encode())
            # With its number: had another process written in spite of the lock, SQLite would
            # refuse it.
            row = (seq, now, record.kind, trial, text, checksum)
            connection.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", row)
            events.append(Event(seq, now, trial, record))
        connection.execute("COMMIT")
    except BaseException as error:
        if connection.in_transaction:  # SQLite ends it itself where the disk is full
            connection.execute("ROLLBACK")
        if isinstance(error, sqlite3.IntegrityError):
            raise LedgerError(
                f"{path}: another process writes to it as well; this one stops"
            ) from None
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _NO_ROOM:
            raise LedgerError(
                f"{path}: cannot be written to any more ({error}); free some space on its disk, or"
                f" make it writable, then go on with: {command_for('resume', path.parent)}"
            ) from None
        raise
    return events, checksum
