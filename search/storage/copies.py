"""A sweep's folder, copied to a store while it runs, so that another machine can go on with it.

The ledger on the driver's disk is the truth. The copy has a state of it with everything that this
state names: files are copied first, then the ledger as SQLite's backup gives it, then `copy.json`,
which says whose copy it is and when it was made; what the folder does not have any more is removed
last. A driver that finds another one's `copy.json` has been taken for dead: it copies nothing more.
"""

import contextlib
import json
import os
import shutil
import socket
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mmm.files import parse_json
from search.storage.door import StorageError, Store

INDEX = "copy.json"
LEDGER = "ledger.sqlite"
MANIFEST = "manifest.csv"  # of the whole corpus, for a machine that does not have it
INTERVAL_S = 60.0
_LONGEST_CLOSE_S = 600.0
_HURRIED_CLOSE_S = 4.0
# Of the folder, but of no use elsewhere.
_NOT_COPIED = frozenset({LEDGER, f"{LEDGER}-wal", f"{LEDGER}-shm", "lock", "mlflow.log"})

Kept = tuple[int, int]  # a file's bytes and mtime in ns, by which a change is noticed


@dataclass(frozen=True, slots=True)
class Index:
    """What `copy.json` says."""

    sweep: str
    host: str
    process: int
    session: float  # when it began, in seconds since 1970: whose copy this is
    written: float
    interval_s: float
    ended: bool  # the session
    events: int  # of the ledger
    began: float  # when its first event was written
    files: Mapping[str, Kept] = field(default_factory=dict)

    def as_bytes(self) -> bytes:
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def of(cls, store: Store) -> "Index | None":
        """None where a store has no copy. Raises StorageError."""
        try:
            said = parse_json(store.read(INDEX))
            said["files"] = {name: (int(a), int(b)) for name, (a, b) in said["files"].items()}
            return cls(**said)
        except FileNotFoundError:
            return None
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, StorageError):
                raise
            raise StorageError(f"{store.url}/{INDEX}: damaged ({error})") from None


class Taken(StorageError):
    """Another driver goes on with the sweep."""


