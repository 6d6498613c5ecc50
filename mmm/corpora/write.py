"""From a reader's rows to a checked manifest: columns, splits, folds, and what they share."""

import os
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from mmm.corpora.columns import OF_MANIFEST, chosen_columns
from mmm.corpora.dealing import deal_folds, deal_splits
from mmm.corpora.leaks import LINE_WORDS, Placed, leaks, repeated_texts
from mmm.corpora.prepared import PLACE, Prepared
from mmm.files import write_json, write_text
from mmm.manifest import COLUMNS, ManifestError
from mmm.manifest_csv import read_manifest


def write_prepared(prepared: Prepared, out: Path) -> tuple[Path, list[str]]:
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
    shared = _shared(prepared)
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
    return account, shared


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


def _shared(prepared: Prepared) -> list[str]:
    """What splits share, and folds. Raises ValueError where that is refused."""
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
    found = leaks(by_split)
    if options.folds is not None:
        in_folds = placed([f"fold {row['fold']}" if row["fold"] else "" for row in rows])
        found += leaks(in_folds, "fold")
    if options.strict and found:
        key = "session" if options.split_by == "speaker" else "speaker"
        deal = f"--split-by {key}" if options.folds is None else f"--fold-by {key}"
        told = "".join(f"\n  {one}" for one in found)
        raise ValueError(
            f"{prepared.source}: --strict refuses what is shared:{told}\ndeal by what may not be"
            f" divided, such as {deal}, or leave --strict out"
        )
    for split, repeated, lines, total in repeated_texts(by_split):
        if lines:
            prepared.account.note(
                "texts that train has too, word for word",
                f"{split}: {repeated:,} of {total:,}, {lines:,} of them of {LINE_WORDS} words or"
                " more",
            )
    return found
