"""Labels as corpora have them: which names may be one, which spellings are the same, and what a
class that a split lacks does to scores.
"""

import functools
import shlex
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping

from mmm.manifest import EMOTIONS, Manifest

LONGEST = 100  # characters; a column of longer ones holds texts
# Controls, line and paragraph separators, halves of characters.
_FORBIDDEN = ("Cc", "Zl", "Zp", "Cs")
_SHOWN = 6  # names in a sentence
_SEEN = ("train", "dev")


@functools.cache  # few different ones, each thousands of times
def label_fault(name: str) -> str:
    """Why this cannot be a label's name, "" where it can: any text can without line breaks, control
    characters, `;` (which joins labels) and `|` (which divides raters).
    """
    if len(name) > LONGEST:
        return (
            f"label {name[:20]!r}... has {len(name)} characters, expected at most {LONGEST}; is it"
            " another column?"
        )
    for letter in name:
        if letter in ";|":
            return f"label {name!r} holds {letter!r}, which divides labels; write it another way"
        if unicodedata.category(letter) in _FORBIDDEN:
            return f"label {name!r} holds the control character U+{ord(letter):04X}; remove it"
    return ""


def spelling(name: str) -> str:
    """What spellings of one label have in common, whatever their case, spaces and Unicode form."""
    return " ".join(unicodedata.normalize("NFC", name).casefold().split())


def spelling_fault(counts: Mapping[str, int], command: str) -> str:
    """A fault where labels are written in several ways, "" where each is in one; `counts` has the
    rows of each, `command` is the one that takes `--emotion`.
    """
    alike: dict[str, list[str]] = {}
    for name in counts:
        alike.setdefault(spelling(name), []).append(name)
    several = [
        sorted(
            names, key=lambda name: (name not in EMOTIONS, not _is_nfc(name), -counts[name], name)
        )
        for names in alike.values()
        if len(names) > 1
    ]
    if not several:
        return ""
    told = [
        " and ".join(f"{_written(name, names)} ({counts[name]} rows)" for name in names)
        for names in several
    ]
    changes = [
        f"--emotion {shlex.quote(f'{other}={names[0]}')}"
        for names in several
        for other in names[1:]
    ]
    what = "a label is" if len(several) == 1 else f"{len(several)} labels are"
    return (
        f"{what} spelt in several ways: {', '.join(told)}; to spell it one way: {command}"
        f" {' '.join(changes)}"
    )


def _is_nfc(name: str) -> bool:
    return unicodedata.is_normalized("NFC", name)


def _written(name: str, beside: Iterable[str]) -> str:
    """With its code points where it looks like one of the others."""
    composed = [unicodedata.normalize("NFC", other) for other in beside]
    if composed.count(unicodedata.normalize("NFC", name)) > 1:
        return f"{name!r} [{' '.join(f'U+{ord(letter):04X}' for letter in name)}]"
    return repr(name)


def listed(names: Iterable[str]) -> str:
    """Labels in a sentence: the first of many."""
    shown = [repr(name) for name in names]
    more = len(shown) - _SHOWN
    return ", ".join(shown[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def notes_of(manifest: Manifest) -> tuple[str, ...]:
    """What whoever trains on a manifest should know of its labels, in sentences; nothing of the
    test split's.
    """
    found = []
    bare = {split: len(manifest.turns(split)) - len(manifest.rows(split)) for split in _SEEN}
    if any(bare.values()):
        counts = ", ".join(f"{split} {count}" for split, count in bare.items())
        found.append(
            f"{sum(bare.values())} turns have no label ({counts}): they are context of the turns"
            " after them, never trained on and never scored"
        )
    if len(manifest.classes) == 1:
        found.append(
            f"every labelled row of train is {manifest.classes[0]!r}: training needs two labels"
        )
    rows = manifest.rows("dev")
    found += _unseen(manifest, "dev", rows)
    present = {name for row in rows for name in manifest.utterances[row].emotions}
    if absent := [name for name in manifest.classes if name not in present]:
        most = (len(manifest.classes) - len(absent)) / len(manifest.classes_of(rows))
        what, its = ("label is", "its") if len(absent) == 1 else ("labels are", "their")
        found.append(
            f"{len(absent)} {what} in no row of dev ({listed(absent)}): {its} F1 counts as 0 there,"
            f" so that macro F1 is at most {most:.4f}; scikit-learn's rule leaves out what is"
            " neither in the truth nor predicted"
        )
    return tuple(found)


def notes_of_test(manifest: Manifest) -> tuple[str, ...]:
    """The same of the test split, for whoever prepares a corpus and not for whoever trains on
    it.
    """
    rows = manifest.sealed_test_rows()
    num_turns = sum(one.split == "test" for one in manifest.utterances)
    found = []
    if num_turns > len(rows):
        found.append(f"{num_turns - len(rows)} turns of test have no label: they are not scored")
    return (*found, *_unseen(manifest, "test", rows))


def _unseen(manifest: Manifest, split: str, rows: list[int]) -> list[str]:
    """What is told of a split's labels that train does not have."""
    names = manifest.classes_of(rows)
    unseen = names[len(manifest.classes) :]
    if not unseen:
        return []
    counts = Counter(name for row in rows for name in manifest.utterances[row].emotions)
    present = sum(name in counts for name in manifest.classes)
    one = len(unseen) == 1
    num_rows = sum(counts[name] for name in unseen)
    return [
        f"{len(unseen)} {'label is' if one else 'labels are'} in {split} and not in train"
        f" ({listed(unseen)}; {num_rows} rows): no model can answer {'it' if one else 'them'}, and"
        f" those rows are scored and always wrong. Macro F1 is the mean over {len(names)} classes,"
        f" {'this one' if one else 'these'} with 0, so at most {present / len(names):.4f}; by"
        " scikit-learn's rule, over the classes in the truth or predicted, at most"
        f" {present / (present + len(unseen)):.4f}"
    ]
