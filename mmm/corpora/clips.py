"""Clips that a corpus names: which file each is, where that is certain."""

import filecmp
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import TypeVar

from mmm.corpora.account import Account, is_stray

# What libsndfile reads, best first: where a clip is there in two formats, the first is taken.
FORMATS = (".wav", ".flac", ".ogg", ".mp3")


Key = TypeVar("Key", bound=Hashable)


def clips_by(
    root: Path,
    files: Iterable[Path],
    key: Callable[[Path], Key | None],
    account: Account,
    formats: tuple[str, ...] = FORMATS,
) -> tuple[dict[Key, Path], list[str]]:
    """The file of each key, and a fault for each key that two different files have: a reader must
    not choose between them. The same content twice is one clip, and a format goes before a later
    one of `formats`; both are in the account.
    """
    found: dict[Key, list[Path]] = defaultdict(list)
    for file in sorted(files):
        if file.suffix.lower() in formats and not is_stray(file.name):
            name = key(file)
            if name is not None:
                found[name].append(file)
    chosen: dict[Key, Path] = {}
    faults = []
    for name, same in found.items():
        best = min(formats.index(file.suffix.lower()) for file in same)
        first, *others = [f for f in same if formats.index(f.suffix.lower()) == best]
        chosen[name] = first
        for other in same:
            if other != first and other not in others:
                where = f"{other.relative_to(root)}, beside {first.relative_to(root)}"
                account.leave_out(f"clips in another format too, {first.suffix} is read", where)
        for other in others:
            both = f"{first.relative_to(root)} and {other.relative_to(root)}"
            if filecmp.cmp(first, other, shallow=False):
                account.leave_out("clips that are there twice, with the same content", both)
            else:
                faults.append(
                    f"two files for one clip: {both}; move the one that does not count out of"
                    f" {root}"
                )
    return chosen, faults
