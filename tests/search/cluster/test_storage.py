"""A folder that can only be read: what a sweep was is shown and exported all the same."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from search.ledger.events import LedgerError, read_events
from tests.conftest import Corpus
from tests.search.engine.test_controller import Sweep
from tests.sweep_parts import call_inside, small_spec, train_serially


def can_mount() -> bool:
    tried = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /mnt"]
    return (
        bool(shutil.which("unshare"))
        and not subprocess.run(tried, capture_output=True, check=False).returncode
    )


@pytest.mark.skipif(not can_mount(), reason="a folder cannot be mounted read-only")
def test_a_finished_sweep_in_a_folder_that_can_only_be_read_is_shown_and_exported(
    corpus: Corpus, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    Sweep(runs / "small", small_spec(corpus, trials=3)).run()
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
        with contextlib.suppress(OSError), open(runs / "ballast", "wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(4096))
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
        epochs = [(event.trial, event.body.epoch) for event in events if event.kind == "epoch"]
        again = len(epochs) - len(set(epochs))
        failed = sum(trial.state == "failed" for trial in history.trials.values())
        record_property(
            "lost",
            f"disk full: {again} of {len(epochs)} reported epochs trained again, {failed} of"
            f" {len(history.trials)} trials failed; resumed once there was room",
        )
    finally:
        sweep._open.close()
        subprocess.run(["umount", runs], check=True)
