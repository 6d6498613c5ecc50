"""`mmm prepare ai-hub`: clips of AI Hub's emotional dialogue corpus, labelled by one CSV, alone or
beside another corpus.

A clip is one sentence without a conversation around it: each is a dialogue of its own.
"""

import re
from pathlib import Path

from mmm.corpora.account import is_stray, usable_sound
from mmm.corpora.clips import clips_by
from mmm.corpora.columns import chosen_columns, find_columns, missing
from mmm.corpora.label_sets import AI_HUB, NAMED
from mmm.corpora.options import PrepareOptions
from mmm.corpora.prepared import PLACE, Prepared, prepare
from mmm.corpora.sessions import deal
from mmm.corpora.text_files import cleaning
from mmm.faults import Faults
from mmm.manifest import SPLITS, ManifestError, split_by_session

_COLUMNS = {
    "audio": ("file", "파일명", "wav", "filename"),
    "text": ("문장", "발화문", "사람문장1", "transcript"),
    "emotion": ("감정_대분류", "label", "감정"),
}
_CLIP = re.compile(r"([FM])_[0-9]+")
_NUM_SESSIONS = 10  # that clips on their own are dealt to, for splits
_WHICH = ("train", "all")


def prepare_ai_hub(
    path: Path,
    *,
    labels: Path | None = None,
    text: str = "default",
    options: PrepareOptions | None = None,
) -> Prepared:
    """Read the clips of a folder. The same sentence said twice stays in one split; speakers are
    known as F and M alone.

    Raises FileNotFoundError, ManifestError or ValueError.
    """
    known = {**AI_HUB, **NAMED}
    prepared = prepare(path, options or PrepareOptions(), known, is_korean=True)
    prepared.has_columns, prepared.fold_by = True, "session"
    rows = _read_clips(path, labels, text, prepared)
    sentences = sorted({row["text"] or row["utterance_id"] for row in rows})
    numbers = deal(len(sentences), range(1, _NUM_SESSIONS + 1), prepared.options.seed)
    sessions = [f"AIHub{number:02}" for number in numbers]
    session_of = dict(zip(sentences, sessions, strict=True))
    try:
        splits = split_by_session(sessions)
    except ValueError as error:
        fault = f"{len(sentences)} sentences that can be used; {error}"
        raise ManifestError(path, [fault]) from None
    for row in rows:
        row["session"] = session_of[row["text"] or row["utterance_id"]]
        row["split"] = splits[row["session"]]
    prepared.rows = rows
    return prepared


def add_ai_hub(
    prepared: Prepared,
    path: Path,
    splits: dict[int, str],
    session_name: str,
    *,
    which: str,
    text: str,
) -> None:
    """Deal the clips of a folder evenly to a corpus' sessions: those of train, or as published all
    of them.
    """
    if which not in _WHICH:
        raise ValueError(
            f"unknown --ai-hub-sessions {which!r}; expected one of {', '.join(_WHICH)}"
        )
    rows = _read_clips(path, None, text, prepared)
    sessions = sorted(one for one, split in splits.items() if which == "all" or split == "train")
    dealt = deal(len(rows), sessions, prepared.options.seed)
    for row, session in zip(rows, dealt, strict=True):
        row["session"], row["split"] = session_name.format(session), splits[session]
    # A row keeps to the corpus' columns; what AI Hub does not have stays empty.
    columns = list(prepared.rows[0]) if prepared.rows else []
    prepared.rows += [{**dict.fromkeys(columns, ""), **row} for row in rows]
    counts = ", ".join(f"{sum(row['split'] == split for row in rows)} {split}" for split in SPLITS)
    for row in rows:
        prepared.account.note(f"clips of AI Hub added ({counts})", row["utterance_id"])


def _read_clips(
    path: Path, labels: Path | None, text: str, prepared: Prepared
) -> list[dict[str, str]]:
    clean, account = cleaning(text), prepared.account
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path}: no such folder; expected the one with AI Hub's clips and their label CSV"
        )
    file = labels or _label_file(path)
    (_, header), *rows = prepared.texts.rows(file) or [(1, [""])]
    changes = (prepared.options.column or []) if prepared.has_columns else []
    places = find_columns(file, header, _COLUMNS, chosen_columns(changes, tuple(_COLUMNS)))
    missing(file, header, [column for column in _COLUMNS if column not in places])
    clips, twice = clips_by(
        path,
        path.rglob("*"),
        lambda clip: clip.stem if _CLIP.fullmatch(clip.stem) else None,
        account,
        (".wav", ".flac"),
    )
    faults = Faults()
    seen: dict[str, int] = {}
    usable: list[dict[str, str]] = []
    for line, fields in rows:
        if len(fields) != len(header):
            advice = f"expected {len(header)}, as the header has"
            faults.add(f"{len(fields)} columns", f"line {line}", advice)
            continue
        name = fields[places["audio"]]
        name = name if name.lower().endswith((".wav", ".flac")) else f"{name}.wav"
        stem = Path(name).stem
        where = f"{file.name} line {line} ({name})"
        match = _CLIP.fullmatch(stem)
        if not match:
            faults.add(f"clip {name!r}", f"line {line}", "expected one such as F_000001.wav")
            continue
        if stem in seen:
            faults.add(f"clip {name!r} is already on line {seen[stem]}", f"line {line}")
        seen.setdefault(stem, line)
        emotions = prepared.labels.read(fields[places["emotion"]], where, faults, at=f"line {line}")
        if emotions is None:
            continue
        clip = clips.get(stem, path / name)
        if usable_sound(clip, account, where) is None:
            continue
        row = {
            "utterance_id": f"AIHub_{stem}",
            "dialogue_id": f"AIHub_{stem}",
            "turn": "1",
            "session": "",
            "speaker": f"AIHub_{match[1]}",
            "text": clean(fields[places["text"]]),
            "audio": str(clip.resolve()),
            "emotion": ";".join(emotions),
            "split": "",
            PLACE: where,
        }
        usable.append(row)
    if faults or twice:
        raise ManifestError(file, [*twice, *faults.texts()])
    for stem, clip in clips.items():
        if stem not in seen:
            account.leave_out("clips without a label", clip.name)
    if not usable:
        raise ManifestError(
            file, [f"none of its {len(rows)} clips can be used; are the wav files in {path}/?"]
        )
    return usable


def _label_file(path: Path) -> Path:
    found = sorted(file for file in path.rglob("*.csv") if not is_stray(file.name))
    if len(found) != 1:
        shown = ", ".join(str(file.relative_to(path)) for file in found[:4]) or "none"
        raise FileNotFoundError(
            f"{path}: expected one CSV with the labels, found {shown}; name it with --labels"
        )
    return found[0]
