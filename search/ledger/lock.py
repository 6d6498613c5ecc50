"""Who runs a sweep: one process at a time, which says so in `runs/NAME/lock` and renews it every
few seconds.

By hand because filelock's lease does less: it neither says who holds the lock and since when, nor
whether anyone does, a dead host's is free only after a minute's watching, and the empty file that a
sweep leaves counts as held for ever.
"""

import contextlib
import getpass
import json
import os
import socket
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mmm.files import lock, parse_json

HEARTBEAT_S = 10.0
STALE_S = 60.0  # six beats missed; hosts' clocks may differ by less than that


class LockError(ValueError):
    """Someone else runs the sweep."""


@dataclass(frozen=True, slots=True)
class _Holder:
    """What the file says."""

    owner: str = "someone"
    host: str = "this host"
    process: int | str = "unknown"
    since: str = "just now"
    heartbeat: float = 0.0  # seconds since 1970

    def __str__(self) -> str:
        return f"{self.owner}, process {self.process} on {self.host}, since {self.since}"

    @property
    def age_s(self) -> float:
        return max(0.0, time.time() - self.heartbeat)

    @property
    def is_elsewhere(self) -> bool:
        """Whether the kernel's lock need not reach it."""
        return self.host != socket.gethostname()


class Lock:
    """A lock file. On one host the kernel's lock on it decides, which dies with its process; where
    that does not reach another host, as on some shared file systems, the heartbeat written in the
    file does.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.replaced: str | None = None  # who held it on another host and has gone silent
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def acquire(self) -> None:
        """Raises LockError saying who holds it."""
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            before = _read(self._file)
            try:
                try:
                    lock(self._file)
                except BlockingIOError:
                    time.sleep(0.05)  # somebody may just be looking whether it is held
                    lock(self._file)
            except BlockingIOError:
                before = before or _Holder(heartbeat=time.time())
                raise LockError(f"{before}, last heartbeat {before.age_s:.0f} s ago") from None
            if before is not None and before.is_elsewhere:
                if before.age_s < STALE_S:
                    raise LockError(
                        f"{before}, last heartbeat {before.age_s:.0f} s ago (if it is dead: free"
                        f" in {STALE_S - before.age_s:.0f} s)"
                    )
                self.replaced = f"{before}, silent for {before.age_s:.0f} s"
        except BaseException:
            os.close(self._file)
            raise
        try:
            owner = getpass.getuser()
        except (KeyError, OSError):  # a container whose user has no name
            owner = f"user {os.getuid()}"
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        self._holder = _Holder(owner, socket.gethostname(), os.getpid(), since)
        os.ftruncate(self._file, 0)
        self._write()
        self._thread.start()

    def release(self) -> None:
        self._released.set()
        self._thread.join()
        os.ftruncate(self._file, 0)
        os.close(self._file)

    def _beat(self) -> None:
        while not self._released.wait(HEARTBEAT_S):
            # Storage that is away for a moment: the next beat may reach it.
            with contextlib.suppress(OSError):
                self._write()

    def _write(self) -> None:
        # Always of one length, so that a reader never sees the end of an older one.
        said = {**asdict(self._holder), "heartbeat": f"{time.time():.3f}"}
        os.pwrite(self._file, json.dumps(said).encode(), 0)


def is_held(path: Path) -> bool:
    """Whether anyone holds a sweep's lock; of other hosts' by their heartbeat."""
    try:
        file = os.open(path, os.O_RDWR if os.access(path, os.W_OK) else os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        holder = _read(file)
        lock(file)
        return holder is not None and holder.is_elsewhere and holder.age_s < STALE_S
    except BlockingIOError:
        return True
    finally:
        os.close(file)


def _read(file: int) -> _Holder | None:
    """None where nobody holds it."""
    text = os.pread(file, 4096, 0)
    if not text:
        return None
    try:
        said = _Holder(**parse_json(text))
        heartbeat = float(said.heartbeat)
        if not heartbeat <= time.time():  # of a clock that is ahead: it would hold until then
            heartbeat = os.fstat(file).st_mtime
        return replace(said, heartbeat=heartbeat)
    except (ValueError, TypeError):  # half written
        return _Holder(host="another host", heartbeat=os.fstat(file).st_mtime)
