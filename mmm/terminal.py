"""What goes to a terminal. Text is text: neither rich's markup nor a terminal's control sequences
in it do anything.
"""

import re
import sys
from typing import Any

from rich.console import Console
from rich.status import Status
from rich.text import Text

# All but tab and newline: C0 with ESC, DEL, C1 with the one-byte CSI, what turns the direction of
# writing, halves of characters.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """With what a terminal would obey, or no output could encode, spelt out: `\\x1b`."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text.replace("\r\n", "\n"))


def plain(text: str) -> Text:
    """Text that any of rich's consoles shows as it is."""
    return Text(printable(text))


class PlainConsole(Console):
    """A console that takes every string as text, in tables and titles too. A pipe has no width of
    its own: 140 is enough for tables.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        # Here rich makes text of each string that it is given to print, to put into a table, or to
        # measure.
        return super().render_str(printable(text), **options)

    def status(self, status: Any, **options: Any) -> Status:
        return super().status(plain(status) if isinstance(status, str) else status, **options)


console = PlainConsole(width=None if sys.stdout.isatty() else 140)
