"""Failures in a row that are one fault, and not of the settings: a space that begins to raise, a
node without the package.
"""

import re

from search.ledger.trial import Trial

_PATH = re.compile(r"(?:[A-Za-z]:)?(?:[\\/][^\s\\/'\":,;()]+)+[\\/]?")
_HEX = re.compile(r"\b(?:0x[0-9a-f]+|(?=[a-f]*\d)[0-9a-f]{6,})\b", re.IGNORECASE)
_NUMBER = re.compile(
    r"[-+]?(?:\d[\d,_]*(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?|\b(?:nan|inf)\b", re.IGNORECASE
)
_LONGEST = 300  # characters of a reason that are told


def alike(reason: str) -> str:
    """A reason in which paths, ids and numbers are one and the same: they differ from trial to
    trial.
    """
    for pattern, word in ((_PATH, "/PATH"), (_HEX, "ID"), (_NUMBER, "N")):
        reason = pattern.sub(word, reason)
    return " ".join(reason.split())


class FailuresInARow:
    """Counts trials that failed one after the other for equal reasons, since it was made."""

    def __init__(self, most: int) -> None:
        """`most`: 0 is never too many."""
        self.most = most
        self._reason, self._count = "", 0

    def add(self, trial: Trial, is_finding: bool) -> str | None:
        """Why the sweep is to end after this trial, which has; None where it is not.

        `is_finding`: it failed, and that is what its settings are like (it diverged, it takes more
        than it may).
        """
        if trial.state != "failed" or is_finding:
            # What was trained shows that training works; what needed none says nothing of it.
            if trial.epochs and trial.copied_from is None:
                self._count = 0
            return None
        reason = alike(trial.reason)
        self._count = self._count + 1 if reason == self._reason else 1
        self._reason = reason
        if self.most == 0 or self._count < self.most:
            return None
        return (
            f"the last {self._count} trials failed for the same reason:"
            f" {' '.join(trial.reason.split())[:_LONGEST]}"
        )
