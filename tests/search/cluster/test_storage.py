"""A folder that can only be read: what a sweep was is shown and exported all the same."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from search.ledger.events import LedgerError, read_events, read_history
from tests.conftest import Corpus
from tests.search.cluster.loss_parts import trained_again
from tests.search.cluster.ray_parts import can_mount
from tests.search.cluster.test_worker_death import driver_of, wait_for_ended_trials
from tests.search.engine.test_controller import Sweep
from tests.sweep_parts import TIMEOUT_S, call, call_inside, small_spec, train_serially


def fill(ballast: Path) -> None:
    """Take all the room of a disk."""
    with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.mark.skipif(not can_mount(), reason="a folder cannot be mounted read-only")
def test_a_finished_sweep_in_a_folder_that_can_only_be_read_is_shown_and_exported(
    corpus: Corpus, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    runs = tmp_path / "runs"
    Sweep(runs / "small", small_spec(corpus, trials=3)).run()
    files = {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file()}
    for bind in (["mount", "--bind", runs, runs], ["mount", "-o", "remount,ro,bind", runs]):
        subprocess.run(bind, check=True)
    try:
        assert not os.access(runs, os.W_OK)
        assert "trials" in call_inside("search", "status", "small", "--runs", runs).stdout
        out = ["--out", tmp_path / "bundle"]
        call_inside("search", "export", "small", "--runs", runs, *out)
        assert (tmp_path / "bundle").is_dir()
        said = call_inside("search", "report", "small", "--runs", runs, status=2).stderr
        assert said.startswith("error: ")
        assert said.endswith(
            "/small/leaderboard.csv: Read-only file system; name a place that can be written to, or"
            " make this one so\n"
        )
        # That nothing can be written is a finding, and keeps it from none of the others.
        told = call_inside("search", "doctor", "small", "--runs", runs, status=1)
        assert told.stderr == ""
        assert "ended: done" in told.stdout
        out = ["--out", tmp_path / "report"]
        call_inside("search", "report", "small", "--runs", runs, *out)
        assert (tmp_path / "report" / "report.html").is_file()
        now = {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file()}
        changed = len(now.items() ^ files.items())
        record_property("lost", f"read-only: {changed} of {len(files)} files changed")
    finally:
        subprocess.run(["umount", runs], check=True)


@pytest.mark.skipif(not can_mount(), reason="a small disk cannot be mounted")
def test_a_sweep_whose_disk_is_full_says_what_to_free_and_goes_on(
    corpus: Corpus, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", runs], check=True)
    try:
        sweep = Sweep(runs / "small", small_spec(corpus, trials=8, epochs=20, first_rung=18))
        controller = sweep.controller()
        reports = train_serially(controller)
        next(reports)
        fill(runs / "ballast")
        with pytest.raises(LedgerError, match="free some space on its disk") as fault:
            for _ in reports:
                pass
        assert f"mmm-search resume small --runs {runs}" in str(fault.value)
        (runs / "ballast").unlink()
        history = sweep.run()
        assert len(history.trials) == 8
        assert history.trials[0].epochs
        assert history.last_close is not None
        assert history.last_close.why == "done"
        events = read_events(sweep.folder / "ledger.sqlite")
        failed = sum(trial.state == "failed" for trial in history.trials.values())
        record_property(
            "lost",
            f"full, without Ray: {trained_again(events)}, {failed} of {len(history.trials)} trials"
            " failed",
        )
    finally:
        sweep._open.close()
        subprocess.run(["umount", runs], check=True)


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="a small disk cannot be mounted")
def test_a_sweep_on_ray_whose_disk_is_full_ends_by_itself_and_goes_on_with_room(
    corpus: Corpus,
    empty_store: Path,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", runs], check=True)
    try:
        shutil.copy(empty_store, runs)
        with driver_of(corpus, tmp_path, trials=4) as driver:
            wait_for_ended_trials(driver, 1)
            fill(runs / "ballast")
            full = time.monotonic()
            told, _ = driver.communicate(timeout=TIMEOUT_S)
            ended_s = time.monotonic() - full
        errors = (tmp_path / "stderr").read_text()
        assert "free some space on its disk" in errors, told + errors
        assert "Traceback" not in told + errors
        (runs / "ballast").unlink()
        call("search", "resume", "first", "--runs", runs)
        events = list(read_events(runs / "first" / "ledger.sqlite"))
        trials = read_history(runs / "first" / "ledger.sqlite").trials.values()
    finally:
        subprocess.run(["umount", "-l", runs], check=True)
    failed = sum(trial.state == "failed" for trial in trials)
    assert (len(trials), failed) == (4, 0)
    record_property(
        "lost",
        f"full, on Ray: status {driver.returncode} after {ended_s:.0f} s; with room again"
        f" {trained_again(events)}, {failed} of {len(trials)} trials failed",
    )
