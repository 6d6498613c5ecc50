"""Reading and checking a manifest: every kind of fault of the file at once, by its first line."""

import csv
import functools
import io
import itertools
import math
import os
import re
import shlex
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mmm.faults import Faults, csv_fault
from mmm.files import sha256_of_file
from mmm.labels import label_fault, notes_of, spelling_fault
from mmm.manifest import (
    COLUMNS,
    SPLITS,
    Manifest,
    ManifestError,
    Utterance,
    class_order,
    split_by_session,
)

if TYPE_CHECKING:
    import pandas as pd

# Columns that a manifest may have beside these and `split`; others are left alone.
RATINGS = ("valence", "arousal", "votes")
_FOLD = re.compile(r"[1-9][0-9]{0,3}")
# But tab, newline; a carriage return is looked for on its own.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_TURN = re.compile(r"(-?[0-9]{1,9})(?:\.0+)?")  # a spreadsheet writes 1.0
# Columns that may be empty: nobody knows what was said or who spoke, nobody labelled the turn.
_MAY_BE_EMPTY = ("text", "speaker", "emotion")
# marks a row that had more fields than the header; no corpus uses this private character
_EXTRA_FIELDS = "\ue000"


def read_table(path: Path) -> "tuple[pd.DataFrame, list[int]]":
    """A CSV as strings (None for a missing field), with the line number each row starts on.

    Raises FileNotFoundError and ManifestError.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such manifest; make one with: mmm prepare csv FILE -o manifest.csv"
        )

    try:
        text = path.read_bytes().decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        fault = f"byte {error.start}: not UTF-8 ({error.reason}); save it as UTF-8"
        raise ManifestError(path, [fault]) from None
    expected = f"expected a header with {', '.join(COLUMNS)}"
    if not text.strip():
        raise ManifestError(path, [f"line 1: the file is empty; {expected}"])
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    records: list[list[str | None]] = []
    lines: list[int] = []
    header: list[str] = []
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
        raise ManifestError(path, [csv_fault(error, text, line, header)]) from None
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


def _read_ratings(fields: dict[str, str], fault: Callable[[str, str, str], None]) -> _Ratings:
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
                fault(f"{column} {fields[column]!r} is not a number", "", f"{column} number")
    text = fields.get("votes", "")
    votes = _votes(text) if text else ()
    for name in sorted({name for rater in votes for name in rater}):
        if what := label_fault(name):
            fault(f"votes: {what}", "", "votes label")
    return _Ratings(numbers["valence"], numbers["arousal"], votes)


def read_manifest(
    path: Path | str,
    *,
    check_audio: bool = True,
    source: Path | None = None,
    source_lines: list[int] | None = None,
) -> Manifest:
    """Read and check a manifest; every kind of fault is listed at once, with how many rows have it.

    `check_audio=False` skips looking for the audio files, for machines that hold only the features.
    `source` is the corpus that it was just made of, which the faults are then told of, by its
    `source_lines` where each row is from a line of it. Raises FileNotFoundError, or ManifestError
    naming line, column, what was found and what was expected.
    """
    path = Path(path)
    try:
        return _read(path, check_audio, source, source_lines)
    except ManifestError as error:
        raise ManifestError(source or path, error.faults) from None


def _read(
    path: Path, check_audio: bool, source: Path | None, source_lines: list[int] | None
) -> Manifest:
    table, lines = read_table(path)
    if source_lines is not None:
        lines = source_lines
    if missing := [column for column in COLUMNS if column not in table.columns]:
        found = ", ".join(map(str, table.columns))
        raise ManifestError(path, [f"line 1: no column {', '.join(missing)} (found: {found})"])
    if table.empty:
        raise ManifestError(path, ["no utterances below the header"])

    faults = Faults()
    first_line: dict[str, int] = {}
    turns: dict[tuple[str, int], int] = {}
    home: dict[str, tuple[str, int]] = {}  # dialogue -> its first row's session and line
    labels: Counter[str] = Counter()  # rows that name each
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

        def fault(what: str, advice: str = "", kind: str | None = None, line: int = line) -> None:
            faults.add(what, f"line {line}", advice, kind=kind)

        if any(not isinstance(value, str) for value in row):
            if all(value == "" or not isinstance(value, str) for value in row):
                fault("empty line", "remove it")
            else:
                fault(f"fewer fields than {header}", "is a quote or comma missing?")
            continue
        fields = [value.strip() for value in row]
        if not any(fields):
            fault("empty line", "remove it")
            continue
        if str(row[0]).startswith(_EXTRA_FIELDS):
            fault(f"more fields than {header}", "is a text with a comma not quoted?")
            continue
        has_control = _CONTROL.search("".join(fields))
        for column, value in zip(wanted, fields, strict=True) if has_control else ():
            if control := _CONTROL.search(value.replace("\r\n", "\n")):
                fault(
                    f"{column} holds the control character U+{ord(control[0]):04X}",
                    "remove it",
                    f"{column} control",
                )
        utterance_id, dialogue_id, turn_text, session, _, _, audio, emotion = fields[:8]
        for column, value in zip(COLUMNS, fields, strict=False) if "" in fields else ():
            if not value and column not in _MAY_BE_EMPTY:
                fault(f"{column} is empty")
        if utterance_id and utterance_id in first_line:
            fault(
                f"utterance_id {utterance_id!r} is already on line {first_line[utterance_id]}",
                "ids must be unique",
                "id twice",
            )
        first_line.setdefault(utterance_id, line)
        turn: int | None = None
        if found_turn := _TURN.fullmatch(turn_text):
            turn = int(found_turn[1])
            if dialogue_id and (dialogue_id, turn) in turns:
                fault(
                    f"turn {turn} of dialogue {dialogue_id!r} is already on line"
                    f" {turns[dialogue_id, turn]}",
                    kind="turn twice",
                )
            turns.setdefault((dialogue_id, turn), line)
        elif turn_text:
            digits = " of up to 9 digits" if turn_text.strip("-").isdigit() else ""
            fault(f"turn {turn_text!r} is not a whole number{digits}", kind="turn number")
        emotions = _names(emotion)
        if emotion and not emotions:
            fault(f"emotion {emotion!r} names no label", "leave it empty for a turn without one")
        for name in emotions:
            if what := label_fault(name):
                fault(f"emotion: {what}", kind="emotion label")
        if len(set(emotions)) < len(emotions):
            fault(f"emotion {emotion!r} names one label twice", kind="label twice")
        labels.update(set(emotions))
        if audio and check_audio:
            if audio not in exists:
                # Path.is_file raises for a name that is too long for the file system, and is slow
                # where there are thousands.
                exists[audio] = os.path.isfile(os.path.join(folder, audio))  # noqa: PTH113, PTH118
            if not exists[audio]:
                fault(f"audio file {audio!r} does not exist below {path.parent}/", kind="no audio")
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
                    f" {there_line}",
                    "a dialogue must not be divided",
                    "divided",
                )
        fold_text = fields[8 + has_split] if has_fold else ""
        if fold_text and not _FOLD.fullmatch(fold_text):
            fault(
                f"fold {fold_text!r} is not a whole number from 1 on",
                "leave it empty for none",
                "fold number",
            )
            fold_text = ""
        if fold_text and split == "test":
            fault(
                f"fold {fold_text} of a row of test",
                "test rows belong to no fold, leave it empty",
                "fold of test",
            )
        if has_fold and dialogue_id:
            there, there_line = fold_home.setdefault(dialogue_id, (fold_text, line))
            if there != fold_text:
                fault(
                    f"dialogue {dialogue_id!r} is in fold {fold_text or 'none'} here and"
                    f" {there or 'none'} on line {there_line}",
                    "a dialogue must not be divided",
                    "divided between folds",
                )
        fold = int(fold_text) if fold_text else None
        ratings = _Ratings()
        if rated:
            values = dict(zip(wanted, fields, strict=True))
            ratings = _read_ratings({name: values[name] for name in rated}, fault)
            labels.update({name for rater in ratings.votes for name in rater} - set(emotions))
        parsed.append((fields, turn, emotions, split, ratings, fold))

    command = f"mmm prepare csv {shlex.quote(str(path))} -o manifest.csv"
    if spellings := spelling_fault(labels, "the same command with" if source else command):
        faults.add(spellings, "line 1")
    by_session: dict[str, str] = {}
    if not has_split and not faults:
        try:
            by_session = split_by_session(fields[3] for fields, *_ in parsed)
        except ValueError as error:
            faults.add(
                f"no split column, and {error}; add a split column (train/dev/test)", "line 1"
            )
    if has_split and not faults:
        used = {split for *_, split, _, _ in parsed}
        for name in ("train", "dev"):
            if name not in used:
                faults.add(
                    f"the split column leaves {name} empty; every sweep needs train and dev",
                    "line 1",
                )
    if has_fold and not faults:
        folds = {fold for *_, fold in parsed if fold is not None}
        expected = set(range(1, max(folds, default=0) + 1))
        if folds and (len(folds) < 2 or folds != expected):
            named = ", ".join(map(str, sorted(folds)))
            faults.add(
                f"the fold column has {named}; expected 1 to k without a gap, k at least 2",
                "line 1",
            )
    faults.stop(path)

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
    classes = class_order(
        name
        for one in utterances
        if one.split == "train" or one.fold is not None
        for name in one.emotions
    )
    manifest = Manifest(path, sha256_of_file(path), utterances, classes)
    if unusable := _unlabelled(manifest):
        raise ManifestError(path, unusable)
    return replace(manifest, notes=notes_of(manifest))


def _unlabelled(manifest: Manifest) -> list[str]:
    """Faults of parts that nothing can be trained on, or scored on, for want of labels."""
    found = [
        f"no row of {split} has a label; every sweep needs labelled rows in train and dev"
        for split in ("train", "dev")
        if not manifest.rows(split)
    ]
    found += [
        f"no row of fold {fold} has a label"
        for fold in range(1, manifest.num_folds + 1)
        if not manifest.fold_rows(fold)[1]
    ]
    return [f"line 1: {text}" for text in found]


def manifest_text(manifest: Manifest) -> str:
    """The content of a file that `read_manifest` reads as these utterances."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, "split", "fold", *RATINGS])
    for one in manifest.utterances:
        numbers = ["" if value is None else repr(value) for value in (one.valence, one.arousal)]
        writer.writerow(
            [
                *(one.utterance_id, one.dialogue_id, one.turn, one.session, one.speaker, one.text),
                *(one.audio, ";".join(one.emotions), one.split, one.fold or "", *numbers),
                "|".join(";".join(names) for names in one.votes),
            ]
        )
    return text.getvalue()
