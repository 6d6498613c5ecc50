"""Checksums of a feature store's files: a bit that flips on a disk or on the way there is not
trained on.

`checksums.json` beside them holds the CRC-32 of each small file, and of a large array's header and
each of its blocks. Small files are checked when a store is opened, a block when a process first
reads it. CRC-32 sees every flip of a single bit, and takes a third of a second a gigabyte, an
eighth of what a cryptographic hash takes; it is no protection against somebody who means harm.
"""

import functools
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from mmm.files import parse_json

CHECKSUMS = "checksums.json"
BLOCK_BYTES = 1 << 20


class Blocks:
    """A large array's blocks: what each must add up to, and which of them this process has
    checked.
    """

    def __init__(self, header: int, sums: Sequence[int], block_bytes: int) -> None:
        self.header, self.sums, self.block_bytes = header, sums, block_bytes
        self._is_checked = np.zeros(len(sums), dtype=bool)
        self._is_complete = False

    def check(
        self, array: npt.NDArray[Any], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
    ) -> bool:
        """Whether rows `starts` to `ends` (n,), none of them empty, lie in blocks that are what was
        written.
        """
        if self._is_complete:
            return True
        content, size = np.asarray(array).reshape(-1).view(np.uint8).data, self.block_bytes
        if len(self.sums) != -(-len(content) // size):
            return False
        row_bytes = array.shape[1] * array.itemsize
        # +1 where a stretch of rows begins, -1 behind its end
        changes = np.zeros(len(self.sums) + 1, dtype=np.int64)
        np.add.at(changes, starts * row_bytes // size, 1)
        np.add.at(changes, (ends * row_bytes - 1) // size + 1, -1)
        for block in np.flatnonzero((np.cumsum(changes[:-1]) > 0) & ~self._is_checked).tolist():
            if zlib.crc32(content[block * size : (block + 1) * size]) != self.sums[block]:
                return False
            self._is_checked[block] = True
        self._is_complete = bool(self._is_checked.all())
        return True


@dataclass(frozen=True)
class Checksums:
    """What `checksums.json` says."""

    files: Mapping[str, int]
    blocks: Mapping[str, Blocks]

    def as_json(self) -> Mapping[str, object]:
        arrays = blocks_as_json(self.blocks)
        return {"block_bytes": BLOCK_BYTES, "files": self.files, "arrays": arrays}

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Raises AttributeError, KeyError, TypeError or ValueError where it is none."""
        size = int(content["block_bytes"])
        if size <= 0:
            raise ValueError("blocks without bytes")
        files = {name: int(one) for name, one in content["files"].items()}
        return cls(files, blocks_from_json(content["arrays"], size))


def blocks_as_json(blocks: Mapping[str, Blocks]) -> Mapping[str, object]:
    return {name: {"header": one.header, "blocks": one.sums} for name, one in blocks.items()}


def blocks_from_json(content: Any, block_bytes: int = BLOCK_BYTES) -> Mapping[str, Blocks]:
    return {
        name: Blocks(int(one["header"]), [int(part) for part in one["blocks"]], block_bytes)
        for name, one in content.items()
    }


def read_checksums(
    folder: Path, small: Sequence[str], large: Sequence[str], optional: Sequence[str] = ()
) -> Checksums | None:
    """Of a folder with these files, and perhaps the `optional` ones; None where there are none.
    Raises ValueError where they cannot be what was written.
    """
    try:
        text = (folder / CHECKSUMS).read_bytes()
    except FileNotFoundError:
        return None
    found = _parsed(folder.absolute(), text)
    if (
        found is None
        or set(found.files) - set(optional) != set(small)
        or set(found.blocks) != set(large)
    ):
        raise ValueError(f"{folder / CHECKSUMS}: damaged")
    return found


# By folder too: what was checked of one is not checked of its copy.
@functools.lru_cache(maxsize=1000)
def _parsed(folder: Path, text: bytes) -> Checksums | None:
    try:
        return Checksums.from_json(parse_json(text))
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def checksums_of(
    folder: Path,
    small: Sequence[str],
    large: Sequence[str],
    known: Mapping[str, Blocks] | None = None,
) -> Checksums:
    """Of what is on the disk; of the large files what is `known`, if it is."""
    files = {name: zlib.crc32((folder / name).read_bytes()) for name in small}
    return Checksums(files, known or {name: _blocks_of(folder / name) for name in large})


def _blocks_of(path: Path) -> Blocks:
    with open(path, "rb") as file:
        header = zlib.crc32(file.read(_header_bytes(path)))
        sums = [zlib.crc32(block) for block in iter(lambda: file.read(BLOCK_BYTES), b"")]
    return Blocks(header, sums, BLOCK_BYTES)


def header_checksum(path: Path) -> int:
    """Of the part of an npy file that says what the array is."""
    with open(path, "rb") as file:
        return zlib.crc32(file.read(_header_bytes(path)))


def _header_bytes(path: Path) -> int:
    """As the format has it: six bytes of magic, two of version, two of the length of what
    follows.
    """
    with open(path, "rb") as file:
        return 10 + int.from_bytes(os.pread(file.fileno(), 2, 8), "little")
