"""The manifest: one CSV that says what was said, by whom, with which label and in which split."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

# Labels that every corpus may have, in the published order. A corpus has the labels it has, though.
EMOTIONS = ("neutral", "happy", "surprise", "angry", "sad", "disgust", "fear")
SPLITS = ("train", "dev", "test")
COLUMNS = ("utterance_id", "dialogue_id", "turn", "session", "speaker", "text", "audio", "emotion")


class ManifestError(ValueError):
    """A manifest, or a corpus to make one of, that cannot be used. `faults` holds every fault
    found, each with its place.
    """

    def __init__(self, path: Path, faults: Sequence[str]) -> None:
        self.path, self.faults = path, tuple(faults)
        shown = "\n".join(f"  {fault}" for fault in faults)
        super().__init__(
            f"{path}: {len(faults)} {'fault' if len(faults) == 1 else 'faults'}\n{shown}"
        )


@dataclass(frozen=True, slots=True)
class Utterance:
    """One clip with its text. `audio` is as written in the manifest; `emotions` are its labels,
    none where nobody labelled it: then it is context of the turns after it and no more.
    """

    utterance_id: str
    dialogue_id: str
    turn: int
    session: str
    speaker: str
    text: str
    audio: str
    emotions: tuple[str, ...]
    split: str
    previous: int  # index in the manifest of the turn before it in its dialogue, -1 for the first
    valence: float | None = None  # mean of the raters, on the corpus' own scale
    arousal: float | None = None
    votes: tuple[tuple[str, ...], ...] = ()  # what each rater chose, in the raters' order
    fold: int | None = None  # 1 to k, in which it is held out; None: in no fold, as all of test

    @property
    def shares(self) -> dict[str, float]:
        """The share of each emotion, summing to 1: of the raters' votes where there are any, else
        of `emotions`.

        A rater who named several emotions divides one vote among them.
        """
        votes = [names for names in self.votes if names] or [self.emotions]
        found: dict[str, float] = {}
        for names in votes:
            for name in names:
                found[name] = found.get(name, 0.0) + 1 / len(names) / len(votes)
        return found


@dataclass(frozen=True)
class Manifest:
    """A checked manifest. The test split is sealed: `rows` refuses it, `open_test` is the one way
    in.

    What is trained on and scored are labelled utterances alone; the others are in `utterances`, for
    `history` and for features.
    """

    path: Path
    sha256: str
    utterances: tuple[Utterance, ...]
    # What a model can answer: the labels that occur in train or in a fold, in `class_order`.
    classes: tuple[str, ...]
    # What whoever trains on it should know of its labels; nothing of the test split's.
    notes: tuple[str, ...] = ()

    def rows(self, split: str) -> list[int]:
        """Indices of the labelled utterances of `train` or `dev`."""
        return [index for index in self.turns(split) if self.utterances[index].emotions]

    def turns(self, split: str) -> list[int]:
        """Indices of all utterances of `train` or `dev`, with a label or without."""
        assert split in ("train", "dev"), f"{split!r} is sealed; mmm.bundle.sealed_test reads it"
        return [index for index, one in enumerate(self.utterances) if one.split == split]

    def classes_of(self, rows: Iterable[int]) -> tuple[str, ...]:
        """`classes`, then those of these utterances that are not among them, which no model can
        answer.
        """
        named = {name for row in rows for name in self.utterances[row].emotions}
        return self.classes + class_order(named.difference(self.classes))

    @property
    def num_folds(self) -> int:
        """Folds of cross-validation; 0 where the manifest has none."""
        return max((one.fold or 0 for one in self.utterances), default=0)

    def fold_rows(self, fold: int) -> tuple[list[int], list[int]]:
        """Indices of the labelled utterances to train on in fold `fold` of 1 to `num_folds`, and of
        those held out.
        """
        assert 1 <= fold <= self.num_folds, fold
        in_folds = self.rows_in_folds()
        held_out = [index for index in in_folds if self.utterances[index].fold == fold]
        return [i for i in in_folds if self.utterances[i].fold != fold], held_out

    def rows_in_folds(self) -> list[int]:
        """Indices of all labelled utterances that are in a fold."""
        return [
            index
            for index, one in enumerate(self.utterances)
            if one.fold is not None and one.emotions
        ]

    def sealed_test_rows(self) -> list[int]:
        """Indices of the test split's labelled utterances, for `mmm test` alone, which writes down
        that it looked.
        """
        return [
            index
            for index, one in enumerate(self.utterances)
            if one.split == "test" and one.emotions
        ]

    def audio_path(self, utterance: Utterance) -> Path:
        return self.path.parent / utterance.audio

    def history(self, index: int, context: int) -> list[int]:
        """The utterance and up to `context - 1` turns before it in its dialogue, most recent
        first.
        """
        found = [index]
        while len(found) < context and self.utterances[found[-1]].previous >= 0:
            found.append(self.utterances[found[-1]].previous)
        return found


def class_order(names: Iterable[str]) -> tuple[str, ...]:
    """Labels in the order of every table: those of EMOTIONS in theirs, then the others by name."""
    given = set(names)
    known = tuple(name for name in EMOTIONS if name in given)
    others = given.difference(EMOTIONS)
    return known + tuple(sorted(others, key=lambda name: (name.casefold(), name)))


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Sorts session2 before session10."""
    parts = re.split(r"([0-9]+)", text)
    # Numbers by their length, then their digits: int() refuses thousands of digits.
    return [
        (1, len(digits := part.lstrip("0")), digits) if place % 2 else (0, 0, part)
        for place, part in enumerate(parts)
    ]


