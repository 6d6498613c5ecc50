"""What Ray Tune does not notice and would wait for without end: a worker that says nothing any
more, Ray's death on this machine, the death of the cluster's head.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import ray
from ray import tune

from search.cluster.again import HEAD_DIED, OWN_DIED, answers
from search.cluster.connect import is_connected
from search.engine.controller import Controller
from search.engine.verdicts import INTERRUPTED

_LOOK_S = 5.0  # between looks at the workers, and whether Ray is there
_LONGEST_LOOK_S = 10.0  # what is longer was a driver that stood still itself
_SILENT_S = 60.0  # that a worker may be in any case
_TIMES = 20.0  # as long as it was before
_FIRST_S = 1800.0  # until it tells of a trial for the first time: it reads the features, compiles
_HEAD_S = 2.0  # between looks at the head
# Without an answer of the head. After 60 s Ray's C++ ends the process.
_HEAD_DEAD_S = 20.0
_ASKED_S = 3.0  # the same, where a signal asked for the end
_STOPPING = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


class Silence:
    """How long each worker has said nothing, against how long it took from word to word before."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._looked = clock()
        self._silent: dict[str, float] = {}
        self._longest: dict[str, float] = {}
        self.ended: dict[str, str] = {}  # why a worker was ended

    def heard(self, seat: str, *, is_new: bool) -> None:
        """A worker has reported; `is_new`: it trains other trials from now on."""
        if is_new:
            self._longest.pop(seat, None)
        else:
            self._longest[seat] = max(self._longest.get(seat, 0.0), self._silent.get(seat, 0.0))
        self._silent[seat] = 0.0

    def too_long(self, living: Iterable[str]) -> list[str]:
        """Which of the workers that live have said nothing for too long; to be asked often."""
        now = self.clock()
        # A driver that was stopped itself has not heard what they said meanwhile.
        passed, self._looked = min(now - self._looked, _LONGEST_LOOK_S), now
        self._silent = {seat: self._silent.get(seat, 0.0) + passed for seat in living}
        return [seat for seat, silent in self._silent.items() if silent > self._limit(seat)]

    def end(self, seat: str) -> str:
        """Take note that a worker is ended; why, in one sentence."""
        longest = self._longest.get(seat)
        before = "" if longest is None else f", before that for {longest:.0f} s at most"
        why = f"its worker said nothing for {self._silent.pop(seat):.0f} s{before}"
        self.ended[seat] = why
        return why

    def _limit(self, seat: str) -> float:
        if (longest := self._longest.get(seat)) is None:
            return _FIRST_S
        return max(_SILENT_S, _TIMES * longest)


class Watch(tune.Callback):
    """Ends workers that hang, and the session where Ray has died on this machine."""

    def __init__(
        self,
        controller: Controller,
        seats: dict[str, list[int]],
        silence: Silence,
        tell: Callable[[str], None],
    ) -> None:
        self.controller, self.seats, self.silence, self.tell = controller, seats, silence, tell
        self._looked = time.monotonic()

    def __getstate__(self) -> dict[str, object]:
        return {}  # Tune pickles it to restore it, which is never done

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if time.monotonic() - self._looked < _LOOK_S:
            return
        self._looked = time.monotonic()
        if not is_connected():
            self.controller.verdicts.break_off(f"{OWN_DIED} (its raylet does not live any more)")
            raise KeyboardInterrupt  # Tune's own end would wait for the workers
        running = {
            trial.trial_id: trial
            for trial in trials
            if trial.status == "RUNNING" and self.seats.get(trial.trial_id)
        }
        for seat in self.silence.too_long(running):
            actor = running[seat].temporary_state.ray_actor
            if actor is not None and seat not in self.silence.ended:
                numbers = ", ".join(map(str, self.seats[seat]))
                self.tell(f"trial {numbers}: {self.silence.end(seat)}; it goes on in another")
                ray.kill(actor)


class HeadWatch:
    """In a `with` block this process is replaced when the head of the cluster has died: its main
    thread may be inside of Ray, and would not come out of it again.

    What replaces it ends the session of the sweep in `folder` (search/cli/ending.py): its ledger
    has everything. Where a signal asked this process to stop, that is why it ends: who sends one to
    all processes of a sweep (`timeout`, a batch system) ends Ray first, and Python hears of signals
    only where the main thread comes out of Ray.
    """

    def __init__(self, folder: Path, *, is_own: bool) -> None:
        """`is_own`: a Ray that this process started."""
        self._reading, self._writing = -1, -1  # a pipe with the number of each signal
        self._before = -1
        self._is_asked = False
        self.folder, self.is_own = folder, is_own
        self.address: str = ray.get_runtime_context().gcs_address
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="head", daemon=True)

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._reading, self._writing = os.pipe()
            os.set_blocking(self._reading, False)
            os.set_blocking(self._writing, False)
            # Written by the C handler, whatever the main thread does.
            self._before = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._writing >= 0:
            signal.set_wakeup_fd(self._before)
            self._thread.join()
            os.close(self._reading)
            os.close(self._writing)

    def _watch(self) -> None:
        heard = time.monotonic()
        while not self._ended.wait(_HEAD_S):
            self._is_asked = self._is_asked or self._has_signal()
            if self._answers():
                heard = time.monotonic()
            elif time.monotonic() - heard > (_ASKED_S if self._is_asked else _HEAD_DEAD_S):
                self._replace()

    def _has_signal(self) -> bool:
        seen = b""
        with contextlib.suppress(OSError):
            seen = os.read(self._reading, 1000)
        return any(number in seen for number in _STOPPING)

    def _answers(self) -> bool:
        host, _, port = self.address.rpartition(":")
        return answers(host.strip("[]"), int(port), _HEAD_S)

    def _replace(self) -> None:
        why = f"{HEAD_DIED} {self.address} does not answer any more"
        if self.is_own:
            why = f"{OWN_DIED} (its head does not answer any more)"
            with contextlib.suppress(Exception):
                ray._private.worker._global_node.kill_all_processes(
                    check_alive=False, allow_graceful=False
                )
        if self._is_asked:
            why = INTERRUPTED
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        runs, name = str(self.folder.parent), self.folder.name
        program = [sys.executable, "-P", "-m", "search.cli.ending", runs, name, why]
        os.execv(sys.executable, program)  # noqa: S606, none is wanted
