"""A folder at a URL, through fsspec: a path, `file://`, `s3://`, or what else fsspec knows."""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec

_PART_BYTES = 8 << 20
# Where a file appears when all of it has arrived. Elsewhere it is written under another name first.
_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"})
# Training does not wait for a store that is away, and the next copy is tried soon.
_S3_OPTIONS: Mapping[str, object] = {
    "config_kwargs": {"connect_timeout": 5, "read_timeout": 30, "retries": {"max_attempts": 1}}
}


class StorageError(ValueError):
    """A store that cannot be used, or did not do what it was asked."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A file in a store."""

    size: int  # bytes
    version: str  # changes with its content, as far as the store tells


class Store:
    """Files below a URL, by their names relative to it."""

    def __init__(self, url: str) -> None:
        """Raises StorageError where nothing can be kept there; nobody is asked yet."""
        self.url = url.rstrip("/")
        self.protocol = protocol_of(url)
        options: dict[str, Any] = {"use_listings_cache": False}
        if self.protocol in ("s3", "s3a"):
            options |= _S3_OPTIONS
        try:
            self._files, root = fsspec.url_to_fs(self.url, **options)
        except ImportError as error:
            extra = "'mmm-search[s3]'" if self.protocol in ("s3", "s3a") else f"for it ({error})"
            raise StorageError(f"{url}: needs another package; pip install {extra}") from None
        except ValueError as error:
            raise StorageError(f"{url}: {error}") from None
        self._root = root.rstrip("/")

    def below(self, name: str) -> "Store":
        """The folder `name` in it."""
        return Store(f"{self.url}/{name}")

    def files(self) -> dict[str, Stored]:
        """Every file below it; none where it is not there. Raises StorageError."""
        with self._asking():
            try:
                found = self._files.find(self._root, detail=True)
            except FileNotFoundError:
                return {}
            names = {path: path.removeprefix(self._root).lstrip("/") for path in found}
            return {
                name: Stored(found[path]["size"], _version(found[path]))
                for path, name in names.items()
                if ".." not in name.split("/")  # an object may be called so; a file could not
            }

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError or StorageError."""
        with self._asking():
            content: bytes = self._files.cat_file(f"{self._root}/{name}")
            return content

    def write(self, name: str, content: bytes) -> None:
        """Replace a file: readers see the old one or the new one. Raises StorageError."""
        with self._asking(is_read=False), self._whole(name) as path:
            self._files.pipe_file(path, content)

    def put(self, source: Path, name: str) -> None:
        """The same with what is in a file, which has to be there."""
        with self._asking(is_read=False), self._whole(name) as path:
            self._files.put_file(str(source), path)

    def remove(self, name: str) -> None:
        with self._asking():
            try:
                self._files.rm_file(f"{self._root}/{name}")
            except FileNotFoundError:
                return

    def get(self, name: str, target: Path, stored: Stored) -> None:
        """Bring a file to this disk, whole or not at all; of one that was broken off before, the
        rest. Raises StorageError, FileNotFoundError.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        mark = "".join(sign for sign in stored.version if sign.isalnum())[:40]
        part = target.with_name(f".{target.name}.{mark}.part")
        there = part.stat().st_size if part.is_file() else 0
        if there > stored.size:
            part.unlink()
            there = 0
        if there < stored.size:
            with (
                self._asking(),
                self._files.open(f"{self._root}/{name}", "rb") as source,
                open(part, "ab") as into,
            ):
                source.seek(there)
                while content := source.read(_PART_BYTES):
                    into.write(content)
        elif not stored.size:
            part.touch()
        if part.stat().st_size != stored.size:
            raise StorageError(
                f"{self.url}/{name}: {part.stat().st_size} bytes came instead of {stored.size}"
            )
        part.replace(target)

    @contextmanager
    def _whole(self, name: str) -> Iterator[str]:
        """Where a file is written before it has its name."""
        path = f"{self._root}/{name}"
        if self.protocol in _OBJECT_STORES:
            yield path
            return
        folder, _, last = path.rpartition("/")
        self._files.makedirs(folder, exist_ok=True)
        part = f"{folder}/.{last}.{secrets.token_hex(4)}.part"
        try:
            yield part
            self._files.mv(part, path)
        except BaseException:
            if self._files.exists(part):
                self._files.rm_file(part)
            raise

    @contextmanager
    def _asking(self, *, is_read: bool = True) -> Iterator[None]:
        """Whatever a store's own package raises, as one sentence."""
        try:
            yield
        except StorageError:
            raise
        except Exception as error:  # of many kinds: each package has its own
            if is_read and isinstance(error, FileNotFoundError):
                raise
            what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise StorageError(f"{self.url}: {what}") from error


def protocol_of(url: str) -> str:
    """`file` of a path. Raises StorageError where a URL would not do as one of a store."""
    protocol = url.partition("://")[0] if "://" in url else "file"
    parts = urlsplit(url)
    if "::" in url or protocol in ("http", "https"):
        raise StorageError(
            f"{url}: nothing can be written there; expected for example s3://bucket/folder or a"
            " path"
        )
    if protocol != "file" and parts.username is not None:
        raise StorageError(
            f"{url.replace(parts.netloc, '...')}: a name or password in it would be written to"
            " files; set them in the environment, for example AWS_ACCESS_KEY_ID and"
            " AWS_SECRET_ACCESS_KEY"
        )
    return protocol


def is_url(given: str) -> bool:
    """Whether it is one, and no path."""
    return "://" in given


def as_url(given: str) -> str:
    """A URL as it is, a path as an absolute one."""
    return given.rstrip("/") if is_url(given) else str(Path(given).resolve())


def _version(info: Mapping[str, Any]) -> str:
    known = (info.get(name) for name in ("ETag", "etag", "md5Hash", "mtime", "created"))
    return str(next((one for one in known if one is not None), ""))
