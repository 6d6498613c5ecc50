"""`mmm prepare csv`: any table with a row an utterance becomes a manifest. The path of a clip, its
text and its label are enough.
"""

import os
import re
from collections import Counter
from pathlib import Path

from mmm.corpora.columns import COLUMN_NAMES, OF_MANIFEST, chosen_columns, find_columns, missing
from mmm.corpora.dealing import split_counts
from mmm.corpora.label_sets import NAMED
from mmm.corpora.labels import label_set
from mmm.corpora.options import PrepareOptions
from mmm.corpora.prepared import PLACE, Prepared, prepare
from mmm.corpora.text_files import from_windows
from mmm.faults import Faults
from mmm.manifest import SPLITS, Manifest, ManifestError, split_by_session

_SPLIT_NAMES = {
    "val": "dev",
    "valid": "dev",
    "validation": "dev",
    "development": "dev",
    "eval": "dev",
    "training": "train",
    "testing": "test",
}
_WHOLE = re.compile(r"(-?[0-9]+)\.0+")  # a spreadsheet writes 1.0


def prepare_csv(
    source: Path, options: PrepareOptions | None = None, *, labels_of: str | None = None
) -> Prepared:
    """Read a table. Names of columns, labels and splits are brought to the manifest's.

    Without `utterance_id` a row is named by its file, without `dialogue_id` it is a dialogue of its
    own. Without `session` a session is a dialogue, and of rows that are dialogues of their own a
    speaker. Raises FileNotFoundError, ManifestError, or ValueError for options.
    """
    options = options or PrepareOptions()
    known, sentiment = (NAMED, 0.0) if labels_of is None else label_set(labels_of)
    prepared = prepare(source, options, known, is_closed=labels_of is not None, sentiment=sentiment)
    prepared.has_columns = True
    columns = (*OF_MANIFEST, "fold")
    chosen = chosen_columns(options.column or [], columns)
    table = prepared.texts.rows(source)
    if len(table) < 2:
        raise ManifestError(source, ["no utterances below a header"])
    (_, header), *records = table
    names = {column: COLUMN_NAMES.get(column, ()) for column in columns}
    places = find_columns(source, header, names, chosen)
    missing(source, header, [name for name in ("audio", "emotion") if name not in places])
    if "text" not in places and "text" not in chosen:
        missing(source, header, ["text"])
    if "dialogue_id" in places and "turn" not in places and "turn" not in chosen:
        missing(source, header, ["turn"])
    _tell_columns(prepared, header, places)
    faults = Faults()
    for line, fields in records:
        if len(fields) != len(header):
            few = "fewer" if len(fields) < len(header) else "more"
            advice = "is a quote or a delimiter missing?" if few == "fewer" else ""
            advice = advice or "is a text with the delimiter in it not quoted?"
            kind = f"{few} fields than the header's {len(header)}"
            faults.add(kind, f"line {line}", advice)
            continue
        _read_row(prepared, fields, header, places, line, faults)
    faults.stop(source)
    if not prepared.rows:
        raise ManifestError(source, ["no utterance is left"])
    _fill_in(prepared, places, chosen)
    return prepared


def _tell_columns(prepared: Prepared, header: list[str], places: dict[str, int]) -> None:
    for column, place in places.items():
        if header[place] != column:
            prepared.account.note("columns read as the manifest's", f"{header[place]} as {column}")


def _read_row(
    prepared: Prepared,
    fields: list[str],
    header: list[str],
    places: dict[str, int],
    line: int,
    faults: Faults,
) -> None:
    where, account = f"line {line}", prepared.account
    read = set(places.values())
    given = {column: fields[place] for column, place in places.items()}
    emotions = prepared.labels.read(given["emotion"], where, faults)
    if emotions is None:
        return
    audio = given["audio"]
    path = prepared.source.parent.resolve() / audio
    if "\\" in audio and not path.is_file():
        path = prepared.source.parent.resolve() / audio.replace("\\", "/")
        account.repair("paths with \\ read with /", where)
    text = from_windows(given.get("text", ""))
    if text != given.get("text", ""):
        account.repair("quotes and dashes of Windows restored", where)
    turn = given.get("turn", "")
    if whole := _WHOLE.fullmatch(turn):
        turn = whole[1]
        account.repair("turns such as 1.0 read as 1", where)
    split = given.get("split", "")
    if split:
        split = _SPLIT_NAMES.get(split.lower(), split.lower())
        if split != given["split"]:
            account.note(f"split {given['split']} read as {split}", where)
    row = {
        "utterance_id": given.get("utterance_id", ""),
        "dialogue_id": given.get("dialogue_id", ""),
        "turn": turn,
        "session": given.get("session", ""),
        "speaker": given.get("speaker", ""),
        "text": text,
        "audio": os.path.normpath(path) if audio else "",
        "emotion": ";".join(emotions),
        "split": split,
        PLACE: where,
    }
    for column in ("valence", "arousal", "fold"):
        if column in given:
            row[column] = given[column]
    if "votes" in given:
        row["votes"] = prepared.labels.votes(given["votes"].split("|"), where, faults)
    # What is none of the manifest's stays beside it, but what has no name.
    for place, name in enumerate(header):
        if name and place not in read and name not in row and name not in OF_MANIFEST:
            row[name] = fields[place]
    prepared.rows.append(row)