def split_by_session(sessions: Iterable[str]) -> dict[str, str]:
    """A split for each session: the last fifth is test and the tenth before it dev, as KEMDy20's
    33-40 and 29-32.

    Raises ValueError with fewer than three sessions.
    """
    ordered = sorted(set(sessions), key=lambda name: (natural_key(name), name))  # 1 before 01
    if len(ordered) < 3:
        raise ValueError(f"needs at least 3 sessions to split by session, found {len(ordered)}")
    num_test = max(1, round(len(ordered) * 0.2))
    num_dev = max(1, round(len(ordered) * 0.1))
    num_train = len(ordered) - num_test - num_dev
    names = ["train"] * num_train + ["dev"] * num_dev + ["test"] * num_test
    return dict(zip(ordered, names, strict=True))


_TURN_BREAK = "\x1e"


def with_speaker(speaker: str, text: str) -> str:
    """`NAME: text`, as EmoBERTa reads a line (Kim and Vossen 2021, arXiv:2108.12009), the name as
    it is; where nobody knows who speaks, the text.
    """
    return f"{speaker}: {text}" if speaker else text


def turns_of(
    manifest: Manifest, index: int, context: int, with_speakers: bool = False
) -> list[str]:
    """The text of the utterance and of the turns before it, most recent first."""
    turns = (manifest.utterances[row] for row in manifest.history(index, context))
    return [with_speaker(turn.speaker, turn.text) if with_speakers else turn.text for turn in turns]


def speech_key(manifest: Manifest, index: int) -> int:
    utterance = manifest.utterances[index]
    return utterance_key(utterance.utterance_id, utterance.audio)


def text_key(manifest: Manifest, index: int, context: int, with_speakers: bool = False) -> int:
    return utterance_key(
        manifest.utterances[index].utterance_id,
        _TURN_BREAK.join(turns_of(manifest, index, context, with_speakers)),
    )


def utterance_key(utterance_id: str, source: str) -> int:
    """64-bit key of an utterance and of what its features were made from (audio path, or text with
    its context).
    """
    digest = hashlib.blake2b(f"{utterance_id}\0{source}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")
