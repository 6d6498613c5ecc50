"""The outbox: a process beside the driver that follows the ledger and sends what is new to MLflow.

A process and not a thread, so that neither MLflow's import nor its work holds Python's lock in the
driver, and so that it can be left behind when a server does not answer. It only reads the ledger:
what it could not send stays there.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from mmm.device import cpus_here
from search.ledger.events import LedgerError, read_events
from search.ledger.records import Sweep
from search.tracking.delivery import Busy, Delivery
from search.tracking.pages import page_base
from search.tracking.store import NotLetIn, import_mlflow

_POLL_S = 1.0
_LONGEST_PAUSE_S = 15.0
# of a core, at most, while training needs every core; what waits is sent when it has ended
_SHARE = 0.01
_LONGEST_YIELD_S = 60.0
_GRACE_S = 5.0  # for a store's trouble, once the sweep has ended
_LONGEST_YIELDING_S = (
    10.0  # after the sweep, which is enough where a core is free and little is left
)
_LONGEST_WAIT_S = 30.0  # of the driver for that one; after that the outbox goes on alone


@dataclass(frozen=True, slots=True)
class Order:
    """What the process is to send; a line of JSON on its standard input."""

    runs: str
    name: str
    log: str  # the file in which it says what goes wrong


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of it: the last line that the process prints."""

    trouble: str = ""
    # Addresses of MLflow's pages, once everything has arrived.
    ranking: str | None = None
    comparison: str | None = None


class Outbox:
    """The driver's side: starts the process, and at the end waits for it as long as it gets on.

    Made before it has anything to do, so that MLflow is imported on a core that is idle while a
    sweep is checked. In a `with` block it ends with it where there was no sweep to follow.
    """

    def __init__(self) -> None:
        self._outcome = Outcome()
        self._order = ""
        self.ranking: str | None = None  # as in Outcome
        self.comparison: str | None = None
        self._start("yielding")

    def _start(self, manner: str) -> None:
        self._process = subprocess.Popen(
            # -P: a search.py in the user's folder is not ours.
            [sys.executable, "-P", "-m", "search.tracking.outbox", manner],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the driver
        )
        self._listener = threading.Thread(
            target=self._listen, args=(self._process,), name="outbox", daemon=True
        )
        self._listener.start()

    def _listen(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._outcome = Outcome(**json.loads(line))

    def follow(self, runs: Path, name: str) -> None:
        """Send this sweep from now on; its ledger is there. What goes wrong is told in `mlflow.log`
        beside it.
        """
        log = runs / name / "mlflow.log"
        log.write_text("")
        self._order = json.dumps(asdict(Order(str(runs), name, str(log)))) + "\n"
        self._tell()

    def _tell(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has died: `close` tells of it
            self._process.stdin.write(self._order.encode())
            self._process.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._order:
            self._process.kill()
            self._process.wait()

    def close(self, longest_wait_s: float = _LONGEST_WAIT_S) -> str:
        """After the session's end is in the ledger: wait for the rest to be sent, but not for long;
        it goes on without the driver.

        Returns what kept it from arriving, empty where everything has.
        """
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._listener.join(min(longest_wait_s, _LONGEST_YIELDING_S))
        if self._listener.is_alive() and longest_wait_s > _LONGEST_YIELDING_S:
            # It yields to everyone, and on a machine with other work may never get on. One that
            # does not takes its place; what has arrived is not sent twice.
            self._process.kill()
            self._process.wait()
            self._start("now")
            self._tell()
            self._process.stdin.close()
            self._listener.join(longest_wait_s)
        if self._listener.is_alive():
            return "it is being sent in the background"
        status = self._process.wait()
        self.ranking, self.comparison = self._outcome.ranking, self._outcome.comparison
        return self._outcome.trouble or (
            "" if status == 0 else f"the outbox ended with status {status}, see mlflow.log"
        )


def _say(outcome: Outcome) -> None:
    try:
        print(json.dumps(asdict(outcome)), flush=True)
    except BrokenPipeError:  # the driver was killed; what it began is sent all the same
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _driver_has_ended(wait_s: float) -> bool:
    """Whether the driver has closed our standard input, which a killed one does too; waits for
    it.
    """
    readable, _, _ = select.select([sys.stdin], [], [], wait_s)
    return bool(readable)


def pause_s_after(used_s: float, load: float, num_cores: int) -> float:
    """Seconds until the next look at the ledger, after so many of the processor's: longer while
    every core is busy.
    """
    yielding_s = min(used_s / _SHARE, _LONGEST_YIELD_S) if load >= num_cores else 0.0
    return max(_POLL_S, yielding_s)


def follow(runs: Path, name: str) -> int:
    """Send until the driver has ended and everything has arrived; 1 where it could not be sent."""
    first = next(read_events(runs / name / "ledger.sqlite")).body
    assert isinstance(first, Sweep)
    uri = first.spec.tracking_uri
    pause_s, trouble = 0.0, ""
    ended, last_success = False, time.monotonic()
    delivery = Delivery(runs, name, uri)
    is_mine = False
    while True:
        if not ended:
            ended = _driver_has_ended(pause_s)
            if ended:
                last_success = time.monotonic()
        else:
            time.sleep(min(pause_s, _POLL_S))
        try:
            if not is_mine:
                delivery.__enter__()
                is_mine = True
            delivery.read()
            if delivery.left:
                delivery.connect()
            # From here: MLflow's tables are made once, and whoever waits for the first trials need
            # not wait for that tenfold.
            used_s = time.process_time()
            delivery.send()
            used_s = time.process_time() - used_s
            if ended:
                delivery.finish()
                base = page_base(uri, 5000)
                pages = delivery.pages
                chart = pages.chart(base) if len(pages.best) > 1 else None
                _say(Outcome("", pages.ranking(base), chart))
                return 0
            pause_s = pause_s_after(used_s, os.getloadavg()[0], cpus_here())
            trouble, last_success = "", time.monotonic()
        except Busy as error:  # an earlier session's outbox is still at it
            pause_s, trouble = _POLL_S, str(error)
        except LedgerError as error:
            _say(Outcome(str(error)))
            return 1
        # whatever a store or network does, training goes on; the user is told at the end
        except Exception as error:
            kind = "" if isinstance(error, NotLetIn) else f"{type(error).__name__}: "
            trouble = f"{kind}{error}".splitlines()[0]
            pause_s = min(max(pause_s, _POLL_S) * 2, _LONGEST_PAUSE_S)
            print(time.strftime("%H:%M:%S"), trouble, file=sys.stderr, flush=True)
        if ended and trouble and time.monotonic() - last_success > _GRACE_S:
            _say(Outcome(trouble))
            return 1


def yield_to_training() -> None:
    """Run only where a core is idle, or nearly: Ray's workers have a niceness of 15."""
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(19)


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.argv[1] == "yielding":
        yield_to_training()
    else:
        os.nice(5)  # behind the driver
    with contextlib.suppress(
        Exception
    ):  # tried again where it is needed, and there told to the user
        import_mlflow()
    line = sys.stdin.readline()
    if not line:  # the driver has ended without a sweep
        return 0
    order = Order(**json.loads(line))
    with open(order.log, "a") as log:
        os.dup2(log.fileno(), sys.stderr.fileno())
    return follow(Path(order.runs), order.name)


if __name__ == "__main__":
    sys.exit(main())
