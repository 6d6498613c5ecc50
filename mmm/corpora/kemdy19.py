"""`mmm prepare kemdy19`: KEMDy19 (Noh and Jeong 2019), by what public readers of it tell of its
layout.

annotation/SessionNN_{F,M}_res.csv has two header rows and 43 columns: segment id at index 9, total
emotion, valence and arousal at 10 to 12, then ten raters' triples. Each file lists both speakers'
segments, in order of conversation; the rows of its own speaker count. wav/SessionNN/SessNN_impro01/
has ID.wav and ID.txt, in UTF-8.
"""

import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from mmm.corpora.account import is_stray, usable_sound
from mmm.corpora.kemdy20 import read_labels, read_transcript, rows_below_headers
from mmm.corpora.options import PrepareOptions
from mmm.corpora.prepared import PLACE, Prepared, prepare
from mmm.corpora.sessions import split_of_sessions
from mmm.corpora.text_files import cleaning
from mmm.faults import Faults
from mmm.manifest import ManifestError

_NUM_COLUMNS, _ID, _TOTALS = 43, 9, 10
_FILE = re.compile(r"Session([0-9]{2})_([FM])_res\.csv", re.IGNORECASE)
_SEGMENT_ID = re.compile(
    r"Sess([0-9]{2})_((?:impro|script)[0-9]{2})_(?:User[0-9]{3})?([FM])_?([0-9]{3})"
)


def prepare_kemdy19(
    path: Path,
    *,
    dev_sessions: str = "15-16",
    test_sessions: str = "17-20",
    text: str = "default",
    options: PrepareOptions | None = None,
) -> Prepared:
    """Read the corpus at `path`. Raises FileNotFoundError, ManifestError with every fault, or
    ValueError for options.
    """
    clean = cleaning(text)
    annotations = path / "annotation"
    if not annotations.is_dir():
        raise FileNotFoundError(
            f"{path}: no annotation/ in it; expected the folder with KEMDy19's annotation/ and wav/"
        )
    files: dict[int, dict[str, Path]] = defaultdict(dict)
    for file in sorted(annotations.iterdir()):
        if match := _FILE.fullmatch(file.name):
            files[int(match[1])][match[2].upper()] = file
    if not files:
        raise FileNotFoundError(
            f"{annotations}: no SessionNN_F_res.csv or SessionNN_M_res.csv in it; is it KEMDy19?"
        )
    splits = split_of_sessions(list(files), dev_sessions, test_sessions)
    prepared = prepare(path, options or PrepareOptions(), is_korean=True)
    prepared.fold_by = "session"
    faults: list[str] = []
    annotated: set[str] = set()
    for session, by_sex in sorted(files.items()):
        if missing := {"F", "M"} - by_sex.keys():
            prepared.account.leave_out(
                f"speaker without annotations: no SessionNN_{missing.pop()}_res.csv",
                f"Session{session:02}",
            )
        found: list[tuple[int, dict[str, str]]] = []
        for sex, file in by_sex.items():
            try:
                found += _read_speaker(
                    path, file, session, sex, splits[session], clean, prepared, annotated
                )
            except ManifestError as error:
                faults += [f"{file.relative_to(path)}: {fault}" for fault in error.faults]
        # Both files list all segments of the session in one order, so a line number tells when a
        # segment was spoken.
        turns: dict[str, int] = defaultdict(int)
        for _, row in sorted(found, key=lambda one: one[0]):
            turns[row["dialogue_id"]] += 1
            prepared.rows.append({**row, "turn": str(turns[row["dialogue_id"]])})
    if faults:
        raise ManifestError(path, faults)
    for clip in sorted((path / "wav").rglob("*.wav")):
        if clip.stem not in annotated:
            why = "stray files" if is_stray(clip.name) else "clips without annotation"
            prepared.account.leave_out(why, clip.name)
    return prepared


def _read_speaker(
    path: Path,
    file: Path,
    session: int,
    sex: str,
    split: str,
    clean: Callable[[str], str],
    prepared: Prepared,
    annotated: set[str],
) -> list[tuple[int, dict[str, str]]]:
    """The rows of a file's own speaker, with their line numbers; their ids join `annotated`. Raises
    ManifestError.
    """
    account, name = prepared.account, f"Sess{session:02}"
    faults: list[str] = []
    wrong = Faults()
    first_line: dict[str, int] = {}
    rows: list[tuple[int, dict[str, str]]] = []
    num_own = 0
    for line, fields in rows_below_headers(prepared.texts, file, _NUM_COLUMNS, _ID):
        match = _SEGMENT_ID.fullmatch(fields[_ID])
        if not match or int(match[1]) != session:
            faults.append(
                f"line {line}: segment id {fields[_ID]!r}; expected one such as {name}_impro01_F001"
            )
            continue
        if match[3] != sex:
            continue
        num_own += 1
        segment, dialogue = fields[_ID], f"{name}_{match[2]}"
        where = f"{file.name} line {line} ({segment})"
        if segment in first_line:
            faults.append(
                f"line {line}: segment {segment} is already on line {first_line[segment]}"
            )
        first_line.setdefault(segment, line)
        annotated.add(segment)
        labels = read_labels(fields[_TOTALS:], prepared, where, line, wrong)
        if labels is None:
            continue
        emotions, votes = labels
        folder = path / "wav" / f"Session{session:02}" / dialogue
        if usable_sound(wav := folder / f"{segment}.wav", account, where) is None:
            continue
        written = read_transcript(folder / f"{segment}.txt", prepared, where)
        if written is None:
            continue
        if ";" in emotions:
            account.note("tied votes, kept as several emotions", where)
        row = {
            "utterance_id": segment,
            "dialogue_id": dialogue,
            "turn": "",
            "session": name,
            "speaker": f"{name}_{sex}",
            "text": clean(written),
            "audio": str(wav.resolve()),
            "emotion": emotions,
            "split": split,
            "start": fields[1],
            "end": fields[2],
            "valence": fields[_TOTALS + 1],
            "arousal": fields[_TOTALS + 2],
            "votes": votes,
            PLACE: where,
        }
        rows.append((line, row))
    faults += wrong.texts()
    if num_own and not faults and not rows:
        faults.append(
            f"none of its {num_own} segments can be used; are the wav and txt files in"
            f" wav/Session{session:02}/?"
        )
    if faults:
        raise ManifestError(file, faults)
    return rows
