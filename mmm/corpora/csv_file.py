"""`mmm prepare csv`: any CSV with the manifest's columns, under usual other names too, becomes a
manifest.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from mmm.corpora.account import EMOTION_NAMES, write_checked
from mmm.corpora.text_files import decode
from mmm.manifest import COLUMNS, SPLITS, Manifest, ManifestError, split_by_session
from mmm.manifest_csv import read_table

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


def _renamed(name: str, known: Mapping[str, str]) -> str:
    name = name.strip().lower()
    return known.get(name, name)


def prepare_csv(source: Path, out: Path) -> dict[str, int]:
    """Write `out` from `source`; audio paths become relative to `out`. Returns what was repaired
    and how often.

    Column names and the names of emotions and splits are brought to the manifest's; without
    `session` each dialogue is one; without `split` sessions are dealt to splits. Raises
    FileNotFoundError or ManifestError; `out` is written only when it is faultless.
    """
    table, lines = read_table(source, decode)
    repairs = ("columns renamed", "emotions renamed", "splits renamed")
    repaired = dict.fromkeys((*repairs, "splits added", "sessions added"), 0)
    names = {name: _renamed(str(name), _COLUMN_NAMES) for name in table.columns}
    renamed = {name: new for name, new in names.items() if new != name}
    new_names = list(renamed.values())
    clashes = {new for new in new_names if new_names.count(new) > 1 or new in table.columns}
    if clashes:
        fault = f"line 1: several columns would become {', '.join(sorted(clashes))}; keep one"
        raise ManifestError(source, [fault])
    table = table.rename(columns=renamed)
    repaired["columns renamed"] = len(renamed)
    if "session" not in table.columns and "dialogue_id" in table.columns:
        table["session"] = table["dialogue_id"]
        repaired["sessions added"] = len(set(table["session"]))
    if missing := [column for column in COLUMNS if column not in table.columns]:
        found = ", ".join(map(str, table.columns))
        raise ManifestError(source, [f"line 1: no column {', '.join(missing)} (found: {found})"])
    broken = table.isna().any(axis=1)
    if broken.any():
        bad = [line for line, is_broken in zip(lines, broken, strict=True) if is_broken]
        raise ManifestError(
            source, [f"line {line}: fewer fields than the header's" for line in bad]
        )
    for column, known in (("emotion", EMOTION_NAMES), ("split", _SPLIT_NAMES)):
        if column in table.columns:
            values = [
                ";".join(_renamed(name, known) for name in value.split(";"))
                for value in table[column]
            ]
            repaired[f"{column}s renamed"] = int((table[column] != values).sum())
            table[column] = values
    if "split" not in table.columns:
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
