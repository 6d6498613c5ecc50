"""From the labels of a corpus to those of a manifest: known names, the user's `--emotion` and
`--drop-emotion`, and every label that nobody knows, told once.
"""

import difflib
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mmm.corpora.account import Account
from mmm.corpora.label_sets import EMOTION_NAMES, LABEL_SETS, MISSPELT, SENTIMENT_RANGE
from mmm.faults import Faults
from mmm.manifest import EMOTIONS

_NEVER_USED = 8  # labels shown where a name that the user gives is none of the corpus
_SPELT_ALIKE = 0.8  # of difflib's ratio: agnry and angry have 0.8


@dataclass
class Labels:
    """Reads labels: `known` has the corpus' names, in small letters, and what they become, nothing
    for a turn without a label. Where the set is closed any other name is a fault, else it is a
    class as it is.
    """

    account: Account
    known: Mapping[str, str]
    is_closed: bool = True
    renamed: Mapping[str, str] = field(default_factory=dict)  # as --emotion says
    dropped: frozenset[str] = frozenset()  # as --drop-emotion says
    sentiment: float = 0.0  # numbers of this range are labels too, by their sign
    met: Counter[str] = field(default_factory=Counter)  # names as corpus and manifest have them

    def read(
        self, text: str, place: str, faults: Faults, *, at: str = "", is_vote: bool = False
    ) -> tuple[str, ...] | None:
        """`Anger; disqust` -> ("angry", "disgust"), each once, in the corpus' order; empty for a
        turn without a label. None where the row is to be left out. `place` is what the account
        calls it, `at` what a fault does where that is of one file.
        """
        found: list[str] = []
        for written in text.split(";"):
            name = " ".join(written.split()).lower()
            if not name:
                continue
            label = self.name_of(name)
            if not is_vote:
                self.met[name] += 1
            if label is None:
                faults.add(f"unknown emotion {name!r}", at or place, self._advice(name))
                continue
            if name in MISSPELT and label == self.known.get(name):
                self.account.repair(f"label {name} read as {label}", place)
            elif not is_vote:
                self._tell(name, label, place)
                if not label and name in self.renamed:
                    return None
            if label:
                found.append(label)
        return tuple(dict.fromkeys(found))

    def votes(self, raters: Sequence[str], place: str, faults: Faults, *, at: str = "") -> str:
        """What each rater chose, divided by |, with the names that labels have."""
        chosen = (self.read(one, place, faults, at=at, is_vote=True) or () for one in raters)
        return "|".join(";".join(names) for names in chosen)

    def check_used(self) -> None:
        """Raises ValueError where an option names a label that the corpus does not have."""
        has = {*self.met, *(self.known.get(name, name) for name in self.met)}
        for option, names in (("--emotion", self.renamed), ("--drop-emotion", self.dropped)):
            for name in names:
                if name not in has:
                    shown = ", ".join(name for name, _ in self.met.most_common(_NEVER_USED))
                    raise ValueError(
                        f"{option} names {name!r}, which is no label of the corpus (found: {shown})"
                    )

    def tell_doubtful(self) -> None:
        """Notes what may be one label spelt in two ways, codes of a known corpus, and numbers."""
        if self.is_closed:
            return
        names = [name for name in self.met if self.name_of(name) == name and name not in EMOTIONS]
        for name in names:
            others = [
                other
                for other in {*self.met, *EMOTIONS}
                if self.met[other] > 10 * self.met[name] and other != name
            ]
            for alike in difflib.get_close_matches(name, others, 1, _SPELT_ALIKE):
                typed = shlex.quote(f"{name}={alike}")
                what = f"label {name} is spelt like {alike}; where it means that: --emotion {typed}"
                self.account.note(what, f"{self.met[name]} of {name}, {self.met[alike]} of {alike}")
        corpora = {
            corpus: len(known)
            for corpus, known in LABEL_SETS.items()
            if set(self.met) <= set(known) and any(known[name] != name for name in names)
        }
        if corpora:
            fitting = [name for name, size in corpora.items() if size == min(corpora.values())]
            what = f"labels are codes of {' or '.join(fitting)}; names: --labels-of {fitting[0]}"
            self.account.note(what, ", ".join(sorted(names)))
        elif names and all(name.lstrip("-").replace(".", "", 1).isdigit() for name in names):
            what = "labels are numbers; names are given so: --emotion 0=neutral"
            self.account.note(what, ", ".join(sorted(names)))

    def name_of(self, name: str) -> str | None:
        """What a corpus' name becomes, empty for a turn without a label; None where nobody knows
        it.
        """
        label: str | None
        name = name.lower()
        if name in self.dropped:
            return ""
        if name in self.renamed:
            return self.renamed[name]
        if name in self.known:
            label = self.known[name]
        elif (number := _number(name)) is not None and abs(number) <= self.sentiment:
            label = "neutral" if number == 0 else "positive" if number > 0 else "negative"
        else:
            label = None if self.is_closed else name
        # The user may also speak of labels by the manifest's names.
        if label and label in self.dropped:
            return ""
        return self.renamed.get(label, label) if label else label

    def _tell(self, name: str, label: str, place: str) -> None:
        if not label and name in self.renamed:
            self.account.leave_out(f"labelled {name}, left out as asked", place)
        elif not label:
            self.account.note(f"labelled {name}: a turn without a label, kept as context", place)
        elif name in self.renamed or label != self.known.get(name, name):
            self.account.note(f"label {name} read as {label}, as asked", place)

    def _advice(self, name: str) -> str:
        expected = ", ".join(name for name in self.known if name not in EMOTION_NAMES)
        typed = shlex.quote(f"{name}=NAME")
        return (
            f"expected {expected}; name it with --emotion {typed}, or keep its turns without a"
            f" label: --drop-emotion {shlex.quote(name)}"
        )


def labels_for(
    account: Account,
    known: Mapping[str, str],
    renamed: Sequence[str],
    dropped: Sequence[str],
    *,
    is_closed: bool = True,
    sentiment: float = 0.0,
) -> Labels:
    """Labels by a corpus' names and the user's options, `상처=fear` of `--emotion`, where `NAME=`
    leaves the rows out. Raises ValueError.
    """
    changes: dict[str, str] = {}
    for change in renamed:
        name, equals, emotion = (" ".join(part.split()) for part in change.partition("="))
        name = name.lower()
        emotion = emotion.lower() if emotion.lower() in EMOTIONS else emotion
        if not equals or not name:
            raise ValueError(
                f"--emotion {change!r}: expected NAME=EMOTION, or NAME= to leave its rows out"
            )
        if changes.setdefault(name, emotion) != emotion:
            raise ValueError(f"--emotion names {name!r} twice: {changes[name]} and {emotion}")
        if any(sign in emotion for sign in ";|"):
            raise ValueError(f"--emotion {change!r}: a name has no ; and no |")
    without = frozenset(" ".join(name.split()).lower() for name in dropped)
    if both := without & changes.keys():
        raise ValueError(f"{sorted(both)[0]!r} is in --emotion and in --drop-emotion")
    return Labels(account, known, is_closed, changes, without, sentiment)


def label_set(name: str) -> tuple[dict[str, str], float]:
    """A known corpus' names, and the range of its numbers. Raises ValueError."""
    if name.lower() not in LABEL_SETS:
        raise ValueError(f"unknown --labels-of {name!r}; expected one of {', '.join(LABEL_SETS)}")
    return LABEL_SETS[name.lower()], SENTIMENT_RANGE.get(name.lower(), 0.0)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
