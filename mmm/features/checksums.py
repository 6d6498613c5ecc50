"""Checksums of a feature store's files: a bit that flips on a disk or on the way there is not
trained on.

`checksums.json` beside them holds the CRC-32 of each small file, and of a large array's header and
each of its blocks. Small files are checked when a store is opened, a block when a process first
reads it. CRC-32 sees every flip of a single bit, and takes a third of a second a gigabyte, an
eighth of what a cryptographic hash takes; it is no protection against somebody who means harm.
"""

import functools
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

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
        content = np.asarray(array).reshape(-1).view(np.uint8).data
        if len(self.sums) != -(-len(content) // self.block_bytes):
            return False
        row_bytes = array.shape[1] * array.itemsize
        changes = np.zeros(
            len(self.sums) + 1, dtype=np.int64
        )  # +1 where a stretch of rows begins, -1 behind its end
        np.add.at(changes, starts * row_bytes // self.block_bytes, 1)
        np.add.at(changes, (ends * row_bytes - 1) // self.block_bytes + 1, -1)
        for block in np.flatnonzero((np.cumsum(changes[:-1]) > 0) & ~self._is_checked).tolist():
            if (
                zlib.crc32(content[block * self.block_bytes : (block + 1) * self.block_bytes])
                != self.sums[block]
            ):
                return False
            self._is_checked[block] = True
        self._is_complete = bool(self._is_checked.all())
        return True


@dataclass(frozen=True)
class Checksums:
    """What `checksums.json` says."""

    files: Mapping[str, int]
    blocks: Mapping[str, Blocks]


def read_checksums(folder: Path, small: Sequence[str], large: Sequence[str]) -> Checksums | None:
    """Of a folder with these files; None where there are none. Raises ValueError where they cannot
    be what was written.
    """
    try:
        text = (folder / CHECKSUMS).read_bytes()
    except FileNotFoundError:
        return None
    found = _parsed(folder.absolute(), text)
    if found is None or set(found.files) != set(small) or set(found.blocks) != set(large):
        raise ValueError(f"{folder / CHECKSUMS}: damaged")
    return found


@functools.lru_cache(
    maxsize=1000
)  # the folder too: what was checked of one is not checked of its copy
def _parsed(folder: Path, text: bytes) -> Checksums | None:
    try:
        found = json.loads(text)
        blocks = {
            name: Blocks(
                int(one["header"]), [int(part) for part in one["blocks"]], int(found["block_bytes"])
            )
            for name, one in found["arrays"].items()
        }
        usable = all(one.block_bytes > 0 for one in blocks.values())
        return (
            Checksums({name: int(one) for name, one in found["files"].items()}, blocks)
            if usable
            else None
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def checksums_of(
    folder: Path,
    small: Sequence[str],
    large: Sequence[str],
    arrays: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of a `checksums.json`, from what is on the disk; `arrays` where those of the
    large files are known already.
    """
    return {
        "block_bytes": BLOCK_BYTES,
        "files": {name: zlib.crc32((folder / name).read_bytes()) for name in small},
        "arrays": (
            arrays if arrays is not None else {name: _of_array(folder / name) for name in large}
        ),
    }


def _of_array(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        header = zlib.crc32(file.read(_header_bytes(path)))
        return {
            "header": header,
            "blocks": [zlib.crc32(block) for block in iter(lambda: file.read(BLOCK_BYTES), b"")],
        }


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
