"""`mmm prepare ai-hub`: clips of AI Hub's emotional dialogue corpus, labelled by one CSV, alone or
beside another corpus.

A clip is one sentence without a conversation around it: each is a dialogue of its own.
"""

import re
from pathlib import Path

from mmm.corpora.account import Account, Prepared, emotion_map, is_stray, usable_sound
from mmm.corpora.sessions import deal
from mmm.corpora.text_files import cleaning, read_rows
from mmm.manifest import SPLITS, ManifestError, split_by_session

EMOTIONS_OF = {
    "기쁨": "happy",
    "분노": "angry",
    "슬픔": "sad",
    "불안": "fear",
    "당황": "surprise",
    "상처": "sad",
    "중립": "neutral",
    "혐오": "disgust",
}
_COLUMNS = {
    "file": ("file", "파일명", "wav", "audio", "filename"),
    "text": ("text", "문장", "발화문", "사람문장1", "transcript"),
    "emotion": ("감정_대분류", "emotion", "label", "감정"),
}
_CLIP = re.compile(r"([FM])_[0-9]+")
_NUM_SESSIONS = 10  # that clips on their own are dealt to, for splits
_WHICH = ("train", "all")


def prepare_ai_hub(
    path: Path,
    *,
    labels: Path | None = None,
    emotions: dict[str, str] | None = None,
    text: str = "default",
    seed: int = 1,
) -> Prepared:
    """Read the clips of a folder. The same sentence said twice stays in one split; speakers are
    known as F and M alone.

    Raises FileNotFoundError, ManifestError or ValueError.
    """
    prepared = Prepared(path)
    rows = _read_clips(path, labels, emotions, text, prepared.account)
    sentences = sorted({row["text"] or row["utterance_id"] for row in rows})
    numbers = deal(len(sentences), range(1, _NUM_SESSIONS + 1), seed)
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
    emotions: dict[str, str] | None,
    text: str,
    seed: int,
) -> None:
    """Deal the clips of a folder evenly to a corpus' sessions: those of train, or as published all
    of them.
    """
    if which not in _WHICH:
        raise ValueError(
            f"unknown --ai-hub-sessions {which!r}; expected one of {', '.join(_WHICH)}"
        )
    rows = _read_clips(path, None, emotions, text, prepared.account)
    sessions = sorted(one for one, split in splits.items() if which == "all" or split == "train")
    for row, session in zip(rows, deal(len(rows), sessions, seed), strict=True):
        row["session"], row["split"] = session_name.format(session), splits[session]
    # A row keeps to the corpus' columns; what AI Hub does not have stays empty.
    columns = list(prepared.rows[0]) if prepared.rows else []
    prepared.rows += [{**dict.fromkeys(columns, ""), **row} for row in rows]
    counts = ", ".join(f"{sum(row['split'] == split for row in rows)} {split}" for split in SPLITS)
    for row in rows:
        prepared.account.note(f"clips of AI Hub added ({counts})", row["utterance_id"])


def _read_clips(
    path: Path, labels: Path | None, emotions: dict[str, str] | None, text: str, account: Account
) -> list[dict[str, str]]:
    clean = cleaning(text)
    names = emotion_map(EMOTIONS_OF, []) if emotions is None else emotions
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path}: no such folder; expected the one with AI Hub's clips and their label CSV"
        )
    file = labels or _label_file(path)
    (_, header), *rows = read_rows(file, is_korean=True) or [(1, [""])]
    places = {}
    for column, known in _COLUMNS.items():
        found = [place for place, name in enumerate(header) if name.lower() in known]
        if len(found) != 1:
            number = "more than one" if found else "no"
            fault = f"line 1: {number} column for {column} (expected one of {', '.join(known)};"
            raise ManifestError(file, [f"{fault} found: {', '.join(header)})"])
        places[column] = found[0]
    clips = {
        clip.name.lower(): clip
        for clip in path.rglob("*")
        if clip.suffix.lower() in (".wav", ".flac") and not is_stray(clip.name)
    }
    faults: list[str] = []
    seen: dict[str, int] = {}
    usable: list[dict[str, str]] = []
    for line, fields in rows:
        if len(fields) != len(header):
            faults.append(
                f"line {line}: {len(fields)} columns; expected {len(header)}, as the header has"
            )
            continue
        name, label = fields[places["file"]], fields[places["emotion"]]
        name = name if name.lower().endswith((".wav", ".flac")) else f"{name}.wav"
        stem = Path(name).stem
        where = f"{file.name} line {line} ({name})"
        match = _CLIP.fullmatch(stem)
        if not match:
            faults.append(f"line {line}: clip {name!r}; expected one such as F_000001.wav")
            continue
        if stem in seen:
            faults.append(f"line {line}: clip {name!r} is already on line {seen[stem]}")
        seen.setdefault(stem, line)
        if label.lower() not in names:
            faults.append(
                f"line {line}: unknown emotion {label!r}; expected {', '.join(names)}; name it with"
                f" --emotion {label}=sad, or leave it out with --emotion {label}="
            )
            continue
        if not names[label.lower()]:
            account.leave_out(f"labelled {label}, left out as asked", where)
            continue
        clip = clips.get(Path(name).name.lower(), path / name)
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
            "emotion": names[label.lower()],
            "split": "",
        }
        usable.append(row)
    if faults:
        raise ManifestError(file, faults)
    for clip in clips.values():
        if clip.stem not in seen:
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
