"""Who runs a sweep: one process at a time, which says so in `runs/NAME/lock` and renews it every
few seconds.
"""

import contextlib
import fcntl
import getpass
import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

HEARTBEAT_S = 10.0
STALE_S = 60.0  # six beats missed; hosts' clocks may differ by less than that


class LockError(ValueError):
    """Someone else runs the sweep."""


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
            found, age_s = self._read()
            try:
                try:
                    fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    time.sleep(0.05)  # somebody may just be looking whether it is held
                    fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LockError(f"{_who(found)}, last heartbeat {age_s:.0f} s ago") from None
            if found and found.get("host") != socket.gethostname():
                if age_s < STALE_S:
                    again_s = STALE_S - age_s
                    raise LockError(
                        f"{_who(found)}, last heartbeat {age_s:.0f} s ago (if it is dead: free in"
                        f" {again_s:.0f} s)"
                    )
                self.replaced = f"{_who(found)}, silent for {age_s:.0f} s"
        except BaseException:
            os.close(self._file)
            raise
        try:
            owner = getpass.getuser()
        except (KeyError, OSError):  # a container whose user has no name
            owner = f"user {os.getuid()}"
        self._holder = {
            "owner": owner,
            "host": socket.gethostname(),
            "process": os.getpid(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
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
            with contextlib.suppress(
                OSError
            ):  # storage that is away for a moment: the next beat may reach it
                self._write()

    def _write(self) -> None:
        # Always of one length, so that a reader never sees the end of an older one.
        os.pwrite(
            self._file, json.dumps({**self._holder, "heartbeat": f"{time.time():.3f}"}).encode(), 0
        )

    def _read(self) -> tuple[dict[str, Any], float]:
        """What the file says, empty where nobody holds it, and how old that is."""
        text = os.pread(self._file, 4096, 0)
        try:
            found = json.loads(text) if text else {}
            heartbeat = float(found["heartbeat"]) if text else time.time()
        except (ValueError, TypeError, KeyError):  # half written
            found, heartbeat = {"host": "another host"}, os.fstat(self._file).st_mtime
        return found, max(0.0, time.time() - heartbeat)


def is_held(path: Path) -> bool:
    """Whether anyone holds a sweep's lock; of other hosts' by their heartbeat."""
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        text = os.pread(file, 4096, 0)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = json.loads(text) if text else {}
        age_s = time.time() - float(found.get("heartbeat", 0.0))
        return found.get("host") not in (None, socket.gethostname()) and age_s < STALE_S
    except (BlockingIOError, ValueError):  # the second: it is just being written
        return True
    finally:
        os.close(file)


def _who(found: dict[str, Any]) -> str:
    return "{owner}, process {process} on {host}, since {since}".format_map(
        {
            "owner": "someone",
            "process": "unknown",
            "host": "this host",
            "since": "just now",
            **found,
        }
    )