class Copies:
    """Copies a sweep's folder at intervals, in a thread, and once more at its end."""

    def __init__(
        self,
        folder: Path,
        manifest: Path,
        url: str,
        interval_s: float | None,
        tell: Callable[[str], None],
    ) -> None:
        """`url`: of the folder in which the sweep gets its own. `tell` is told once when it cannot
        be reached, and once when it can again. Raises StorageError.
        """
        self.folder, self.manifest, self.tell = folder, manifest, tell
        self.interval_s = INTERVAL_S if interval_s is None else interval_s
        self.store = Store(url).below(folder.name)
        self.trouble = ""
        self.copied = 0.0  # when the last copy was made, in seconds since 1970
        self._session = time.time()
        self._events = -1
        self._files: dict[str, Kept] | None = None  # that the store has; None: not known yet
        self._is_taken = False
        self._ending, self._ended = threading.Event(), False
        self._thread = threading.Thread(target=self._follow, name="copies", daemon=True)

    def start(self) -> None:
        for left in self.folder.glob(".copies.*"):  # by a driver that was killed
            shutil.rmtree(left, ignore_errors=True)
        self._thread.start()

    def finish(self, *, is_hurried: bool = False) -> None:
        """Copy what the session left, after its end is in the ledger, and tell of it. `is_hurried`:
        whoever sent a signal kills what has not ended some seconds later.
        """
        self._ended = True
        self._ending.set()
        self._thread.join(_HURRIED_CLOSE_S if is_hurried else _LONGEST_CLOSE_S)
        if self._thread.is_alive() or self.trouble:
            last = time.strftime("%H:%M:%S", time.localtime(self.copied)) if self.copied else "none"
            why = self.trouble or "it takes too long"
            self.tell(
                f"warning: the end of the sweep is not in {self.store.url} ({why}; the last copy:"
                f" {last}); it is safe in {self.folder}"
            )
        else:
            self.tell(f"copied to {self.store.url}")

    def stop(self) -> None:
        """Copy nothing more: the session has not ended in good order."""
        self._is_taken = True
        self._ending.set()

    def _follow(self) -> None:
        while not self._is_taken:
            is_last = self._ended
            try:
                self.copy(is_last)
            except Taken as error:
                self._is_taken, self.trouble = True, str(error)
                self.tell(f"warning: {error}")
            except (StorageError, OSError, sqlite3.Error) as error:
                if not self.trouble:
                    self.tell(
                        f"note: nothing can be copied to {self.store.url} ({error}); training goes"
                        f" on, and it is tried again every {self.interval_s:g} s"
                    )
                self.trouble = str(error)
            else:
                if self.trouble:
                    self.tell(f"note: copied to {self.store.url} again")
                self.trouble = ""
            if is_last:
                return
            self._ending.wait(self.interval_s)

    def copy(self, ended: bool) -> None:
        """Once. Raises StorageError, Taken; OSError where this disk is full."""
        self._look()
        assert self._files is not None
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".copies.") as scratch:
            ledger = Path(scratch) / LEDGER
            events, began = _backup(self.folder / LEDGER, ledger)
            # After the backup: a worker keeps what the ledger knows until it has written two more.
            present = dict(self._present(Path(scratch)))
            for name, (path, kept) in present.items():
                if self._files.get(name) != kept:
                    self.store.put(path, name)
                    self._files[name] = kept
            if events != self._events:
                self.store.put(ledger, LEDGER)
                self._events = events
        files = {name: kept for name, (_, kept) in present.items()}
        index = Index(
            self.folder.name,
            socket.gethostname(),
            os.getpid(),
            self._session,
            time.time(),
            self.interval_s,
            ended,
            events,
            began,
            files,
        )
        self.store.write(INDEX, index.as_bytes())
        for name in self._files.keys() - files.keys():
            self.store.remove(name)
        self._files, self.copied = files, index.written

    def _look(self) -> None:
        """Whose copy there is, and the first time, what of it is still right."""
        index = Index.of(self.store)
        if self._files is None and index is not None:
            events, began = state_of(self.folder / LEDGER)
            if began != index.began or events < index.events:
                raise Taken(
                    f"{self.store.url}: has another state of the sweep, which {index.host} copied;"
                    " nothing is copied there"
                )
        if self._files is None:
            there = self.store.files()
            known = {} if index is None else index.files
            # What a copy that was broken off has left is copied over, or removed.
            self._files = {
                name: known[name] if name in known and known[name][0] == one.size else (-1, -1)
                for name, one in there.items()
                if name not in (INDEX, LEDGER)
            }
        elif index is not None and index.session > self._session:
            raise Taken(
                f"{self.store.url}: process {index.process} on {index.host} goes on with the sweep;"
                " nothing more is copied from here"
            )

    def _present(self, scratch: Path) -> Iterator[tuple[str, tuple[Path, Kept]]]:
        """What is to be copied, by name: as it is now, whatever is written or removed meanwhile."""
        sources = {path.relative_to(self.folder).as_posix(): path for path in _files(self.folder)}
        sources.setdefault(MANIFEST, self.manifest)
        for number, (name, path) in enumerate(sources.items()):
            held = scratch / str(number)
            try:
                stat = path.stat()
                assert self._files is not None
                kept = (stat.st_size, stat.st_mtime_ns)
                if self._files.get(name) != kept:
                    _hold(path, held)
            except FileNotFoundError:
                continue
            yield name, (held, kept)


def _hold(path: Path, held: Path) -> None:
    """The same file under another name, which stays when the first is replaced or removed."""
    try:
        os.link(path, held)
    except FileNotFoundError:
        raise
    except OSError:  # on another disk, or one that has no links
        held.symlink_to(path.resolve())


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(parent) / name
            if not name.startswith(".") and not (path.parent == folder and name in _NOT_COPIED):
                yield path


def state_of(path: Path) -> tuple[int, float]:
    """How many events a ledger has and when the first was written."""
    with contextlib.closing(sqlite3.connect(_read_only(path), uri=True)) as connection:
        return _counted(connection)


def _backup(path: Path, target: Path) -> tuple[int, float]:
    """A state of a ledger that is being written, as one file without a log; how many events it has
    and when the first was written.
    """
    with (
        contextlib.closing(sqlite3.connect(_read_only(path), uri=True)) as one,
        contextlib.closing(sqlite3.connect(target)) as other,
    ):
        one.backup(other)
        other.execute("PRAGMA journal_mode=DELETE")
        return _counted(other)


def _read_only(path: Path) -> str:
    return f"{path.resolve().as_uri()}?mode=ro"


def _counted(connection: sqlite3.Connection) -> tuple[int, float]:
    events, began = connection.execute("SELECT max(seq), min(time) FROM events").fetchone()
    return events, began
