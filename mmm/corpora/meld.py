"""`mmm prepare meld`: MELD (Poria et al. 2019), three CSVs and a folder of clips for each.

Clips are diaN_uttM.wav or .flac, or MELD's own .mp4, whose sound ffmpeg takes out. A folder's split
is a word of its name: train_splits, dev_splits_complete, output_repeated_splits_test, or plainly
train, dev and test; what is in a folder of two of them is the inner one's.
"""

import re
import shutil
import subprocess
from pathlib import Path

from mmm.corpora.account import Account, usable_sound
from mmm.corpora.clips import clips_by
from mmm.corpora.columns import chosen_columns, find_columns, missing
from mmm.corpora.options import PrepareOptions
from mmm.corpora.prepared import PLACE, Prepared, prepare
from mmm.corpora.text_files import from_windows
from mmm.faults import Faults
from mmm.manifest import SPLITS, ManifestError

_COLUMNS = {
    "text": ("utterance",),
    "speaker": (),
    "emotion": (),
    "dialogue_id": (),
    "turn": ("utterance_id",),
}
_BESIDE = {"season": (), "episode": (), "start": ("starttime",), "end": ("endtime",)}
_CLIP = re.compile(r"dia([0-9]+)_utt([0-9]+)\.(wav|flac|mp4)", re.IGNORECASE)
# What makes ffmpeg write 16 kHz mono speech.
_AS_SPEECH = ("-vn", "-ac", "1", "-ar", "16000", "-c:a", "pcm_s16le", "-f", "wav")
_FORMATS = (".wav", ".flac", ".mp4")  # a sound file goes before a film
_WORD = re.compile("[A-Za-z]+")
_TIME = re.compile(r"([0-9]+):([0-9]{2}):([0-9]{2})[,.]([0-9]{1,3})")
# A clip that is so much longer than its times, and so many times as long, holds other lines too.
_LONGER_S, _LONGER_TIMES = 10.0, 3.0
_SOUND = "meld_audio"  # beside the manifest: what ffmpeg took out of clips


def prepare_meld(
    path: Path, out: Path, options: PrepareOptions | None = None
) -> tuple[Prepared, list[tuple[Path, Path]]]:
    """Read the corpus at `path` for a manifest at `out`; beside it the clips whose sound is still
    to be taken out, and to where.

    Raises FileNotFoundError or ManifestError with every fault.
    """
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path}: no such folder; expected the one with train_sent_emo.csv and MELD's clips"
        )
    prepared = prepare(path, options or PrepareOptions())
    prepared.has_columns = True
    clips, faults = _clips(path, prepared.account)
    files = {split: sorted(path.rglob(f"{split}_sent_emo.csv")) for split in SPLITS}
    for split, found in files.items():
        if len(found) > 1 or (not found and split != "test"):
            shown = ", ".join(str(file.relative_to(path)) for file in found) or "none"
            raise FileNotFoundError(f"{path}: expected one {split}_sent_emo.csv, found {shown}")
    pending: list[tuple[Path, Path]] = []
    for split, (file, *_) in ((split, found) for split, found in files.items() if found):
        try:
            pending += _read_split(file, split, clips, out, prepared)
        except ManifestError as error:
            faults += [f"{file.relative_to(path)}: {fault}" for fault in error.faults]
    if faults:
        raise ManifestError(path, faults)
    named = {(row["split"], row["audio"]) for row in prepared.rows}
    for (split, dialogue, utterance), clip in clips.items() if not pending else ():
        target = out.parent / _SOUND / split / f"{clip.stem}.wav"
        if named.isdisjoint({(split, str(clip.resolve())), (split, str(target.resolve()))}):
            case = f"{split} dia{dialogue}_utt{utterance}: {clip.relative_to(path)}"
            prepared.account.note("clips that no row was made of", case)
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


def _clips(path: Path, account: Account) -> tuple[dict[tuple[str, int, int], Path], list[str]]:
    """Clips by split, dialogue and utterance, and a fault where two files are one clip."""

    def key(file: Path) -> tuple[str, int, int] | None:
        match = _CLIP.fullmatch(file.name)
        if not match:
            return None
        split = _split_of_folder(file.relative_to(path).parts[:-1])
        if split is None:
            account.leave_out("clips in no folder of a split", str(file.relative_to(path)))
            return None
        return split, int(match[1]), int(match[2])

    return clips_by(path, path.rglob("*"), key, account, _FORMATS)


