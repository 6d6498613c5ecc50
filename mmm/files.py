"""Writing files so that a reader sees the old content or the new one, never a half, also after a
power cut; and locks, which die with their process.
"""

import contextlib
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

_NAME_SHOWN = 40  # letters: a name of ours may be as long as the system lets it


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


def parse_json(content: str | bytes) -> Any:
    """The value of a JSON text that others may have written. Raises ValueError where it is none,
    also where brackets lie in brackets too often to be read.
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("brackets in brackets, too many of them") from None


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """What the system refuses inside is told of `path`, and not of a file that nobody named."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.strerror is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


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


def destination(path: Path) -> Path:
    """Where a file that is written to `path` goes: where a link leads, which stays a link.

    Raises ValueError for a folder, and for a device, a pipe or a socket, which a file would
    replace.
    """
    found = _followed(path)
    mode = found.stat().st_mode if found.exists() else stat.S_IFREG
    if stat.S_ISDIR(mode):
        raise ValueError(f"{path}: is a folder; name a file")
    if not stat.S_ISREG(mode):
        raise ValueError(
            f"{path}: is a device, a pipe or a socket and no file; name a file, which is replaced"
            " as a whole when all of it is there"
        )
    return found


def _followed(path: Path) -> Path:
    if not path.is_symlink():
        return path
    found = Path(os.path.realpath(path))
    if found.is_symlink():
        raise ValueError(f"{path}: a link that leads back to itself; remove it, or name a file")
    return found


def _scratch_name(path: Path) -> str:
    """How a file or folder begins that becomes `path`: hidden beside it, and no longer a name."""
    return f".{path.name[:_NAME_SHOWN]}."


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path`, or the file that it is a link to, by `content`: written beside it, synced,
    renamed. Raises ValueError for what is no file.
    """
    with naming(path):
        _write_bytes(destination(path), content)


def _write_bytes(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=_scratch_name(path))
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
    it. Where `path` is a link, the folder that it leads to is replaced.

    Children of the folder before it that match the pattern `keep` move to the new one. Raises
    ValueError where `path` is something else than a folder.
    """
    named, path = path, _followed(path)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{named}: is no folder; name one, or what is to become one")
    with naming(named):
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=path.parent, prefix=_scratch_name(path)))
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
            aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f"{_scratch_name(path)}old."))
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
    except BaseException as error:
        shutil.rmtree(scratch, ignore_errors=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk
            with naming(named):
                raise
        raise
