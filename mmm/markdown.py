"""Text that Markdown shows as it is."""

import re

# `_` too: a name between two of them would be set in italics.
_MARKUP = re.compile(r"([^\w\s]|_)")


def as_markdown(text: str) -> str:
    """Text that Markdown shows as it is, on one line: a name from somebody's corpus or bundle must
    not fetch a picture.
    """
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))


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
