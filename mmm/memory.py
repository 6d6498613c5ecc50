"""A process's memory: what the C library does with what tensors give back, and its peak."""

import contextlib
import ctypes
import resource
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let this process keep what its tensors free, for the next ones; False where the C library is not glibc.

    By default glibc gives every block above 32 MB back at once, and the kernel clears each page of it again before the next tensor
    of that size: a third of a mixer's training step (docs/LOG.md, 2026-11-24). The process stays as large as its largest
    step; `give_back` undoes that between trainings.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _NEVER))


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
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
