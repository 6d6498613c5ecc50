"""What the doctor found, and how it is told."""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

State = Literal["ok", "note", "fault"]

_WIDTH = 80
_STATE, _SUBJECT = 7, 14  # columns


@dataclass(frozen=True)
class Finding:
    """`note`: it works, but somebody may wonder; `fault`: something will not work."""

    state: State
    subject: str
    found: str
    do: str = ""  # what mends it: a sentence, or the command after `run: `


def fault_of(subject: str, error: Exception) -> Finding:
    """Of an error of ours, whose message says what to do."""
    return Finding("fault", subject, str(error))


def lines(findings: Sequence[Finding]) -> Iterator[str]:
    """A table of three columns. A word that is longer than the last one, as paths are, stays whole:
    it is there to be copied.
    """
    indent = " " * (_STATE + _SUBJECT)
    for one in findings:
        first = f"{one.state:<{_STATE}}{one.subject:<{_SUBJECT}}"
        for text in (one.found, f"-> {one.do}" if one.do else ""):
            for paragraph in text.splitlines():
                yield from textwrap.wrap(
                    paragraph,
                    _WIDTH,
                    initial_indent=first,
                    subsequent_indent=indent,
                    break_long_words=False,
                    break_on_hyphens=False,
                )
                first = indent


def as_json(findings: Sequence[Finding]) -> dict[str, object]:
    return {
        "is_well": not any(one.state == "fault" for one in findings),
        "findings": [asdict(one) for one in findings],
    }
