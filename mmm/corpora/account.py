"""What reading a corpus gives: rows of a manifest, and an account of what was repaired and what was
left out.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd

from mmm.audio.sound import AudioError, SoundInfo, sound_info
from mmm.files import write_json, write_text
from mmm.manifest import COLUMNS, EMOTIONS
from mmm.manifest_csv import read_manifest

# What other corpora call the manifest's emotions.
EMOTION_NAMES = {
    "anger": "angry",
    "joy": "happy",
    "happiness": "happy",
    "sadness": "sad",
    "fearful": "fear",
    "surprised": "surprise",
    "disgusted": "disgust",
    "disqust": "disgust",
}
_MISSPELT = ("disqust",)
# What file managers leave beside a corpus.
_STRAY = (".ds_store", "thumbs.db", "desktop.ini")


@dataclass
class Account:
    """What was repaired, what was left out and what a user should know: each a reason with the
    cases it was true of.
    """

    repaired: dict[str, list[str]] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    noted: dict[str, list[str]] = field(default_factory=dict)

    def repair(self, what: str, case: str) -> None:
        _add(self.repaired, what, case)

    def leave_out(self, why: str, case: str) -> None:
        _add(self.left_out, why, case)

    def note(self, what: str, case: str) -> None:
        _add(self.noted, what, case)


def _add(entries: dict[str, list[str]], what: str, case: str) -> None:
    cases = entries.setdefault(what, [])
    if cases[-1:] != [case]:  # a row may have a defect several times
        cases.append(case)


@dataclass
class Prepared:
    """Rows of a manifest, in the order of conversation. `audio` is an absolute path until it is
    written.
    """

    source: Path
    rows: list[dict[str, str]] = field(default_factory=list)
    account: Account = field(default_factory=Account)


def emotion_names(text: str, account: Account, case: str) -> tuple[str, ...]:
    """`Anger; disqust` -> ("angry", "disgust"), each once, in the corpus' order. Unknown names stay
    as they are.
    """
    found = [name.strip().lower() for name in text.split(";") if name.strip()]
    for name in _MISSPELT:
        if name in found:
            account.repair(f"label {name} read as {EMOTION_NAMES[name]}", case)
    return tuple(dict.fromkeys(EMOTION_NAMES.get(name, name) for name in found))


def unknown_emotions(names: Iterable[str]) -> str:
    """A fault, empty where all names are known."""
    unknown = ", ".join(repr(name) for name in names if name not in EMOTIONS)
    expected = f"expected {', '.join(EMOTIONS)} (several joined by ;)"
    return f"unknown emotion {unknown}; {expected}" if unknown else ""


def emotion_map(default: dict[str, str], changes: Sequence[str]) -> dict[str, str]:
    """A corpus' names -> the manifest's, `changes` such as `상처=fear` overruling; `NAME=` leaves a
    label out. Raises ValueError.
    """
    found = dict(default)
    for change in changes:
        name, equals, emotion = (part.strip() for part in change.partition("="))
        if not equals or not name:
            raise ValueError(
                f"--emotion {change!r}: expected NAME=EMOTION, or NAME= to leave it out"
            )
        if emotion and emotion not in EMOTIONS:
            raise ValueError(f"--emotion {change!r}: {emotion!r} is none of {', '.join(EMOTIONS)}")
        found[name.lower()] = emotion
    return found


def is_stray(name: str) -> bool:
    """Whether a file's name is one that file managers and archives leave."""
    return name.lower() in _STRAY or name.startswith("._")


def usable_sound(path: Path, account: Account, case: str) -> SoundInfo | None:
    """The header of a clip; None, and an entry in the account, where it cannot be used."""
    try:
        return sound_info(path)
    except AudioError as error:
        account.leave_out(f"unusable audio: {str(error).removeprefix(f'{path}: ')}", case)
    except FileNotFoundError:
        account.leave_out("no audio file", case)
    return None


def write_checked(out: Path, content: str, source: Path) -> None:
    """Write a manifest that is faultless or not at all. Raises ManifestError about `source`."""
    # Checked under another name in the same folder, so that audio paths mean the same and nothing
    # faulty stays.
    trial = out.with_name(f".{out.name}.checking")
    try:
        write_text(trial, content)
        read_manifest(trial, source=source)
    finally:
        trial.unlink(missing_ok=True)
    write_text(out, content)


def write_prepared(prepared: Prepared, out: Path) -> Path:
    """Write the manifest, noting what its splits share, and beside it the account with every case,
    whose path is returned.

    Audio paths become relative to the manifest's folder. Raises ManifestError.
    """
    if out.is_dir():
        raise ValueError(f"{out}: is a folder; name a file, such as {out / 'manifest.csv'}")
    for column in ("speaker", "session"):
        homes: dict[str, set[str]] = {}
        for row in prepared.rows:
            homes.setdefault(row[column], set()).add(row["split"])
        for name, splits in homes.items():
            if len(splits) > 1:
                case = f"{name} ({', '.join(sorted(splits))})"
                prepared.account.note(f"{column}s in more than one split", case)
    home = out.parent.resolve()
    names = [*COLUMNS, "split"]
    names += [name for row in prepared.rows[:1] for name in row if name not in names]
    table = pd.DataFrame(prepared.rows, columns=pd.Index(names))
    table["audio"] = [os.path.relpath(audio, home) for audio in table["audio"]]
    write_checked(out, table.to_csv(index=False, lineterminator="\n"), prepared.source)
    account = out.with_suffix(".account.json")
    about = {"source": str(prepared.source), "num_utterances": len(prepared.rows)}
    write_json(account, {**about, **asdict(prepared.account)})
    return account
