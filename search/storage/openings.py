"""Who opened the test split, on record beside features at a URL as beside those on a disk."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mmm.bundle.sealed_test import OPENINGS, openings_in, openings_text, read_openings
from mmm.files import write_text
from search.storage.door import Store

_WHICH = ("time", "bundle_sha256", "weights_sha256", "who")  # tells one opening from another


def bring_openings(url: str, folder: Path) -> None:
    """The record at a URL into the features folder on this disk, whose own stays in it. Raises
    StorageError.
    """
    here = read_openings(folder)
    try:
        there = openings_in(Store(url).read(OPENINGS).decode(errors="replace"))
    except FileNotFoundError:
        return
    found: dict[tuple[str, ...], Mapping[str, str]] = {}
    for row in (*there, *here):
        which = tuple(row[name] for name in _WHICH)
        if which not in found or row["macro_f1"]:  # one that was broken off has no score
            found[which] = row
    rows = sorted(found.values(), key=lambda row: row["time"])
    if rows != here:
        write_text(folder / OPENINGS, openings_text(rows))


@contextmanager
def on_record(url: str | None, folder: Path) -> Iterator[None]:
    """A block that opens the test split, whose record is at the URL afterwards, too; None: there is
    no URL. Raises StorageError before the block where nothing can be written there.
    """
    if url is None:
        yield
        return
    _send(url, folder)
    try:
        yield
    finally:
        _send(url, folder)


def _send(url: str, folder: Path) -> None:
    bring_openings(url, folder)
    Store(url).write(OPENINGS, openings_text(read_openings(folder)).encode())
