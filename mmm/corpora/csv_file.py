"""`mmm prepare csv`: any CSV with the manifest's columns, under usual other names too, becomes a
manifest.
"""

import os
from pathlib import Path

from mmm.corpora.account import EMOTION_NAMES, write_checked
from mmm.corpora.text_files import decode
from mmm.manifest import COLUMNS, EMOTIONS, ManifestError, split_by_session
from mmm.manifest_csv import read_manifest, read_table

# Names that other corpora's tables use.
_COLUMN_NAMES = {
    "id": "utterance_id",
    "utt_id": "utterance_id",
    "dialogue": "dialogue_id",
    "dialog_id": "dialogue_id",
    "turn_id": "turn",
    "utterance": "text",
    "transcript": "text",
    "wav": "audio",
    "path": "audio",
    "file": "audio",
    "label": "emotion",
    "subset": "split",
}
_SPLIT_NAMES = {
    "val": "dev",
    "valid": "dev",
    "validation": "dev",
    "development": "dev",
    "training": "train",
}


def prepare_csv(source: Path, out: Path) -> dict[str, int]:
    """Write `out` from `source`; audio paths become relative to `out`. Returns what was repaired
    and how often.

    Column names and the names of emotions and splits are brought to the manifest's; without
    `session` each dialogue is one; without `split` sessions are dealt to splits. Raises
    FileNotFoundError or ManifestError; `out` is written only when it is faultless.
    """
    table, lines = read_table(source, decode)
    repaired = {
        "columns renamed": 0,
        "emotions renamed": 0,
        "splits renamed": 0,
        "splits added": 0,
        "sessions added": 0,
    }
    renamed = {
        name: new
        for name in table.columns
        if (new := _COLUMN_NAMES.get(str(name).strip().lower(), str(name).strip().lower())) != name
    }
    clashes = [
        new
        for new in renamed.values()
        if list(renamed.values()).count(new) > 1 or new in table.columns
    ]
    if clashes:
        raise ManifestError(
            source,
            [f"line 1: several columns would become {', '.join(sorted(set(clashes)))}; keep one"],
        )
    table = table.rename(columns=renamed)
    repaired["columns renamed"] = len(renamed)
    if "session" not in table.columns and "dialogue_id" in table.columns:
        table["session"] = table["dialogue_id"]
        repaired["sessions added"] = len(set(table["session"]))
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise ManifestError(
            source,
            [
                f"line 1: no column {', '.join(missing)} (found:"
                f" {', '.join(map(str, table.columns))})"
            ],
        )
    if table.isna().any(axis=None):
        bad = [line for line, broken in zip(lines, table.isna().any(axis=1), strict=True) if broken]
        raise ManifestError(
            source, [f"line {line}: fewer fields than the header's" for line in bad]
        )
    emotions = [
        ";".join(
            EMOTION_NAMES.get(name.strip().lower(), name.strip().lower())
            for name in value.split(";")
        )
        for value in table["emotion"]
    ]
    repaired["emotions renamed"] = sum(
        a != b for a, b in zip(emotions, table["emotion"], strict=True)
    )
    table["emotion"] = emotions
    if "split" in table.columns:
        splits = [
            _SPLIT_NAMES.get(value.strip().lower(), value.strip().lower())
            for value in table["split"]
        ]
        repaired["splits renamed"] = sum(
            a != b for a, b in zip(splits, table["split"], strict=True)
        )
        table["split"] = splits
    else:
        try:
            table["split"] = table["session"].map(split_by_session(table["session"]))
        except ValueError as error:
            raise ManifestError(
                source, [f"line 1: no split column, and {error}; add a split column"]
            ) from None
        repaired["splits added"] = len(table)
    base, home = source.parent.resolve(), out.parent.resolve()
    table["audio"] = [
        os.path.relpath(base / audio, home) if audio else "" for audio in table["audio"]
    ]
    write_checked(out, table.to_csv(index=False, lineterminator="\n"), source)
    return {what: count for what, count in repaired.items() if count}


def describe(path: Path) -> list[tuple[str, ...]]:
    """Rows of a table for the terminal: classes by split, then sessions and speakers."""
    manifest = read_manifest(path, check_audio=False)
    splits = [
        split
        for split in ("train", "dev", "test")
        if any(u.split == split for u in manifest.utterances)
    ]
    rows: list[tuple[str, ...]] = [("", *splits)]
    for name in (
        *(name for name in EMOTIONS if name in manifest.classes),
        "utterances",
        "dialogues",
        "sessions",
        "speakers",
    ):
        row = [name]
        for split in splits:
            chosen = [u for u in manifest.utterances if u.split == split]
            values = {
                "utterances": len(chosen),
                "dialogues": len({u.dialogue_id for u in chosen}),
                "sessions": len({u.session for u in chosen}),
                "speakers": len({u.speaker for u in chosen}),
            }
            row.append(str(values.get(name, sum(name in u.emotions for u in chosen))))
        rows.append(tuple(row))
    return rows
