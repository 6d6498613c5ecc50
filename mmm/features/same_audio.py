"""Whether the audio files of a manifest are those that were encoded: by size and time of change,
and where the time is another one, as of a copy, by content.

A copy is read once and not once a process: the times at which files were seen to have the recorded
content are kept in `features/.copied_audio.npy`. The stores beside it stay as they are.
"""

import contextlib
import hashlib
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mmm.features.clips import hash_clips
from mmm.features.store import FeatureStore
from mmm.files import write_bytes
from mmm.manifest import Manifest

SEEN = ".copied_audio.npy"
# (n, 4) int64, the newest last: hash of a clip's name and content (16 bytes), size, mtime in ns.
_COLUMNS = 4
_MOST_SEEN = 1_000_000
_ANOTHER = (
    "is not the file that was encoded (another {}), or another corpus with the same names was"
    " encoded into the folder"
)


def check_audio_is_the_same(
    manifest: Manifest, store: FeatureStore, rows: npt.NDArray[np.int64], again: str
) -> None:
    """Raise ValueError where an audio file is another one than was encoded into `rows` (N,), saying
    what to run `again`. Machines without the audio are trusted.
    """
    stamps = {}
    for utterance in manifest.utterances:
        if utterance.audio not in stamps:
            with contextlib.suppress(FileNotFoundError):
                found = manifest.audio_path(utterance).stat()
                stamps[utterance.audio] = (found.st_size, found.st_mtime_ns)
    recorded, hashes = store.stamps[rows].tolist(), store.audio_hashes[rows]
    differing = [
        index
        for index, utterance in enumerate(manifest.utterances)
        if stamps.get(utterance.audio, tuple(recorded[index])) != tuple(recorded[index])
    ]
    if not differing:
        return
    readable = {
        manifest.utterances[index].audio: hashes[index].tobytes()
        for index in differing
        if hashes[index].any() and stamps[manifest.utterances[index].audio][0] == recorded[index][0]
    }
    for index in differing:
        utterance = manifest.utterances[index]
        if utterance.audio not in readable:
            what = (
                "has another time of change than the file that was encoded, whose content was not"
                " recorded then"
            )
            if hashes[index].any() or stamps[utterance.audio][0] != recorded[index][0]:
                what = _ANOTHER.format("size")
            raise ValueError(f"{manifest.audio_path(utterance)}: {what}; {again}")
    entries = {name: _entry(name, content, stamps[name]) for name, content in readable.items()}
    seen = _read(store.path.parent)
    to_read = [name for name, entry in entries.items() if entry not in seen]
    same: list[str] = []
    try:
        for name, content in hash_clips(manifest, to_read):
            if content != readable[name]:
                file = manifest.path.parent / name
                raise ValueError(f"{file}: {_ANOTHER.format('content')}; {again}")
            same.append(name)
    finally:
        _remember(store.path.parent, [entries[name] for name in same])


def _entry(name: str, content: bytes, stamp: tuple[int, int]) -> bytes:
    clip = hashlib.blake2b(f"{name}\0".encode() + content, digest_size=16).digest()
    return clip + np.array(stamp, dtype=np.int64).tobytes()


def _read(features: Path) -> dict[bytes, None]:
    """In the order in which they were seen; none of a damaged file, which only saves time."""
    with contextlib.suppress(OSError, ValueError, EOFError):
        seen = np.load(features / SEEN, allow_pickle=False)
        if seen.dtype == np.int64 and seen.ndim == 2 and seen.shape[1] == _COLUMNS:
            return dict.fromkeys(row.tobytes() for row in seen)
    return {}


def _remember(features: Path, entries: Iterable[bytes]) -> None:
    """Of two processes that do this at once, one may have to read again some time. A folder that
    cannot be written to is as good.
    """
    new = dict.fromkeys(entries)
    if not new:
        return
    kept = list(_read(features) | new)[-_MOST_SEEN:]
    content = io.BytesIO()
    np.save(content, np.frombuffer(b"".join(kept), dtype=np.int64).reshape(-1, _COLUMNS))
    with contextlib.suppress(OSError, ValueError):  # ValueError: a folder or a device is there
        write_bytes(features / SEEN, content.getvalue())
