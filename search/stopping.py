"""How a sweep is stopped from outside: Ctrl-C, SIGTERM (a machine that is taken back), SIGHUP (a
terminal that is closed).
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Self

_POLITE = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class Stopping:
    """In a `with` block SIGTERM and SIGHUP are one Ctrl-C, the first of them; others change
    nothing, nor does any once `is_ending` is set.

    A SIGHUP that was ignored before stays so: that is what `nohup` is for.
    """

    def __init__(self, on_stop: Callable[[], None]) -> None:
        """`on_stop` is called before the Ctrl-C."""
        self.on_stop = on_stop
        self.is_asked = self.is_ending = False
        self._before: dict[int, Any] = {}
        self._interrupt: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._interrupt = signal.getsignal(signal.SIGINT)
            wanted = [
                number
                for number in _POLITE
                if number == signal.SIGTERM or signal.getsignal(number) != signal.SIG_IGN
            ]
            self._before = {number: signal.signal(number, self._stop) for number in wanted}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        if self.is_asked and self._interrupt == signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _stop(self, _: int, __: FrameType | None) -> None:
        if not self.is_asked and not self.is_ending:
            self.is_asked = True
            self.on_stop()
            # As a script's background commands have it.
            if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            os.kill(os.getpid(), signal.SIGINT)

    @contextlib.contextmanager
    def ending(self) -> Iterator[None]:
        """What has to be written whatever happens; short, so that Ctrl-C may wait for it."""
        self.is_ending = True
        if not self._before:
            yield
            return
        # Not ignored: processes that are started would inherit that.
        signal.signal(signal.SIGINT, lambda *_: None)
        try:
            yield
        finally:
            # The one there was at first: Tune leaves its own, which swallows the next Ctrl-C.
            signal.signal(
                signal.SIGINT, self._interrupt if self._interrupt is not None else signal.SIG_DFL
            )
