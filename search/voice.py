"""What a sweep says when nobody may be there to hear it: a terminal that was closed, a pipe whose
reader has ended.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import IO, Any

from rich.console import Console


class _Voice:
    """A stream that falls silent where it cannot be written to any more, instead of ending the
    sweep.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream, self._is_terminal = stream, stream.isatty()

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except OSError:
            self._fall_silent()
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._fall_silent()

    def isatty(self) -> bool:
        return (
            self._is_terminal
        )  # a closed one is none any more, and what was begun on it has to be ended

    def _fall_silent(self) -> None:
        # What is buffered goes there too: Python would fail on it at its end.
        with contextlib.suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def lasting(console: Console) -> Iterator[None]:
    """Let a console be silent where it would raise an OSError."""
    stream = console.file
    console.file = _Voice(stream)  # type: ignore[assignment]
    try:
        yield
    finally:
        # A console without a file of its own follows what is put in the place of these.
        its_own = stream not in (sys.stdout, sys.stderr)
        console.file = stream if its_own else None  # type: ignore[assignment]
