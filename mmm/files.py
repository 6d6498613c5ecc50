"""Writing files so that a reader sees the old content or the new one, never a half, also after a
power cut; and locks, which die with their process.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


class Unchecked(UserWarning):
    """Something is read without a checksum, because it was written before there were any."""


def sha256_of_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_json(value: Any) -> str:
    """Hex SHA-256 of a JSON value's canonical form (sorted keys, no spaces)."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


def sync(path: Path) -> None:
    """Force a file's or folder's content to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_data(descriptor: int) -> None:
    """Force an open file's content to the disk, without its times where the system can (Linux)."""
    getattr(os, "fdatasync", os.fsync)(descriptor)


def lock(file: int | IO[Any], *, wait: bool = False) -> None:
    """Hold the system's lock on an open file until it is closed or the process ends.

    Raises BlockingIOError where another process holds it, unless this one shall `wait`.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        raise OSError("this system has no file locks; run it on Linux, macOS or WSL") from None
    fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content`: written beside it, synced, renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes the file private; what we publish follows the user's umask like any other
        # file.
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    sync(path.parent)


def write_text(path: Path, content: str) -> None:
    write_bytes(path, content.encode())


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def new_directory(path: Path, keep: str | None = None) -> Iterator[Path]:
    """A folder to fill; when the block ends well it replaces `path`, otherwise nothing is left of
    it.

    Children of the folder before it that match the pattern `keep` move to the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield scratch
        for file in scratch.rglob("*"):
            sync(file)
        sync(scratch)
        umask = os.umask(0)
        os.umask(umask)
        scratch.chmod(0o777 & ~umask)
        if path.exists():
            # A folder cannot be renamed over a full one: the old one steps aside first.
            aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
            old = path.rename(aside / "old")
            try:
                scratch.rename(path)
            except BaseException:
                old.rename(path)
                aside.rmdir()
                raise
            for child in sorted(old.glob(keep)) if keep else []:
                child.rename(path / child.name)
            shutil.rmtree(aside)
        else:
            scratch.rename(path)
        sync(path.parent)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
