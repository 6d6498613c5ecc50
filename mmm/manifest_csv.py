"""Reading and checking a manifest: every fault of the file at once, by line."""

import csv
import functools
import io
import itertools
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmm.files import sha256_of_file
from mmm.manifest import (
    COLUMNS,
    EMOTIONS,
    SPLITS,
    Manifest,
    ManifestError,
    Utterance,
    split_by_session,
)

if TYPE_CHECKING:
    import pandas as pd

# Columns that a manifest may have beside these and `split`; others are left alone.
RATINGS = ("valence", "arousal", "votes")
_FOLD = re.compile(r"[1-9][0-9]{0,3}")
# But tab, newline; a carriage return is looked for on its own.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_TURN = re.compile(r"-?[0-9]{1,9}")
# marks a row that had more fields than the header; no corpus uses this private character
_EXTRA_FIELDS = "\ue000"


def _decode_utf8(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"byte {error.start}: not UTF-8 ({error.reason}); save it as UTF-8"
        ) from None


def read_table(
    path: Path, decode: Callable[[bytes], str] = _decode_utf8
) -> "tuple[pd.DataFrame, list[int]]":
    """A CSV as strings (None for a missing field), with the line number each row starts on.

    `decode` raises ValueError with the place of what is no text. Raises FileNotFoundError and
    ManifestError.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such manifest; make one with: mmm prepare csv FILE -o manifest.csv"
        )

    try:
        text = decode(path.read_bytes()).removeprefix("\ufeff")
    except ValueError as error:
        raise ManifestError(path, [str(error)]) from None
    expected = f"expected a header with {', '.join(COLUMNS)}"
    if not text.strip():
        raise ManifestError(path, [f"line 1: the file is empty; {expected}"])
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    records: list[list[str | None]] = []
    lines: list[int] = []
    line = 1
    try:
        header = next(reader)
        if not header:
            raise ManifestError(path, [f"line 1: an empty line; {expected}"])
        if twice := sorted({name for name in header if header.count(name) > 1}):
            raise ManifestError(
                path, [f"line 1: column {name!r} occurs more than once" for name in twice]
            )
        # A quoted field may span lines, so a row's line is not its number plus two.
        line = reader.line_num + 1
        for fields in reader:
            if len(fields) > len(header):
                fields = [_EXTRA_FIELDS + fields[0], *fields[1 : len(header)]]
            records.append([*fields, *[None if fields else ""] * (len(header) - len(fields))])
            lines.append(line)
            line = reader.line_num + 1
    except csv.Error as error:
        raise ManifestError(
            path, [f"line {line}: not CSV ({error}); is a quote not closed, or not doubled?"]
        ) from None
    # Half a second to import, which a prediction must not wait for.
    import pandas as pd

    table = pd.DataFrame(records, columns=pd.Index(header), dtype=object)
    return table, lines


@dataclass(frozen=True, slots=True)
class _Ratings:
    valence: float | None = None
    arousal: float | None = None
    votes: tuple[tuple[str, ...], ...] = ()


def _names(text: str) -> tuple[str, ...]:
    """`happy; sad` -> ("happy", "sad")."""
    return tuple(name.strip() for name in text.split(";") if name.strip())


@functools.cache  # few different ones, each thousands of times
def _votes(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(_names(rater) for rater in text.split("|"))


def _read_ratings(fields: dict[str, str], fault: Callable[[str], None]) -> _Ratings:
    """The optional columns: numbers, and raters divided by | who may have named several emotions or
    none.
    """
    numbers: dict[str, float | None] = {"valence": None, "arousal": None}
    for column in numbers.keys() & fields.keys():
        if fields[column]:
            try:
                numbers[column] = float(fields[column])
            except ValueError:
                numbers[column] = math.nan
            if not math.isfinite(numbers[column] or 0.0):
                fault(f"{column} {fields[column]!r} is not a number")
    text = fields.get("votes", "")
    votes = _votes(text) if text else ()
    for name in sorted({name for rater in votes for name in rater if name not in EMOTIONS}):
        fault(
            f"votes name the unknown emotion {name!r}; expected {', '.join(EMOTIONS)} (raters"
            " divided by |)"
        )
    return _Ratings(numbers["valence"], numbers["arousal"], votes)


def read_manifest(path: Path | str, *, check_audio: bool = True) -> Manifest:
    """Read and check a manifest; every fault is listed at once.

    `check_audio=False` skips looking for the audio files, for machines that hold only the features.
    Raises FileNotFoundError, or ManifestError naming line, column, what was found and what was
    expected.
    """
    path = Path(path)
    table, lines = read_table(path)
    if missing := [column for column in COLUMNS if column not in table.columns]:
        found = ", ".join(map(str, table.columns))
        raise ManifestError(path, [f"line 1: no column {', '.join(missing)} (found: {found})"])
    if table.empty:
        raise ManifestError(path, ["no utterances below the header"])

    faults: list[tuple[int, str]] = []
    first_line: dict[str, int] = {}
    turns: dict[tuple[str, int], int] = {}
    home: dict[str, tuple[str, int]] = {}  # dialogue -> its first row's session and line
    parsed: list[tuple[list[str], int | None, tuple[str, ...], str, _Ratings, int | None]] = []
    has_split, has_fold = "split" in table.columns, "fold" in table.columns
    fold_home: dict[str, tuple[str, int]] = {}  # dialogue -> its first row's fold and line
    rated = [column for column in RATINGS if column in table.columns]
    wanted = [
        *COLUMNS,
        *(["split"] if has_split else []),
        *(["fold"] if has_fold else []),
        *rated,
    ]
    exists: dict[str, bool] = {}
    folder, header = str(path.parent), f"the header's {len(table.columns)}"
    for line, row in zip(lines, table[wanted].itertuples(index=False, name=None), strict=True):

        def fault(text: str, line: int = line) -> None:
            faults.append((line, text))

        if any(not isinstance(value, str) for value in row):
            if all(value == "" or not isinstance(value, str) for value in row):
                fault("empty line; remove it")
            else:
                fault(f"fewer fields than {header}; is a quote or comma missing?")
            continue
        fields = [value.strip() for value in row]
        if not any(fields):
            fault("empty line; remove it")
            continue
        if str(row[0]).startswith(_EXTRA_FIELDS):
            fault(f"more fields than {header}; is a text with a comma not quoted?")
            continue
        has_control = _CONTROL.search("".join(fields))
        for column, value in zip(wanted, fields, strict=True) if has_control else ():
            if control := _CONTROL.search(value.replace("\r\n", "\n")):
                fault(f"{column} holds the control character U+{ord(control[0]):04X}; remove it")
        utterance_id, dialogue_id, turn_text, session, _, _, audio, emotion = fields[:8]
        for column, value in zip(COLUMNS, fields, strict=False) if "" in fields else ():
            if not value and column != "text":
                fault(f"{column} is empty")
        if utterance_id and utterance_id in first_line:
            fault(
                f"utterance_id {utterance_id!r} is already on line {first_line[utterance_id]}; ids"
                " must be unique"
            )
        first_line.setdefault(utterance_id, line)
        turn: int | None = None
        if _TURN.fullmatch(turn_text):
            turn = int(turn_text)
            if dialogue_id and (dialogue_id, turn) in turns:
                fault(
                    f"turn {turn} of dialogue {dialogue_id!r} is already on line"
                    f" {turns[dialogue_id, turn]}"
                )
            turns.setdefault((dialogue_id, turn), line)
        elif turn_text:
            digits = " of up to 9 digits" if turn_text.strip("-").isdigit() else ""
            fault(f"turn {turn_text!r} is not a whole number{digits}")
        emotions = _names(emotion)
        if emotion and not emotions:
            fault(f"emotion {emotion!r} names no class")
        for name in emotions:
            if name not in EMOTIONS:
                known = ", ".join(EMOTIONS)
                fault(f"unknown emotion {name!r}; expected {known} (several joined by ;)")
        if len(set(emotions)) < len(emotions):
            fault(f"emotion {emotion!r} names one class twice")
        if audio and check_audio:
            if audio not in exists:
                # Path.is_file raises for a name that is too long for the file system, and is slow
                # where there are thousands.
                exists[audio] = os.path.isfile(os.path.join(folder, audio))  # noqa: PTH113, PTH118
            if not exists[audio]:
                fault(f"audio file {audio!r} does not exist below {path.parent}/")
        split = fields[8] if has_split else ""
        if has_split and split not in SPLITS:
            fault(f"split {split!r} is none of {', '.join(SPLITS)}" if split else "split is empty")
        key = split if has_split else session
        if dialogue_id and key:
            there, there_line = home.setdefault(dialogue_id, (key, line))
            if there != key:
                what = "split" if has_split else "session"
                fault(
                    f"dialogue {dialogue_id!r} is in {what} {key!r} here and {there!r} on line"
                    f" {there_line}; a dialogue must not be divided"
                )
        fold_text = fields[8 + has_split] if has_fold else ""
        if fold_text and not _FOLD.fullmatch(fold_text):
            fault(f"fold {fold_text!r} is not a whole number from 1 on; leave it empty for none")
            fold_text = ""
        if fold_text and split == "test":
            fault(f"fold {fold_text} of a row of test; test rows belong to no fold, leave it empty")
        if has_fold and dialogue_id:
            there, there_line = fold_home.setdefault(dialogue_id, (fold_text, line))
            if there != fold_text:
                fault(
                    f"dialogue {dialogue_id!r} is in fold {fold_text or 'none'} here and"
                    f" {there or 'none'} on line {there_line}; a dialogue must not be divided"
                )
        fold = int(fold_text) if fold_text else None
        ratings = _Ratings()
        if rated:
            values = dict(zip(wanted, fields, strict=True))
            ratings = _read_ratings({name: values[name] for name in rated}, fault)
        parsed.append((fields, turn, emotions, split, ratings, fold))

    by_session: dict[str, str] = {}
    if not has_split and not faults:
        try:
            by_session = split_by_session(fields[3] for fields, *_ in parsed)
        except ValueError as error:
            faults.append((1, f"no split column, and {error}; add a split column (train/dev/test)"))
    if has_split and not faults:
        used = {split for *_, split, _, _ in parsed}
        faults += [
            (1, f"the split column leaves {name} empty; every sweep needs train and dev")
            for name in ("train", "dev")
            if name not in used
        ]
    if has_fold and not faults:
        folds = {fold for *_, fold in parsed if fold is not None}
        expected = set(range(1, max(folds, default=0) + 1))
        if folds and (len(folds) < 2 or folds != expected):
            named = ", ".join(map(str, sorted(folds)))
            faults.append(
                (1, f"the fold column has {named}; expected 1 to k without a gap, k at least 2")
            )
    if faults:
        faults.sort(key=lambda one: one[0])
        raise ManifestError(path, [f"line {line}: {text}" for line, text in faults])

    order: dict[str, list[tuple[int, int]]] = {}
    for index, (fields, turn, *_) in enumerate(parsed):
        assert turn is not None
        order.setdefault(fields[1], []).append((turn, index))
    previous = [-1] * len(parsed)
    for members in order.values():
        members.sort()
        for (_, before), (_, after) in itertools.pairwise(members):
            previous[after] = before
    utterances = tuple(
        Utterance(
            utterance_id=fields[0],
            dialogue_id=fields[1],
            turn=turn or 0,
            session=fields[3],
            speaker=fields[4],
            text=fields[5],
            audio=fields[6],
            emotions=emotions,
            split=split or by_session[fields[3]],
            previous=previous[index],
            valence=ratings.valence,
            arousal=ratings.arousal,
            votes=ratings.votes,
            fold=fold,
        )
        for index, (fields, turn, emotions, split, ratings, fold) in enumerate(parsed)
    )
    present = {emotion for utterance in utterances for emotion in utterance.emotions}
    return Manifest(
        path, sha256_of_file(path), utterances, tuple(name for name in EMOTIONS if name in present)
    )
