"""A manifest's rows, one after the other: what is read of each, and what is wrong in it."""

import functools
import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmm.faults import Faults
from mmm.labels import label_fault
from mmm.manifest import COLUMNS, SPLITS
from mmm.manifest_csv.table import EXTRA_FIELDS

# Columns that a manifest may have beside these and `split`; others are left alone.
RATINGS = ("valence", "arousal", "votes")
_FOLD = re.compile(r"[1-9][0-9]{0,3}")
# But tab, newline; a carriage return is looked for on its own.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_TURN = re.compile(r"(-?[0-9]{1,9})(?:\.0+)?")  # a spreadsheet writes 1.0
# Columns that may be empty: nobody knows what was said or who spoke, nobody labelled the turn.
_MAY_BE_EMPTY = ("text", "speaker", "emotion")


@dataclass(frozen=True, slots=True)
class Ratings:
    valence: float | None = None
    arousal: float | None = None
    votes: tuple[tuple[str, ...], ...] = ()


def _names(text: str) -> tuple[str, ...]:
    """`happy; sad` -> ("happy", "sad")."""
    return tuple(name.strip() for name in text.split(";") if name.strip())


@functools.cache  # few different ones, each thousands of times
def _votes(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(_names(rater) for rater in text.split("|"))


@dataclass(frozen=True, slots=True)
class Row:
    """What an utterance is made of."""

    fields: list[str]  # of COLUMNS first
    turn: int | None
    emotions: tuple[str, ...]
    split: str  # empty where the manifest has none
    fold: int | None
    ratings: Ratings


class Rows:
    """Takes a manifest's rows one after the other. `faults` has what is wrong in each of them, and
    with those before it.
    """

    def __init__(self, header: Sequence[str], folder: Path, *, check_audio: bool) -> None:
        self.faults = Faults()
        self.rows: list[Row] = []
        self.labels: Counter[str] = Counter()  # rows that name each
        self.has_split, self.has_fold = "split" in header, "fold" in header
        self._rated = [column for column in RATINGS if column in header]
        self.columns = [
            *COLUMNS,
            *(["split"] if self.has_split else []),
            *(["fold"] if self.has_fold else []),
            *self._rated,
        ]
        self._header = f"the header's {len(header)}"
        self._folder, self._check_audio = str(folder), check_audio
        self._line = 0
        self._first_line: dict[str, int] = {}  # by utterance_id
        self._turns: dict[tuple[str, int], int] = {}  # line by dialogue and turn
        # Dialogue -> its first row's split, or session where there are no splits, and line.
        self._home: dict[str, tuple[str, int]] = {}
        self._fold_home: dict[str, tuple[str, int]] = {}  # dialogue -> its first row's fold, line
        self._exists: dict[str, bool] = {}  # audio files

    def _fault(self, what: str, advice: str = "", kind: str | None = None) -> None:
        self.faults.add(what, f"line {self._line}", advice, kind=kind)

    def take(self, line: int, row: Sequence[object]) -> None:
        """`row` holds the fields of `columns`, None for those that are missing at its end."""
        self._line = line
        fields = self._fields(row)
        if fields is None:
            return
        self._check_text(fields)
        utterance_id, dialogue_id, turn_text, session, _, _, audio, emotion = fields[:8]
        self._check_id(utterance_id)
        turn = self._turn(dialogue_id, turn_text)
        emotions = self._emotions(emotion)
        if audio and self._check_audio:
            self._check_file(audio)
        split = fields[8] if self.has_split else ""
        if self.has_split and split not in SPLITS:
            what = f"split {split!r} is none of {', '.join(SPLITS)}"
            self._fault(what if split else "split is empty")
        self._check_undivided(dialogue_id, split if self.has_split else session)
        fold = self._fold(dialogue_id, split, fields[8 + self.has_split]) if self.has_fold else None
        ratings = self._ratings(fields, emotions) if self._rated else Ratings()
        self.rows.append(Row(fields, turn, emotions, split, fold, ratings))

    def _fields(self, row: Sequence[object]) -> list[str] | None:
        """Stripped; None where they are not as many as the header's, or all are empty."""
        texts = [value for value in row if isinstance(value, str)]
        fields = [text.strip() for text in texts]
        is_short = len(texts) < len(row)
        if not any(texts if is_short else fields):
            self._fault("empty line", "remove it")
        elif is_short:
            self._fault(f"fewer fields than {self._header}", "is a quote or comma missing?")
        elif str(row[0]).startswith(EXTRA_FIELDS):
            self._fault(f"more fields than {self._header}", "is a text with a comma not quoted?")
        else:
            return fields
        return None

    def _check_text(self, fields: list[str]) -> None:
        has_control = _CONTROL.search("".join(fields))
        for column, value in zip(self.columns, fields, strict=True) if has_control else ():
            if control := _CONTROL.search(value.replace("\r\n", "\n")):
                self._fault(
                    f"{column} holds the control character U+{ord(control[0]):04X}",
                    "remove it",
                    f"{column} control",
                )
        for column, value in zip(COLUMNS, fields, strict=False) if "" in fields else ():
            if not value and column not in _MAY_BE_EMPTY:
                self._fault(f"{column} is empty")

    def _check_id(self, utterance_id: str) -> None:
        if utterance_id and utterance_id in self._first_line:
            self._fault(
                f"utterance_id {utterance_id!r} is already on line"
                f" {self._first_line[utterance_id]}",
                "ids must be unique",
                "id twice",
            )
        self._first_line.setdefault(utterance_id, self._line)

    def _turn(self, dialogue_id: str, text: str) -> int | None:
        found = _TURN.fullmatch(text)
        if found is None:
            if text:
                digits = " of up to 9 digits" if text.strip("-").isdigit() else ""
                self._fault(f"turn {text!r} is not a whole number{digits}", kind="turn number")
            return None
        turn = int(found[1])
        if dialogue_id and (dialogue_id, turn) in self._turns:
            self._fault(
                f"turn {turn} of dialogue {dialogue_id!r} is already on line"
                f" {self._turns[dialogue_id, turn]}",
                kind="turn twice",
            )
        self._turns.setdefault((dialogue_id, turn), self._line)
        return turn

    def _emotions(self, text: str) -> tuple[str, ...]:
        emotions = _names(text)
        if text and not emotions:
            self._fault(f"emotion {text!r} names no label", "leave it empty for a turn without one")
        for name in emotions:
            if what := label_fault(name):
                self._fault(f"emotion: {what}", kind="emotion label")
        if len(set(emotions)) < len(emotions):
            self._fault(f"emotion {text!r} names one label twice", kind="label twice")
        self.labels.update(set(emotions))
        return emotions

    def _check_file(self, audio: str) -> None:
        if audio not in self._exists:
            # Path.is_file raises for a name that is too long for the file system, and is slow where
            # there are thousands.
            self._exists[audio] = os.path.isfile(os.path.join(self._folder, audio))  # noqa: PTH113, PTH118
        if not self._exists[audio]:
            self._fault(
                f"audio file {audio!r} does not exist below {self._folder}/", kind="no audio"
            )

    def _check_undivided(self, dialogue_id: str, key: str) -> None:
        """`key`: its split, or its session, which is then dealt to a split as a whole."""
        if dialogue_id and key:
            there, there_line = self._home.setdefault(dialogue_id, (key, self._line))
            if there != key:
                what = "split" if self.has_split else "session"
                self._fault(
                    f"dialogue {dialogue_id!r} is in {what} {key!r} here and {there!r} on line"
                    f" {there_line}",
                    "a dialogue must not be divided",
                    "divided",
                )

    def _fold(self, dialogue_id: str, split: str, text: str) -> int | None:
        if text and not _FOLD.fullmatch(text):
            self._fault(
                f"fold {text!r} is not a whole number from 1 on",
                "leave it empty for none",
                "fold number",
            )
            text = ""
        if text and split == "test":
            self._fault(
                f"fold {text} of a row of test",
                "test rows belong to no fold, leave it empty",
                "fold of test",
            )
        if dialogue_id:
            there, there_line = self._fold_home.setdefault(dialogue_id, (text, self._line))
            if there != text:
                self._fault(
                    f"dialogue {dialogue_id!r} is in fold {text or 'none'} here and"
                    f" {there or 'none'} on line {there_line}",
                    "a dialogue must not be divided",
                    "divided between folds",
                )
        return int(text) if text else None

    def _ratings(self, fields: list[str], emotions: tuple[str, ...]) -> Ratings:
        """The optional columns: numbers, and raters divided by | who may have named several
        emotions or none.
        """
        given = dict(zip(self.columns, fields, strict=True))
        numbers: dict[str, float | None] = {"valence": None, "arousal": None}
        for column in numbers:
            if given.get(column):
                try:
                    numbers[column] = float(given[column])
                except ValueError:
                    numbers[column] = math.nan
                if not math.isfinite(numbers[column] or 0.0):
                    self._fault(
                        f"{column} {given[column]!r} is not a number", "", f"{column} number"
                    )
        text = given.get("votes", "")
        votes = _votes(text) if text else ()
        named = {name for rater in votes for name in rater}
        for name in sorted(named):
            if what := label_fault(name):
                self._fault(f"votes: {what}", "", "votes label")
        self.labels.update(named - set(emotions))
        return Ratings(numbers["valence"], numbers["arousal"], votes)
