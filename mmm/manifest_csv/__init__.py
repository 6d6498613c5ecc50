"""Reading and checking a manifest: every kind of fault of the file at once, by its first line."""

import csv
import io
import itertools
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mmm.files import sha256_of_file
from mmm.labels import notes_of, spelling_fault
from mmm.manifest import (
    COLUMNS,
    Manifest,
    ManifestError,
    Utterance,
    class_order,
    split_by_session,
)
from mmm.manifest_csv.rows import RATINGS, Row, Rows
from mmm.manifest_csv.table import read_table


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

    read = Rows(list(table.columns), path.parent, check_audio=check_audio)
    wanted = table[read.columns].itertuples(index=False, name=None)
    for line, row in zip(lines, wanted, strict=True):
        read.take(line, row)
    command = f"mmm prepare csv {shlex.quote(str(path))} -o manifest.csv"
    if spellings := spelling_fault(read.labels, "the same command with" if source else command):
        read.faults.add(spellings, "line 1")
    by_session: dict[str, str] = {}
    if not read.has_split and not read.faults:
        try:
            by_session = split_by_session(row.fields[3] for row in read.rows)
        except ValueError as error:
            read.faults.add(
                f"no split column, and {error}; add a split column (train/dev/test)", "line 1"
            )
    if not read.faults:
        for fault in _of_columns(read):
            read.faults.add(fault, "line 1")
    read.faults.stop(path)
    utterances = _utterances(read.rows, by_session)
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


def _of_columns(read: Rows) -> Iterator[str]:
    """What is wrong with all splits or folds together."""
    used = {row.split for row in read.rows}
    empty = [name for name in ("train", "dev") if read.has_split and name not in used]
    for name in empty:
        yield f"the split column leaves {name} empty; every sweep needs train and dev"
    if empty:
        return
    folds = {row.fold for row in read.rows if row.fold is not None}
    if folds and (len(folds) < 2 or folds != set(range(1, max(folds) + 1))):
        named = ", ".join(map(str, sorted(folds)))
        yield f"the fold column has {named}; expected 1 to k without a gap, k at least 2"


def _utterances(rows: Sequence[Row], by_session: Mapping[str, str]) -> tuple[Utterance, ...]:
    """Each with the turn before it in its dialogue; its split is that of its session where the row
    names none.
    """
    order: dict[str, list[tuple[int, int]]] = {}
    for index, row in enumerate(rows):
        assert row.turn is not None
        order.setdefault(row.fields[1], []).append((row.turn, index))
    previous = [-1] * len(rows)
    for members in order.values():
        members.sort()
        for (_, before), (_, after) in itertools.pairwise(members):
            previous[after] = before
    return tuple(
        Utterance(
            utterance_id=row.fields[0],
            dialogue_id=row.fields[1],
            turn=row.turn or 0,
            session=row.fields[3],
            speaker=row.fields[4],
            text=row.fields[5],
            audio=row.fields[6],
            emotions=row.emotions,
            split=row.split or by_session[row.fields[3]],
            previous=before,
            valence=row.ratings.valence,
            arousal=row.ratings.arousal,
            votes=row.ratings.votes,
            fold=row.fold,
        )
        for row, before in zip(rows, previous, strict=True)
    )


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
