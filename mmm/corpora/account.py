"""What reading a corpus gives: rows of a manifest, and an account of what was repaired and what was
left out.
"""

from dataclasses import dataclass, field
from pathlib import Path

from mmm.audio.sound import AudioError, SoundInfo, sound_info

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
    encodings: dict[str, list[str]] = field(default_factory=dict)  # of files that are not UTF-8

    def repair(self, what: str, case: str) -> None:
        _add(self.repaired, what, case)

    def leave_out(self, why: str, case: str) -> None:
        _add(self.left_out, why, case)

    def note(self, what: str, case: str) -> None:
        _add(self.noted, what, case)

    def read_as(self, encoding: str, case: str) -> None:
        _add(self.encodings, encoding, case)


def _add(entries: dict[str, list[str]], what: str, case: str) -> None:
    cases = entries.setdefault(what, [])
    if cases[-1:] != [case]:  # a row may have a defect several times
        cases.append(case)


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
