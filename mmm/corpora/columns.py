"""Which column of a table is which of the manifest's: as `--column` says, else by its name."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmm.manifest import COLUMNS, ManifestError
from mmm.manifest_csv.rows import RATINGS

OF_MANIFEST = (*COLUMNS, "split", *RATINGS)
# Names that other corpora's tables use.
COLUMN_NAMES: dict[str, tuple[str, ...]] = {
    "utterance_id": ("id", "utt_id", "uttid", "utteranceid", "segment_id", "clip_id"),
    "dialogue_id": ("dialogue", "dialog_id", "dialog", "dialogueid", "conversation_id"),
    "turn": ("turn_id", "turn_number", "turn_index"),
    "session": ("session_id",),
    "speaker": ("speaker_id", "speakerid", "spk", "spk_id", "actor", "actor_id", "actorid"),
    "text": (
        *("utterance", "transcript", "transcription", "sentence", "content"),
        *("문장", "발화문", "발화"),
    ),
    "audio": (
        *("wav", "path", "file", "filename", "file_name", "filepath", "file_path", "audio_path"),
        *("audio_file", "audio_filepath", "wav_path", "wav_file", "clip", "파일명"),
    ),
    "emotion": ("label", "emotion_label", "emo", "감정", "감정_대분류"),
    "split": ("subset", "partition"),
}

_WITHOUT = {
    "text": ", or say that there is none: --column text=",
    "turn": ", or take the order of the rows: --column turn=",
}


def chosen_columns(changes: Sequence[str], allowed: Sequence[str]) -> dict[str, str]:
    """`text=sentence` of `--column` -> {"text": "sentence"}; an empty name is none. Raises
    ValueError.
    """
    found: dict[str, str] = {}
    for change in changes:
        name, equals, column = (part.strip() for part in change.partition("="))
        if not equals or name not in allowed:
            raise ValueError(
                f"--column {change!r}: expected the manifest's column, =, and the table's, such as"
                f" text=sentence; columns of the manifest are {', '.join(allowed)}"
            )
        if found.setdefault(name, column) != column:
            raise ValueError(f"--column names {name} twice: {found[name]} and {column}")
    return found


def find_columns(
    file: Path,
    header: Sequence[str],
    names: Mapping[str, tuple[str, ...]],
    chosen: Mapping[str, str],
) -> dict[str, int]:
    """Where each of the manifest's columns is in the table, of those that it has. A column's own
    name is one of its names.

    Raises ManifestError for one that is not there, is there twice, or could be several.
    """
    faults: list[str] = []
    shown = ", ".join(name for name in header if name)
    twice = sorted({name for name in header if name and header.count(name) > 1})
    faults += [f"line 1: column {name!r} occurs more than once" for name in twice]
    places: dict[str, int] = {}
    for column, wanted in chosen.items():
        if not wanted:
            continue
        same = [p for p, name in enumerate(header) if name == wanted]
        same = same or [p for p, name in enumerate(header) if name.lower() == wanted.lower()]
        if not same:
            faults.append(f"line 1: no column {wanted!r} for {column} (found: {shown})")
        else:
            places[column] = same[0]
    taken = set(places.values())
    for column, others in names.items():
        if column in chosen:
            continue
        known = (column, *others)
        could = [p for p, name in enumerate(header) if name.lower() in known and p not in taken]
        if len(could) > 1 and not twice:
            several = " and ".join(repr(header[place]) for place in could)
            typed = shlex.quote(f"{column}={header[could[0]]}")
            faults.append(
                f"line 1: columns {several} could be {column}; say which: --column {typed}"
            )
        elif could:
            places[column] = could[0]
    if faults:
        raise ManifestError(file, faults)
    return places


def missing(file: Path, header: Sequence[str], columns: Sequence[str]) -> None:
    """Raises ManifestError that the table has no such columns, and how to name them."""
    shown = ", ".join(name for name in header if name)
    faults = [
        f"line 1: no column for {column} (found: {shown}); name it: --column {column}=COLUMN"
        + _WITHOUT.get(column, "")
        for column in columns
    ]
    if faults:
        raise ManifestError(file, faults)
