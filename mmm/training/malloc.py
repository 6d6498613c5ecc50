"""A process's memory: what the C library does with what tensors give back, and its peak."""

import contextlib
import ctypes
import os
import resource
import sys
from collections.abc import Mapping
from pathlib import Path

_M_MXFAST, _M_TRIM_THRESHOLD, _M_MMAP_MAX = 1, -1, -4  # malloc.h
_NEVER = 2**31 - 1
# A tensor is cut from a block a little larger than itself, for its alignment, and what is left over
# is freed. glibc 2.36 keeps such small pieces apart for later, so that the hole that a tensor
# leaves never holds one of its size again and a training process grows without end. Without its
# cache of small pieces (and `keep_freed_memory`) they join the hole. A thread that trains shall use
# the same heap as all others: one of its own has pieces of 64 MB at most.
_TUNABLES = "GLIBC_TUNABLES"
_WANTED = {"glibc.malloc.tcache_count": "0", "glibc.malloc.arena_max": "1"}


def reusing_holes(environment: Mapping[str, str]) -> dict[str, str]:
    """What a training process's environment has to have beside `environment` to stay as small as it
    can; elsewhere without effect.
    """
    there = [found for found in environment.get(_TUNABLES, "").split(":") if found]
    chosen = {found.partition("=")[0] for found in there}  # by the user
    missing = [f"{name}={value}" for name, value in _WANTED.items() if name not in chosen]
    return {_TUNABLES: ":".join([*there, *missing])} if missing else {}


def restart_reusing_holes() -> None:
    """Start this command again with that environment, which is read before Python is; a return
    means that there was no need.
    """
    changes = reusing_holes(os.environ)
    if sys.platform == "linux" and changes:
        command = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, command, {**os.environ, **changes})  # noqa: S606


def keep_freed_memory() -> bool:
    """Let this process keep what its tensors free, for the next ones; False where the C library is
    not glibc.

    By default glibc gives every block above 32 MB back at once, and the kernel clears each page of
    it again before the next tensor of that size: a third of a mixer's training step (docs/LOG.md,
    2026-11-24). The process stays as large as its largest step; `give_back` undoes that between
    trainings.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(
        mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _NEVER) and mallopt(_M_MXFAST, 0)
    )


def give_back() -> None:
    """Return what is kept and not used to the system."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def forget_peak() -> None:
    """Start counting the peak anew, on Linux alone; elsewhere it is that of the process so far."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_kb() -> int:
    """The most that this process has held, in kB of 1,024 bytes."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak  # there it is in bytes
