"""`mmm prepare iemocap`: IEMOCAP (Busso et al. 2008), by its published layout.

SessionN/dialog/EmoEvaluation/DIALOGUE.txt has a line an utterance, `[start - end] TAB id TAB label
TAB [valence, activation, dominance]`, each followed by the raters' lines, `C-E2: TAB Neutral; TAB
()`. SessionN/dialog/transcriptions/DIALOGUE.txt has `id [start-end]: text`,
SessionN/sentences/wav/DIALOGUE/id.wav the speech.
"""

import re
from pathlib import Path

from mmm.corpora.account import is_stray, usable_sound
from mmm.corpora.label_sets import IEMOCAP, IEMOCAP_4, IEMOCAP_6
from mmm.corpora.options import PrepareOptions
from mmm.corpora.prepared import PLACE, Prepared, prepare
from mmm.corpora.sessions import split_of_sessions
from mmm.corpora.text_files import Texts, from_windows
from mmm.faults import Faults
from mmm.manifest import ManifestError

LABELS = {"default": IEMOCAP, "4-way": IEMOCAP_4, "6-way": IEMOCAP_6}
DEV_SESSIONS, TEST_SESSIONS = "4", "5"
_RATED = {
    "neutral": "neu",
    "happiness": "hap",
    "excited": "exc",
    "sadness": "sad",
    "anger": "ang",
    "fear": "fea",
    "surprise": "sur",
    "disgust": "dis",
    "frustration": "fru",
    "other": "oth",
}
_NUMBER = r"([0-9]+(?:\.[0-9]*)?)"
_EVALUATION = re.compile(
    rf"\[\s*{_NUMBER}\s*-\s*{_NUMBER}\s*\]\s+(\S+)\s+(\w+)\s+"
    rf"\[\s*{_NUMBER}\s*,\s*{_NUMBER}\s*,\s*{_NUMBER}\s*\]"
)
_RATER = re.compile(r"C-[EFM][0-9]*:\s+(.*?)\s*(?:\(.*)?")
_UTTERANCE = re.compile(r"(Ses([0-9]{2})[FM]_\w+?)_([FM])([0-9]{3})")
_LINE = re.compile(r"(\S+)\s+\[[^\]]*\]\s*:\s*(.*)")


def prepare_iemocap(
    path: Path,
    *,
    dev_sessions: str | None = None,
    test_sessions: str | None = None,
    labels: str = "default",
    options: PrepareOptions | None = None,
) -> Prepared:
    """Read the corpus at `path`, with labels `default` (exc counts as happy; fru, oth and xxx are
    turns without a label), `4-way` or `6-way` (excited and frustrated are classes).

    Session 4 is dev and 5 test, but with folds every session is in them unless it is named. Raises
    FileNotFoundError, ManifestError with every fault, or ValueError for options.
    """
    options = options or PrepareOptions()
    if labels not in LABELS:
        raise ValueError(f"unknown --labels {labels!r}; expected one of {', '.join(LABELS)}")
    has_folds = options.folds is not None and dev_sessions is None and test_sessions is None
    sessions = {
        int(match[1]): folder
        for folder in (sorted(path.iterdir()) if path.is_dir() else [])
        if (match := re.fullmatch(r"Session([0-9]+)", folder.name))
        and (folder / "dialog" / "EmoEvaluation").is_dir()
    }
    if not sessions:
        raise FileNotFoundError(
            f"{path}: no Session1/dialog/EmoEvaluation/ in it; expected IEMOCAP's folder"
        )
    dev, test = dev_sessions or DEV_SESSIONS, test_sessions or TEST_SESSIONS
    splits = split_of_sessions(list(sessions), *(("none", "none") if has_folds else (dev, test)))
    prepared = prepare(path, options, LABELS[labels])
    prepared.fold_by = "session"
    faults: list[str] = []
    for session, folder in sessions.items():
        before = len(prepared.rows)
        for file in sorted((folder / "dialog" / "EmoEvaluation").glob("*.txt")):
            if is_stray(file.name):
                prepared.account.leave_out("stray files", str(file.relative_to(path)))
                continue
            try:
                split = "" if has_folds else splits[session]
                prepared.rows += _read_dialogue(folder, file, session, split, prepared)
            except ManifestError as error:
                faults += [f"{error.path.relative_to(path)}: {fault}" for fault in error.faults]
        if len(prepared.rows) == before and not faults:
            faults.append(
                f"{folder.name}: no utterance that can be used; are the wav files in"
                f" {folder.name}/sentences/wav/?"
            )
    if faults:
        raise ManifestError(path, faults)
    return prepared


