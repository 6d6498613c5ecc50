"""The audio files of a manifest: whom they serve, whether they can be used, and whether they are
those that were encoded.
"""

import functools
import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mmm.audio.sound import read_sound, sound_info
from mmm.audio.speech import num_speech_samples
from mmm.device import cpus_here
from mmm.features.store import AUDIO_HASH_BYTES
from mmm.manifest import Manifest


@dataclass(frozen=True)
class BadFile:
    """A clip that cannot be used, and why."""

    audio: str
    utterance_ids: tuple[str, ...]
    reason: str


class BadFiles(ValueError):
    """Clips that cannot be used, found before the encoder started."""

    def __init__(self, manifest: Path, files: Sequence[BadFile], num_clips: int) -> None:
        self.files = tuple(files)
        lines = [
            f"  utterance {file.utterance_ids[0]!r} ({file.audio}): {file.reason}" for file in files
        ]
        super().__init__(
            f"{manifest}: {len(files)} of {num_clips} audio files cannot be used; repair them, or"
            " leave them out with mmm encode --skip-bad\n" + "\n".join(lines)
        )


def clips_of(manifest: Manifest) -> dict[str, list[int]]:
    """Each clip with its utterances: one clip may serve several lines of a corpus."""
    clips: dict[str, list[int]] = {}
    for index, utterance in enumerate(manifest.utterances):
        clips.setdefault(utterance.audio, []).append(index)
    return clips


def stamps_of(manifest: Manifest, names: Iterable[str]) -> npt.NDArray[np.int64]:
    """(M, 2) size and mtime in ns of each of these clips. Raises FileNotFoundError."""
    try:
        folder = str(manifest.path.parent)
        stats = [os.stat(os.path.join(folder, name)) for name in names]  # noqa: PTH116, PTH118
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error.filename}: no such audio file") from None
    return np.array([(stat.st_size, stat.st_mtime_ns) for stat in stats], dtype=np.int64)


def audio_hash(path: Path) -> bytes:
    """16 bytes that stand for a file's content; read once a process, while its size and time of
    change stay.
    """
    found = path.stat()
    return _hash(str(path.absolute()), found.st_size, found.st_mtime_ns)


@functools.cache
def _hash(path: str, size: int, mtime_ns: int) -> bytes:
    new = functools.partial(hashlib.blake2b, digest_size=AUDIO_HASH_BYTES)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, new).digest()


def hash_clips(manifest: Manifest, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """The hash of each of these clips."""
    paths = (manifest.path.parent / name for name in names)
    with ThreadPoolExecutor(cpus_here()) as pool:
        yield from zip(names, pool.map(audio_hash, paths), strict=True)


def find_bad_files(
    manifest: Manifest,
    clips: dict[str, list[int]] | None = None,
    hashes: dict[str, bytes] | None = None,
) -> Iterator[tuple[int, BadFile | None]]:
    """Read clips (all, unless `clips` says which) from end to end; yields how many were read, and a
    fault where there is one.

    Adds the hash of each good one to `hashes`, while it is in the disk's cache.
    """

    def check(item: tuple[str, list[int]]) -> BadFile | None:
        audio, indices = item
        path = manifest.path.parent / audio
        try:
            num_speech_samples(path, sound_info(path))
            read_sound(path)
            if hashes is not None and audio not in hashes:
                hashes[audio] = audio_hash(path)
        except (ValueError, OSError) as error:
            ids = tuple(manifest.utterances[index].utterance_id for index in indices)
            return BadFile(audio, ids, str(error))
        return None

    items = (clips_of(manifest) if clips is None else clips).items()
    with ThreadPoolExecutor(cpus_here()) as pool:
        yield from enumerate(pool.map(check, items), start=1)
