"""From a reader's rows to a checked manifest: columns, splits, folds, and what they share."""

import os
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from mmm.corpora.columns import OF_MANIFEST, chosen_columns
from mmm.corpora.dealing import advice, deal_folds, deal_splits
from mmm.corpora.leaks import LINE_WORDS, Placed, leaks, repeated_texts
from mmm.corpora.prepared import PLACE, Prepared
from mmm.files import write_json, write_text
from mmm.manifest import COLUMNS, ManifestError
from mmm.manifest_csv import read_manifest


def write_prepared(prepared: Prepared, out: Path) -> tuple[Path, list[str], str]:
    """Write the manifest, and beside it the account with every case, whose path is returned with
    what splits and folds share.

    Audio paths become relative to the manifest's folder. Raises ManifestError, and ValueError for
    options that do not fit the corpus.
    """
    if out.is_dir():
        raise ValueError(f"{out}: is a folder; name a file, such as {out / 'manifest.csv'}")
    if not prepared.rows:
        raise ManifestError(prepared.source, ["no utterance that can be used"])
    prepared.labels.check_used()
    prepared.labels.tell_doubtful()
    if not prepared.has_columns:
        _take_columns(prepared)
    deal_splits(prepared)
    deal_folds(prepared)
    shared, to_type = _shared(prepared)
    home = out.parent.resolve()
    names = [*COLUMNS, "split"]
    names += [name for name in prepared.rows[0] if name not in names and name != PLACE]
    table = pd.DataFrame(prepared.rows, columns=pd.Index(names))
    table["audio"] = [os.path.relpath(audio, home) if audio else "" for audio in table["audio"]]
    places = [row.get(PLACE, "") for row in prepared.rows]
    write_checked(out, table.to_csv(index=False, lineterminator="\n"), prepared.source, places)
    account = out.with_suffix(".account.json")
    about = {"source": str(prepared.source), "num_utterances": len(prepared.rows)}
    write_json(account, {**about, **asdict(prepared.account), "leaks": shared})
    return account, shared, to_type


def write_checked(out: Path, content: str, source: Path, places: list[str] | None = None) -> None:
    """Write a manifest that is faultless or not at all. Raises ManifestError about `source`, by its
    own lines where `places` says `line 7` of each row.
    """
    # Checked under another name in the same folder, so that audio paths mean the same and nothing
    # faulty stays.
    trial = out.with_name(f".{out.name}.checking")
    lines = [int(place.removeprefix("line ")) for place in places or [] if _is_line(place)]
    try:
        write_text(trial, content)
        is_table = places is not None and len(lines) == len(places)
        read_manifest(trial, source=source, source_lines=lines if is_table else None)
    finally:
        trial.unlink(missing_ok=True)
    write_text(out, content)


def _is_line(place: str) -> bool:
    return place.startswith("line ") and place.removeprefix("line ").isdigit()


def _take_columns(prepared: Prepared) -> None:
    """`--column session=speaker` of a corpus that is no table: of the columns that its reader
    gives.
    """
    chosen = chosen_columns(prepared.options.column or [], OF_MANIFEST)
    columns = [name for name in prepared.rows[0] if name != PLACE]
    for name, column in chosen.items():
        if column and column not in columns:
            raise ValueError(
                f"--column {name}={column}: no column {column!r} (found: {', '.join(columns)})"
            )
    for row in prepared.rows:
        row.update({name: row[column] if column else "" for name, column in chosen.items()})


def _fold(row: dict[str, str]) -> str:
    return f"fold {row['fold']}" if row["fold"] else row["split"]


def _shared(prepared: Prepared) -> tuple[list[str], str]:
    """What splits share, and folds, and the option that deals so that less is. Raises ValueError
    where that is refused.
    """
    options, rows = prepared.options, prepared.rows

    def placed(parts: list[str]) -> list[Placed]:
        return [
            Placed(
                part,
                row["utterance_id"],
                row["speaker"],
                row["session"],
                row["text"],
                Path(row["audio"]),
            )
            for row, part in zip(rows, parts, strict=True)
            if part
        ]

    by_split = placed([row["split"] for row in rows])
    of_splits = {} if prepared.is_dev_fold_1 else leaks(by_split)
    of_folds = {}
    if options.folds is not None:
        # A part of its own is test, which is in no fold.
        of_folds = leaks(placed([_fold(row) for row in rows]), "fold")
    found = [*of_splits.values(), *of_folds.values()]
    to_type = advice(prepared, {*of_splits, *of_folds})
    if options.strict and found:
        told = "".join(f"\n  {one}" for one in found)
        raise ValueError(
            f"{prepared.source}: --strict refuses what is shared:{told}\n"
            + (f"deal so that less is: {to_type}" if to_type else "no other dealing shares less")
            + "; or leave --strict out"
        )
    repeated = [
        f"{lines:,} of {total:,} {split}"
        for split, _, lines, total in repeated_texts(by_split)
        if lines
    ]
    if repeated:
        what = f"texts of {LINE_WORDS} words or more that train has too, word for word"
        prepared.account.note(what, ", ".join(repeated))
    return found, to_type