def _split_of_folder(folders: tuple[str, ...]) -> str | None:
    """`latest/train_splits` is train, as no word of `latest` is test."""
    for folder in reversed(folders):
        words = {word.lower() for word in _WORD.findall(folder)}
        named = [split for split in SPLITS if split in words]
        if len(named) == 1:
            return named[0]
    return None


def _read_split(
    file: Path, split: str, clips: dict[tuple[str, int, int], Path], out: Path, prepared: Prepared
) -> list[tuple[Path, Path]]:
    account = prepared.account
    (_, header), *rows = prepared.texts.rows(file) or [(1, [""])]
    chosen = chosen_columns(prepared.options.column or [], tuple(_COLUMNS))
    columns = find_columns(file, header, {**_COLUMNS, **_BESIDE}, chosen)
    missing(file, header, [name for name in _COLUMNS if name not in columns])
    faults = Faults()
    seen: dict[tuple[int, int], int] = {}
    pending: list[tuple[Path, Path]] = []
    num_rows = len(prepared.rows)
    for line, fields in rows:
        if len(fields) != len(header):
            advice = f"expected {len(header)}, as the header has"
            faults.add(f"{len(fields)} columns", f"line {line}", advice)
            continue
        given = {name: fields[place] for name, place in columns.items()}
        dialogue, utterance = given["dialogue_id"], given["turn"]
        if not re.fullmatch(r"[0-9]{1,6}", dialogue) or not re.fullmatch(r"[0-9]{1,6}", utterance):
            kind = f"Dialogue_ID {dialogue!r}, Utterance_ID {utterance!r}"
            faults.add(kind, f"line {line}", "expected whole numbers")
            continue
        key = (int(dialogue), int(utterance))
        where = f"{file.name} line {line} (dia{key[0]}_utt{key[1]})"
        if key in seen:
            account.leave_out("dialogue and utterance occur twice, the first counts", where)
            continue
        seen[key] = line
        names = prepared.labels.read(given["emotion"], where, faults, at=f"line {line}")
        if names is None:
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
        sound = usable_sound(clip, account, where)
        if sound is None:
            continue
        said_s = _seconds(given.get("end", "")) - _seconds(given.get("start", ""))
        if said_s > 0 and sound.seconds > max(said_s + _LONGER_S, said_s * _LONGER_TIMES):
            case = f"{where}: {sound.seconds:.1f} s, its times say {said_s:.1f} s"
            account.leave_out("clips far longer than their times, which hold other lines too", case)
            continue
        text = " ".join(from_windows(given["text"]).split())
        if text != " ".join(given["text"].split()):
            account.repair("quotes and dashes of Windows restored", where)
        session = dialogue_id = f"{split}_dia{key[0]}"
        if given.get("season") and given.get("episode"):
            session = f"s{given['season']}e{given['episode']}"
        row = {
            "utterance_id": f"{dialogue_id}_utt{key[1]}",
            "dialogue_id": dialogue_id,
            "turn": str(key[1]),
            "session": session,
            "speaker": given["speaker"] or "unknown",
            "text": text,
            "audio": str(clip.resolve()),
            "emotion": ";".join(names),
            "split": split,
            PLACE: where,
        }
        prepared.rows.append(row)
    if rows and not faults and not pending and len(prepared.rows) == num_rows:
        raise ManifestError(
            file,
            [
                f"none of its {len(rows)} utterances has a clip; expected diaN_uttM.wav, .flac or"
                f" .mp4 in a folder with the word {split!r} in its name"
            ],
        )
    faults.stop(file)
    return pending


def _seconds(text: str) -> float:
    """Of `00:16:16,059`, 0 of what is no time."""
    match = _TIME.fullmatch(text)
    if not match:
        return 0.0
    hours, minutes, seconds, parts = match.groups()
    return 3600 * int(hours) + 60 * int(minutes) + int(seconds) + int(parts.ljust(3, "0")) / 1000