def _fill_in(prepared: Prepared, places: dict[str, int], chosen: dict[str, str]) -> None:
    """What the table does not say: ids, dialogues, turns, sessions, splits."""
    rows, source, account = prepared.rows, prepared.source, prepared.account
    if "utterance_id" not in places:
        _name_by_file(prepared)
    elif twice := _twice(rows):
        identity, first, second = twice
        raise ManifestError(
            source,
            [
                f"{second}: utterance_id {identity!r} is already on {first}; where it counts turns:"
                " --column turn=COLUMN; where rows have none of their own: --column utterance_id="
            ],
        )
    is_alone = "dialogue_id" not in places
    if is_alone:
        if "turn" in places:
            raise ManifestError(
                source,
                [
                    "line 1: a column for turn, but none for dialogue_id; name it: --column"
                    " dialogue_id=COLUMN, or say that rows are no dialogues: --column turn="
                ],
            )
        for row in rows:
            row["dialogue_id"], row["turn"] = row["utterance_id"], "0"
        account.note("rows without a dialogue, each its own", f"{len(rows):,} rows")
    elif "turn" not in places:
        counts: Counter[str] = Counter()
        for row in rows:
            row["turn"] = str(counts[row["dialogue_id"]])
            counts[row["dialogue_id"]] += 1
        account.note("turns in the order of rows, as asked", f"{len(rows):,} rows")
    if "session" in places:
        if "split" not in places and prepared.options.split_by is None:
            _deal_sessions(prepared)
        return
    for row in rows:
        row["session"] = (row["speaker"] if is_alone else "") or row["dialogue_id"]


def _deal_sessions(prepared: Prepared) -> None:
    """A table's sessions, in their order: the last fifth is test, the tenth before it dev."""
    options, rows = prepared.options, prepared.rows
    if options.shares is not None or options.folds is not None:
        return
    try:
        splits = split_by_session(row["session"] for row in rows)
    except ValueError as error:
        raise ManifestError(
            prepared.source,
            [f"line 1: no split column, and {error}; add one, or give --split-by dialogue"],
        ) from None
    for row in rows:
        row["split"] = splits[row["session"]]
    what = "sessions dealt to splits in their order, as there is no split column"
    prepared.account.note(what, split_counts(rows))


def _name_by_file(prepared: Prepared) -> None:
    """Rows named by the stems of their files, or where two have one by their paths."""
    rows, base = prepared.rows, prepared.source.parent.resolve()
    audio = Counter(row["audio"] for row in rows)
    faults = Faults()
    for row in rows:
        if row["audio"] and audio[row["audio"]] > 1:
            faults.add(
                "audio that another row has too",
                row[PLACE],
                "rows without an id are named by their files; give them ids in a column"
                " utterance_id",
            )
    faults.stop(prepared.source)
    names = [Path(row["audio"]).stem for row in rows]
    if len(set(names)) < len(names):
        names = [
            Path(os.path.relpath(row["audio"], base)).with_suffix("").as_posix() for row in rows
        ]
    if len(set(names)) < len(names):
        names = [Path(os.path.relpath(row["audio"], base)).as_posix() for row in rows]
    for row, name in zip(rows, names, strict=True):
        row["utterance_id"] = name if row["audio"] else ""
    prepared.account.note("rows named by their files", f"{names[0]}, ...")


def _twice(rows: list[dict[str, str]]) -> tuple[str, str, str] | None:
    """An id that two rows have, and their places."""
    first: dict[str, str] = {}
    for row in rows:
        if row["utterance_id"] and row["utterance_id"] in first:
            return row["utterance_id"], first[row["utterance_id"]], row[PLACE]
        first[row["utterance_id"]] = row[PLACE]
    return None


def describe(manifest: Manifest) -> list[tuple[str, ...]]:
    """Rows of a table for the terminal: labels by split, then sessions and speakers."""
    columns: list[list[object]] = []
    names = manifest.classes_of(range(len(manifest.utterances)))
    has_bare = any(not u.emotions for u in manifest.utterances)
    for split in SPLITS:
        if chosen := [u for u in manifest.utterances if u.split == split]:
            bare = {"without a label": sum(not u.emotions for u in chosen)} if has_bare else {}
            counts = {
                "utterances": len(chosen),
                "dialogues": len({u.dialogue_id for u in chosen}),
                "sessions": len({u.session for u in chosen}),
                "speakers": len({u.speaker for u in chosen if u.speaker}),
            }
            classes = [sum(name in u.emotions for u in chosen) for name in names]
            columns.append([split, *classes, *bare.values(), *counts.values()])
    titles = ["", *names, *bare, *counts]  # a label may be called as a count is
    return [
        (title, *(str(column[place]) for column in columns)) for place, title in enumerate(titles)
    ]
