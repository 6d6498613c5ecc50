"""A sweep that broke off because Ray died goes on by itself where there is a Ray again: a local one
is started anew, the head of a cluster may come back.
"""

import os
import re
import shlex
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

OWN_DIED = "Ray has died on this machine"
HEAD_DIED = "the head of the Ray cluster at"
MOST, WITHIN_S = 3, 3600.0  # what dies more often will die again
_BACK_S = 15.0  # that the head of a cluster is waited for, after the session has ended
_LOOK_S = 0.5
_TIMES = "MMM_SEARCH_WENT_ON"  # when it did, by the clock of all processes since the machine began


def answers(host: str, port: int, timeout_s: float) -> bool:
    """Whether anything listens there."""
    try:
        socket.create_connection((host, port), timeout_s).close()
    except OSError:
        return False
    return True


def times_before(now: float) -> list[float]:
    """When, within the last hour, this command went on by itself."""
    times = map(float, os.environ.get(_TIMES, "").split())
    return [when for when in times if 0 <= now - when < WITHIN_S]


def go_on(runs: Path, name: str, why: str) -> None:
    """Go on in this process's place with a sweep whose session has ended for the reason `why`.
    Returns where that is not to be tried, or where no Ray can be had within some seconds.
    """
    times = times_before(time.monotonic())
    head = re.search(rf"{HEAD_DIED} (\S+):(\d+) ", why)
    if len(times) >= MOST or (OWN_DIED not in why and head is None):
        return
    if head is not None and not _is_back(head[1].strip("[]"), int(head[2])):
        return
    command = ["resume", name, "--runs", str(runs)]
    print(
        f"going on by itself ({len(times) + 1} of at most {MOST} times an hour):"
        f" {shlex.join(['mmm-search', *command])}",
        flush=True,
    )
    os.environ[_TIMES] = " ".join(map(str, [*times, time.monotonic()]))
    _replace_by(command)


def _is_back(host: str, port: int) -> bool:
    deadline = time.monotonic() + _BACK_S
    while time.monotonic() < deadline:
        if answers(host, port, _LOOK_S):
            return True
        time.sleep(_LOOK_S)
    return False


def _replace_by(command: Sequence[str]) -> None:
    sys.stderr.flush()
    # -P: the user's folder holds what it holds.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "search", *command])  # noqa: S606
