"""What two splits, or two folds, share that they should not: speakers, sessions, speech, lines."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmm.manifest import SPLITS, natural_key

_SHOWN = 3
# From so many words on a text that is there twice was written twice; "yes" and "I see" recur by
# themselves.
LINE_WORDS = 4


@dataclass(frozen=True, slots=True)
class Placed:
    """An utterance and the part, split or fold, that it is in."""

    part: str
    utterance_id: str
    speaker: str
    session: str
    text: str
    audio: Path


def leaks(placed: Sequence[Placed], parts: str = "split") -> dict[str, str]:
    """A sentence for each kind of thing that is in more than one part, with the number of them."""
    content = same_content(one.audio for one in placed)

    def audio(one: Placed) -> str:
        return content.get(one.audio, str(one.audio))

    def line(one: Placed) -> str:
        return f"{one.text!r} {audio(one)}" if one.text else ""

    kinds: tuple[tuple[str, str, Callable[[Placed], str]], ...] = (
        ("speaker", "speakers", lambda one: one.speaker),
        ("session", "sessions", lambda one: one.session),
        ("audio file", "audio files", lambda one: str(one.audio)),
        ("audio content", "audio contents", audio),
        ("line of text with its audio", "lines of text with their audio", line),
    )
    found = {}
    for what, several, key in kinds:
        homes: dict[str, dict[str, str]] = defaultdict(dict)
        for one in placed:
            if name := key(one):  # nobody knows whether two speakers without a name are one
                homes[name].setdefault(one.part, one.utterance_id)
        shared = {
            name: dict(sorted(places.items(), key=lambda one: _order(one[0])))
            for name, places in homes.items()
            if len(places) > 1
        }
        if shared:
            shown = [f"{name} ({', '.join(places)})" for name, places in shared.items()]
            if "audio" in what:
                shown = [
                    " and ".join(f"{identity} ({part})" for part, identity in places.items())
                    for places in shared.values()
                ]
            more = ", ..." if len(shown) > _SHOWN else ""
            are = f"{what} is" if len(shared) == 1 else f"{several} are"
            found[what] = (
                f"{len(shared)} {are} in more than one {parts}: {', '.join(shown[:_SHOWN])}{more}"
            )
    return found


def _order(part: str) -> tuple[int, list[tuple[int, int, str]]]:
    return (SPLITS.index(part) if part in SPLITS else -1, natural_key(part))


def repeated_texts(placed: Sequence[Placed]) -> list[tuple[str, int, int, int]]:
    """Of dev and test: how many utterances say what one of train says, how many of these in
    `LINE_WORDS` words or more, and how many utterances it has.

    Nothing forbids it where speakers share a script, but a text encoder then needs to remember
    only.
    """
    known = {one.text for one in placed if one.part == "train" and one.text}
    rows = []
    for part in ("dev", "test"):
        texts = [one.text for one in placed if one.part == part]
        if repeated := [text for text in texts if text in known]:
            lines = sum(len(text.split()) >= LINE_WORDS for text in repeated)
            rows.append((part, len(repeated), lines, len(texts)))
    return rows


def same_content(clips: Iterable[Path]) -> dict[Path, str]:
    """A hash for each clip that has another clip's size; the others are alone."""
    sizes: dict[int, list[Path]] = defaultdict(list)
    for clip in set(clips):
        if clip.is_file():
            sizes[clip.stat().st_size].append(clip)
    found = {}
    for same in sizes.values():
        for clip in same if len(same) > 1 else []:
            with open(clip, "rb") as file:
                found[clip] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
