"""`mmm prepare esd`: ESD (Zhou et al. 2021), a folder a speaker, 0001 to 0020.

0001/0001.txt has a line a clip: `0001_000001 TAB text TAB emotion`. Its clips are 0001_000001.wav
in folders below, named for emotions and perhaps for ESD's own splits, which have every speaker in
each: the corpus is dealt by speaker.
"""

import re
from pathlib import Path

from mmm.corpora.account import is_stray, usable_sound
from mmm.corpora.clips import FORMATS, clips_by
from mmm.corpora.label_sets import ESD, NAMED
from mmm.corpora.options import PrepareOptions
from mmm.corpora.prepared import PLACE, Prepared, prepare
from mmm.faults import Faults
from mmm.manifest import ManifestError

_SPEAKER = re.compile(r"[0-9]{4}")
_CLIP = re.compile(r"([0-9]{4})_([0-9]{6})")


def prepare_esd(path: Path, options: PrepareOptions | None = None) -> Prepared:
    """Read the corpus at `path`. Raises FileNotFoundError, or ManifestError with every fault."""
    speakers = [
        folder
        for folder in (sorted(path.iterdir()) if path.is_dir() else [])
        if folder.is_dir() and _SPEAKER.fullmatch(folder.name)
    ]
    if not speakers:
        raise FileNotFoundError(
            f"{path}: no folder 0001/ in it; expected ESD's folder, with one for each speaker"
        )
    prepared = prepare(path, options or PrepareOptions(), {**NAMED, **ESD})
    prepared.split_by = prepared.fold_by = "speaker"
    faults: list[str] = []
    for folder in speakers:
        try:
            _read_speaker(path, folder, prepared)
        except ManifestError as error:
            faults += [f"{folder.name}: {fault}" for fault in error.faults]
    if faults:
        raise ManifestError(path, faults)
    return prepared


def _read_speaker(path: Path, folder: Path, prepared: Prepared) -> None:
    """Add the rows of a speaker. Raises ManifestError."""
    account, speaker = prepared.account, folder.name
    file = folder / f"{speaker}.txt"
    if not file.is_file():
        raise ManifestError(file, [f"no {file.name}; expected a line for each clip in it"])
    clips, twice = clips_by(
        path,
        folder.rglob("*"),
        lambda clip: clip.stem if _CLIP.fullmatch(clip.stem) else None,
        account,
    )
    faults = Faults()
    seen: dict[str, int] = {}
    for number, line in enumerate(prepared.texts.read(file).splitlines(), start=1):
        if not line.strip():
            continue
        fields = [field.strip() for field in line.split("\t")]
        match = _CLIP.fullmatch(fields[0].removesuffix(".wav"))
        if len(fields) != 3 or not match or match[1] != speaker:
            faults.add(
                f"a line that is not {speaker}_000001 TAB text TAB emotion", f"line {number}"
            )
            continue
        stem, where = match[0], f"{file.name} line {number} ({match[0]})"
        if stem in seen:
            faults.add(f"clip {stem} is already on line {seen[stem]}", f"line {number}")
        seen.setdefault(stem, number)
        emotions = prepared.labels.read(fields[2], where, faults, at=f"line {number}")
        if emotions is None:
            continue
        if stem not in clips:
            account.leave_out("no clip", where)
            continue
        clip = clips[stem]
        if other := _other_emotion(clip, folder, emotions, prepared):
            account.leave_out(
                "clips in the folder of another emotion than their line's",
                f"{where}: {fields[2]}, in {other}/",
            )
            continue
        if usable_sound(clip, account, where) is None:
            continue
        prepared.rows.append(
            {
                "utterance_id": stem,
                "dialogue_id": stem,
                "turn": "0",
                "session": speaker,
                "speaker": speaker,
                "text": " ".join(fields[1].split()),
                "audio": str(clip.resolve()),
                "emotion": ";".join(emotions),
                "split": "",
                PLACE: where,
            }
        )
    for stem, clip in clips.items():
        if stem not in seen:
            account.leave_out("clips without a line", str(clip.relative_to(path)))
    for sound in sorted(folder.rglob("*")):
        is_clip = sound.suffix.lower() in FORMATS and not is_stray(sound.name)
        if is_clip and not _CLIP.fullmatch(sound.stem):
            account.leave_out("sound files that are not named as ESD's", sound.name)
    if twice or faults:
        raise ManifestError(file, [*twice, *faults.texts()])


def _other_emotion(clip: Path, folder: Path, emotions: tuple[str, ...], prepared: Prepared) -> str:
    """The folder that says another emotion than the line, "" where none does."""
    for part in clip.relative_to(folder).parts[:-1]:
        named = prepared.labels.name_of(part)
        if named is not None and named not in emotions and (named or emotions):
            return part
    return ""
