"""`mmm prepare meld`: MELD (Poria et al. 2019), three CSVs and a folder of clips for each.

Clips are diaN_uttM.wav or .flac, or MELD's own .mp4, whose sound ffmpeg takes out. A folder's split
is in its name: train_splits, dev_splits_complete, output_repeated_splits_test, or plainly train,
dev and test.
"""

import re
import shutil
import subprocess
from pathlib import Path

from mmm.corpora.account import Prepared, emotion_names, is_stray, unknown_emotions, usable_sound
from mmm.corpora.text_files import from_windows, read_rows
from mmm.manifest import SPLITS, ManifestError

_COLUMNS = ("Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID")
_CLIP = re.compile(r"dia([0-9]+)_utt([0-9]+)\.(wav|flac|mp4)", re.IGNORECASE)
# What makes ffmpeg write 16 kHz mono speech.
_AS_SPEECH = ("-vn", "-ac", "1", "-ar", "16000", "-c:a", "pcm_s16le", "-f", "wav")
_SOUND = "meld_audio"  # beside the manifest: what ffmpeg took out of clips


def prepare_meld(path: Path, out: Path) -> tuple[Prepared, list[tuple[Path, Path]]]:
    """Read the corpus at `path` for a manifest at `out`; beside it the clips whose sound is still
    to be taken out, and to where.

    Raises FileNotFoundError or ManifestError with every fault.
    """
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path}: no such folder; expected the one with train_sent_emo.csv and MELD's clips"
        )
    prepared = Prepared(path)
    clips = _clips(path)
    files = {split: sorted(path.rglob(f"{split}_sent_emo.csv")) for split in SPLITS}
    for split, found in files.items():
        if len(found) > 1 or (not found and split != "test"):
            shown = ", ".join(str(file.relative_to(path)) for file in found) or "none"
            raise FileNotFoundError(f"{path}: expected one {split}_sent_emo.csv, found {shown}")
    pending: list[tuple[Path, Path]] = []
    faults: list[str] = []
    for split, (file, *_) in ((split, found) for split, found in files.items() if found):
        try:
            pending += _read_split(file, split, clips, out, prepared)
        except ManifestError as error:
            faults += [f"{file.relative_to(path)}: {fault}" for fault in error.faults]
    if faults:
        raise ManifestError(path, faults)
    return prepared, pending


def extract_sound(clip: Path, target: Path) -> None:
    """Write a clip's sound as 16 kHz mono to `target`, or nothing where it has none that ffmpeg can
    read.

    Raises FileNotFoundError where ffmpeg is not installed.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        raise FileNotFoundError(
            f"{clip}: taking the sound out of mp4 needs ffmpeg, which is not installed; install it,"
            f" or put {clip.stem}.wav beside it"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    half = target.with_name(f".{target.name}")
    command = [program, "-nostdin", "-v", "error", "-y", "-i", str(clip), *_AS_SPEECH, str(half)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode == 0:
        half.replace(target)
    else:
        half.unlink(missing_ok=True)


def _clips(path: Path) -> dict[tuple[str, int, int], Path]:
    """Clips by split, dialogue and utterance; a sound file goes before an mp4."""
    found: dict[tuple[str, int, int], Path] = {}
    for file in sorted(path.rglob("*"), key=lambda file: (file.suffix.lower() != ".mp4", file)):
        match = _CLIP.fullmatch(file.name)
        if match and not is_stray(file.name):
            folders = "/".join(file.relative_to(path).parts[:-1]).lower()
            for split in SPLITS:
                if split in folders:
                    found[split, int(match[1]), int(match[2])] = file
    return found


def _read_split(
    file: Path, split: str, clips: dict[tuple[str, int, int], Path], out: Path, prepared: Prepared
) -> list[tuple[Path, Path]]:
    account = prepared.account
    (_, header), *rows = read_rows(file) or [(1, [""])]
    if missing := [name for name in _COLUMNS if header.count(name) != 1]:
        raise ManifestError(
            file, [f"line 1: no column {', '.join(missing)} (found: {', '.join(header)})"]
        )
    columns = {name: header.index(name) for name in header}
    faults: list[str] = []
    seen: dict[tuple[int, int], int] = {}
    pending: list[tuple[Path, Path]] = []
    num_rows = len(prepared.rows)
    for line, fields in rows:
        if len(fields) != len(header):
            faults.append(
                f"line {line}: {len(fields)} columns; expected {len(header)}, as the header has"
            )
            continue
        written, speaker, emotion, dialogue, utterance = (
            fields[columns[name]] for name in _COLUMNS
        )
        if not re.fullmatch(r"[0-9]{1,6}", dialogue) or not re.fullmatch(r"[0-9]{1,6}", utterance):
            faults.append(
                f"line {line}: Dialogue_ID {dialogue!r}, Utterance_ID {utterance!r}; expected whole"
                " numbers"
            )
            continue
        key = (int(dialogue), int(utterance))
        where = f"{file.name} line {line} (dia{key[0]}_utt{key[1]})"
        if key in seen:
            account.leave_out("dialogue and utterance occur twice, the first counts", where)
            continue
        seen[key] = line
        names = emotion_names(emotion, account, where)
        if wrong := unknown_emotions(names) or ("" if names else "Emotion is empty"):
            faults.append(f"line {line}: {wrong}")
            continue
        clip = clips.get((split, *key))
        if clip is None:
            account.leave_out("no clip", where)
            continue
        if clip.suffix.lower() == ".mp4":
            target = out.parent / _SOUND / split / f"{clip.stem}.wav"
            if not target.is_file():
                pending.append((clip, target))
                account.leave_out("no sound could be taken out of the clip", where)
                continue
            clip = target
        if usable_sound(clip, account, where) is None:
            continue
        text = " ".join(from_windows(written).split())
        if text != " ".join(written.split()):
            account.repair("quotes and dashes of Windows restored", where)
        session = dialogue_id = f"{split}_dia{key[0]}"
        episode = [fields[columns[name]] for name in ("Season", "Episode") if name in columns]
        if len(episode) == 2 and all(episode):
            session = f"s{episode[0]}e{episode[1]}"
        row = {
            "utterance_id": f"{dialogue_id}_utt{key[1]}",
            "dialogue_id": dialogue_id,
            "turn": str(key[1]),
            "session": session,
            "speaker": speaker or "unknown",
            "text": text,
            "audio": str(clip.resolve()),
            "emotion": ";".join(names),
            "split": split,
        }
        prepared.rows.append(row)
    if rows and not faults and not pending and len(prepared.rows) == num_rows:
        faults.append(
            f"none of its {len(rows)} utterances has a clip; expected diaN_uttM.wav, .flac or .mp4"
            f" in a folder with {split!r} in its name"
        )
    if faults:
        raise ManifestError(file, faults)
    return pending
