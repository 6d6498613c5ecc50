"""Text that Markdown shows as it is."""

import re

# What means something within a line, and what does at its start.
_MARKUP = re.compile(r"([\\`*_\[\]<>|~&$]|^(?:[#+=-]|[0-9]+(?=[.)])))")


def as_markdown(text: str) -> str:
    """Text that Markdown shows as it is, on one line: a name from somebody's corpus or bundle must
    not fetch a picture.
    """
    return _MARKUP.sub(_escaped, " ".join(text.split()))


def _escaped(found: re.Match[str]) -> str:
    sign = found[0]
    # Of a number at the start it is the sign after it that makes a list.
    return f"{sign}\\" if sign.isdigit() else f"\\{sign}"


def as_code(text: str) -> str:
    """The same as a code span, whatever backticks are in it."""
    text = " ".join(text.split())
    fence = _longer_than_in(text, 1)
    room = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{room}{text}{room}{fence}"


def as_code_block(text: str) -> str:
    """The same as a block of its own, with its lines."""
    fence = _longer_than_in(text, 3)
    return f"{fence}\n{text}\n{fence}"


def _longer_than_in(text: str, least: int) -> str:
    return "`" * max([least, *(1 + len(run) for run in re.findall("`+", text))])
