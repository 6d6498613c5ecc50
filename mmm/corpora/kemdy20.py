"""`mmm prepare kemdy20`: KEMDy20 v1.1 to v1.3 (Noh and Jeong 2021), with the defects that its users
know.

annotation/SessNN_eval.csv has two header rows and 37 columns, read by position: number, start, end,
segment id, total emotion, valence, arousal, and ten raters' triples of the same. wav/SessionNN/ has
ID.wav and ID.txt. Rows are in order of conversation.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from mmm.corpora.account import Account, is_stray, usable_sound
from mmm.corpora.ai_hub import add_ai_hub
from mmm.corpora.label_sets import AI_HUB, NAMED
from mmm.corpora.options import PrepareOptions
from mmm.corpora.prepared import PLACE, Prepared, prepare
from mmm.corpora.sessions import split_of_sessions
from mmm.corpora.text_files import Texts, cleaning
from mmm.faults import Faults
from mmm.manifest import ManifestError

DEV_SESSIONS, TEST_SESSIONS = "29-32", "33-40"  # as published
NUM_COLUMNS, NUM_RATERS = 37, 10
SEGMENT_ID = re.compile(r"Sess([0-9]{2})_(script0[1-6])_User([0-9]{3})([MF])_([0-9]{3})")
_EVAL_FILE = re.compile(r"Sess([0-9]{2})_eval\.csv", re.IGNORECASE)
_SESSION_FOLDER = re.compile(r"Session([0-9]{2})")
_TOLERANCE_S = 0.5  # between a clip's length and its annotated times


def prepare_kemdy20(
    path: Path,
    *,
    dev_sessions: str = DEV_SESSIONS,
    test_sessions: str = TEST_SESSIONS,
    text: str = "default",
    ai_hub: Path | None = None,
    ai_hub_sessions: str = "train",
    options: PrepareOptions | None = None,
) -> Prepared:
    """Read the corpus at `path`, and deal AI Hub's clips at `ai_hub` to its sessions (`train` or
    `all`).

    Raises FileNotFoundError, ManifestError with every fault of the annotations, or ValueError for
    options.
    """
    clean = cleaning(text)
    root, files = annotation_files(path)
    splits = split_of_sessions(list(files), dev_sessions, test_sessions)
    known = NAMED if ai_hub is None else {**NAMED, **AI_HUB}
    prepared = prepare(root, options or PrepareOptions(), known, is_korean=True)
    prepared.fold_by = "session"
    faults: list[str] = []
    segments: set[str] = set()
    for session, file in files.items():
        try:
            segments |= _read_session(root, file, session, splits[session], clean, prepared)
        except ManifestError as error:
            faults += [f"{file.relative_to(root)}: {fault}" for fault in error.faults]
    if faults:
        raise ManifestError(root, faults)
    _account_for_the_rest(root / "wav", set(files), segments, ai_hub, prepared.account)
    if ai_hub is not None:
        add_ai_hub(
            prepared,
            ai_hub,
            splits,
            "Sess{:02}",
            which=ai_hub_sessions,
            text=text,
        )
    return prepared


def annotation_files(path: Path) -> tuple[Path, dict[int, Path]]:
    """The corpus' root, `path` or the one folder below it that has annotations, and the annotations
    by session.
    """
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path}: no such folder; expected the one with KEMDy20's annotation/ and wav/"
        )
    roots = [
        folder for folder in (path, *sorted(path.iterdir())) if (folder / "annotation").is_dir()
    ]
    if len(roots) != 1 and path not in roots:
        found = ", ".join(sorted(child.name for child in path.iterdir())[:5]) or "nothing"
        if roots:
            found = f"{len(roots)} folders with one"
        raise FileNotFoundError(
            f"{path}: no annotation/ in it (found: {found}); expected the folder with KEMDy20's"
            " annotation/ and wav/"
        )
    files = {}
    for file in sorted((roots[0] / "annotation").iterdir()):
        if match := _EVAL_FILE.fullmatch(file.name):
            files[int(match[1])] = file
    if not files:
        raise FileNotFoundError(
            f"{roots[0] / 'annotation'}: no SessNN_eval.csv in it; is it KEMDy20?"
        )
    return roots[0], files


def rows_below_headers(
    texts: Texts, file: Path, num_columns: int, id_column: int
) -> list[tuple[int, list[str]]]:
    """The annotation rows of a KEMDy CSV. Raises ManifestError for a width or headers that are not
    KEMDy's.
    """
    # A row may end with empty columns beyond the last.
    rows = [
        (line, fields[:num_columns] if not any(fields[num_columns:]) else fields)
        for line, fields in texts.rows(file)
    ]
    faults = [
        f"line {line}: {len(fields)} columns; expected {num_columns}"
        for line, fields in rows
        if len(fields) != num_columns
    ]
    if faults:
        raise ManifestError(file, faults)
    if len(rows) < 2 or any(fields[id_column].startswith("Sess") for _, fields in rows[:2]):
        raise ManifestError(file, ["line 1: expected two header rows above the first segment"])
    return rows[2:]


def _read_session(
    root: Path,
    file: Path,
    session: int,
    split: str,
    clean: Callable[[str], str],
    prepared: Prepared,
) -> set[str]:
    """Add a session's rows to `prepared`; the ids of all its segments, usable or not. Raises
    ManifestError.
    """
    account, name = prepared.account, f"Sess{session:02}"
    folder = root.resolve() / "wav" / f"Session{session:02}"
    there = {child.name.lower(): child for child in folder.iterdir()} if folder.is_dir() else {}
    faults: list[str] = []
    wrong = Faults()
    first_line: dict[str, int] = {}
    turns: Counter[str] = Counter()
    latest: dict[str, float] = defaultdict(float)
    num_rows = 0
    for line, fields in rows_below_headers(prepared.texts, file, NUM_COLUMNS, 3):
        match = SEGMENT_ID.fullmatch(fields[3])
        if not match:
            faults.append(
                f"line {line}: segment id {fields[3]!r}; expected one such as"
                f" {name}_script01_User001F_001"
            )
            continue
        number, script, user, sex, _ = match.groups()
        segment = name + fields[3][len("SessNN") :]
        where = f"{file.name} line {line} ({segment})"
        if int(number) != session:
            what = f"segments of {file.name} named Sess{number}: the file's name wins"
            account.repair(what, where)
        if segment in first_line:
            faults.append(
                f"line {line}: segment {segment} is already on line {first_line[segment]}"
            )
        first_line.setdefault(segment, line)
        if int(user) not in (2 * session - 1, 2 * session):
            what = f"user number out of sequence, kept: User{user}{sex} in session {session}"
            account.note(what, where)
        dialogue = f"{name}_{script}"
        turns[dialogue] += 1  # of segments left out too, so that numbers do not depend on them
        num_rows += 1
        labels = read_labels(fields[4:], prepared, where, line, wrong)
        numbers = _numbers(fields, faults, line)
        if numbers is None:
            continue
        start_s, end_s, valence, arousal = numbers
        if start_s is not None:
            if start_s < latest[dialogue]:
                account.note("starts before the segment above it; the order of rows is kept", where)
            latest[dialogue] = start_s
        if labels is None:
            continue
        emotions, votes = labels
        wav = there.get(f"{segment}.wav".lower(), folder / f"{segment}.wav")
        sound = usable_sound(wav, account, where)
        if sound is None:
            continue
        if start_s is not None and end_s is not None:
            annotated_s = end_s - start_s
            if abs(sound.seconds - annotated_s) > _TOLERANCE_S:
                what = f"clip and annotated times differ by more than {_TOLERANCE_S} s"
                account.note(what, where)
        if ";" in emotions:
            account.note("tied votes, kept as several emotions", where)
        written = read_transcript(there.get(f"{segment}.txt".lower()), prepared, where)
        if written is None:
            continue
        transcript = clean(written)
        if not transcript:
            account.repair("transcripts of tags alone: the speech stays, with an empty text", where)
        elif transcript != " ".join(written.split()):
            account.repair("transcripts cleaned of tags and other characters", where)
        prepared.rows.append(
            {
                "utterance_id": segment,
                "dialogue_id": dialogue,
                "turn": str(turns[dialogue]),
                "session": name,
                "speaker": f"User{user}{sex}",
                "text": transcript,
                "audio": str(wav),
                "emotion": emotions,
                "split": split,
                "start": fields[1],
                "end": fields[2],
                "valence": "" if valence is None else fields[5],
                "arousal": "" if arousal is None else fields[6],
                "votes": votes,
                PLACE: where,
            }
        )
    faults += wrong.texts()
    if not num_rows and not faults:
        faults.append("no segments below its header rows")
    if num_rows and not faults and not any(row["session"] == name for row in prepared.rows):
        faults.append(
            f"none of its {num_rows} segments can be used; are the wav and txt files in"
            f" wav/Session{session:02}/?"
        )
    if faults:
        raise ManifestError(file, faults)
    return set(first_line)


def _numbers(fields: list[str], faults: list[str], line: int) -> list[float | None] | None:
    """Start, end, valence and arousal, None for an empty field; None for all where one is no
    number.
    """
    found: list[float | None] = []
    for column, what in ((1, "start"), (2, "end"), (5, "valence"), (6, "arousal")):
        if fields[column] and not re.fullmatch(r"-?[0-9]{1,9}(\.[0-9]*)?", fields[column]):
            faults.append(f"line {line}: {what} {fields[column]!r} is not a number")
            return None
        found.append(float(fields[column]) if fields[column] else None)
    return found


def read_labels(
    fields: Sequence[str], prepared: Prepared, where: str, line: int, faults: Faults
) -> tuple[str, str] | None:
    """Emotion and votes as a manifest has them, of the total label and the raters' that follow it
    three columns apart; None where the row is to be left out.
    """
    total, *raters = (fields[3 * rater] for rater in range(NUM_RATERS + 1))
    emotions = prepared.labels.read(total, where, faults, at=f"line {line}")
    if emotions is None:
        return None
    if not total:
        prepared.account.note("no total emotion: a turn without a label, kept as context", where)
    votes = prepared.labels.votes(raters, where, faults, at=f"line {line}")
    return ";".join(emotions), votes


def read_transcript(file: Path | None, prepared: Prepared, where: str) -> str | None:
    """A transcript as it is; None, and an entry in the account, where there is none to read."""
    if file is None or not file.is_file():
        prepared.account.leave_out("no transcript", where)
        return None
    try:
        return prepared.texts.decode(file.read_bytes(), file.name)
    except ValueError as error:
        prepared.account.leave_out(f"transcript is not text: {error}", where)
        return None


def _account_for_the_rest(
    wav: Path, sessions: set[int], segments: set[str], ai_hub: Path | None, account: Account
) -> None:
    """Account for what is below wav/ and was not read."""
    known = {f"{segment}{suffix}".lower() for segment in segments for suffix in (".wav", ".txt")}
    for folder in sorted(wav.iterdir()):
        session = _SESSION_FOLDER.fullmatch(folder.name)
        if not folder.is_dir():
            account.leave_out("stray files", f"wav/{folder.name}")
        elif session is None:
            if ai_hub is None or ai_hub.resolve() != folder.resolve():
                account.note(
                    "folders that are not a session's were not read", f"wav/{folder.name}/"
                )
        elif int(session[1]) not in sessions:
            account.leave_out("session without annotations", f"wav/{folder.name}/")
        else:
            for file in sorted(folder.iterdir()):
                if file.name.lower() not in known:
                    is_clip = file.suffix.lower() in (".wav", ".txt") and not is_stray(file.name)
                    why = "files without annotation" if is_clip else "stray files"
                    account.leave_out(why, f"wav/{folder.name}/{file.name}")
