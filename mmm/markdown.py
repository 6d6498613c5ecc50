"""Text that Markdown shows as it is."""

import re

# `_` too: a name between two of them would be set in italics.
_MARKUP = re.compile(r"([^\w\s]|_)")


def as_markdown(text: str) -> str:
    """Text that Markdown shows as it is, on one line: a name from somebody's corpus or bundle must
    not fetch a picture.
    """
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))
