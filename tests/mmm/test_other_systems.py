"""What Linux has and macOS has not: the same work is done without it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmm import device, files
from mmm.training import malloc


def test_without_affinity_all_cores_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert device.cpus_here() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert device.cpus_here() == 1


def test_without_fdatasync_a_file_is_synced_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    monkeypatch.delattr(os, "fdatasync", raising=False)
    with open(tmp_path / "file", "wb") as file:
        files.sync_data(file.fileno())
        assert synced == [file.fileno()]


def test_without_proc_the_peak_is_the_process_s(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = malloc.peak_kb()
    monkeypatch.setattr(malloc, "Path", lambda path: tmp_path / path.strip("/"))
    malloc.forget_peak()
    assert malloc.peak_kb() >= here / 2
    monkeypatch.setattr(sys, "platform", "darwin")
    assert malloc.peak_kb() < here  # bytes there, and so counted in kB


def test_where_cpuinfo_is_missing_a_cpu_has_no_bf16(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MMM_CPU_BF16", raising=False)
    monkeypatch.setattr(device, "_CPUINFO", tmp_path / "cpuinfo")
    assert not device.cpu_has_bf16()


def test_a_lock_keeps_another_process_out_until_its_file_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    program = f"from mmm.files import lock; lock(open({str(path)!r}, 'w'))"
    with open(path, "w") as file:
        files.lock(file)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert "BlockingIOError" in done.stderr
    subprocess.run([sys.executable, "-c", program], check=True)


def test_without_locks_the_error_says_where_to_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with open(tmp_path / "lock", "w") as file, pytest.raises(OSError, match="Linux, macOS or WSL"):
        files.lock(file)