def _read_dialogue(
    folder: Path, file: Path, session: int, split: str, prepared: Prepared
) -> list[dict[str, str]]:
    """The usable utterances of a dialogue, in order of their start. Raises ManifestError."""
    dialogue, account = file.stem, prepared.account
    texts = _transcription(folder / "dialog" / "transcriptions" / file.name, prepared.texts)
    faults: list[str] = []
    wrong = Faults()
    rows: list[tuple[float, dict[str, str]]] = []
    seen: set[str] = set()
    row: dict[str, str] | None = None
    for number, line in enumerate(prepared.texts.read(file).splitlines(), start=1):
        if rater := _RATER.fullmatch(line.strip()):
            if row is not None:
                said = [name.strip().lower() for name in rater[1].split(";") if name.strip()]
                codes = ";".join(_RATED.get(name, "oth") for name in said)
                chosen = prepared.labels.votes([codes], row[PLACE], wrong)
                row["votes"] = f"{row['votes']}|{chosen}" if "votes" in row else chosen
            continue
        if not line.startswith("["):
            continue
        row = None
        evaluation = _EVALUATION.fullmatch(line.strip())
        utterance = _UTTERANCE.fullmatch(evaluation[3]) if evaluation else None
        if line.startswith("[START_TIME"):
            continue
        if not evaluation or not utterance:
            faults.append(
                f"line {number}: {line[:60]!r}; expected [start - end] TAB id TAB label TAB"
                " [valence, activation, dominance]"
            )
            continue
        start, end, identity, label, valence, arousal, _ = evaluation.groups()
        where = f"{file.name} line {number} ({identity})"
        if utterance[1] != dialogue or int(utterance[2]) != session:
            faults.append(f"line {number}: utterance {identity} in the file of {dialogue}")
        if identity in seen:
            faults.append(f"line {number}: utterance {identity} occurs twice")
        seen.add(identity)
        emotions = prepared.labels.read(label, where, wrong, at=f"line {number}")
        if emotions is None:
            continue
        if identity not in texts:
            account.leave_out("no transcription", where)
            continue
        wav = folder / "sentences" / "wav" / dialogue / f"{identity}.wav"
        if usable_sound(wav, account, where) is None:
            continue
        row = {
            "utterance_id": identity,
            "dialogue_id": dialogue,
            "turn": "",
            "session": f"Session{session}",
            "speaker": f"Ses{utterance[2]}_{utterance[3]}",
            "text": texts[identity],
            "audio": str(wav.resolve()),
            "emotion": ";".join(emotions),
            "split": split,
            "start": start,
            "end": end,
            "valence": valence,
            "arousal": arousal,
            PLACE: where,
        }
        rows.append((float(start), row))
    if faults or wrong:
        raise ManifestError(file, [*faults, *wrong.texts()])
    for clip in sorted((folder / "sentences" / "wav" / dialogue).glob("*.wav")):
        if clip.stem not in seen:
            why = "stray files" if is_stray(clip.name) else "clips without evaluation"
            account.leave_out(why, clip.name)
    rows.sort(key=lambda one: one[0])
    return [
        {**row, "turn": str(turn), "votes": row.get("votes", "")}
        for turn, (_, row) in enumerate(rows, start=1)
    ]


def _transcription(file: Path, texts: Texts) -> dict[str, str]:
    if not file.is_file():
        raise ManifestError(file, ["no such file; expected the dialogue's transcription"])
    lines = (_LINE.fullmatch(line.strip()) for line in texts.read(file).splitlines())
    return {line[1]: " ".join(from_windows(line[2]).split()) for line in lines if line}
