"""`--serial`: a sweep in one process, without Ray, that finds what one worker on Ray finds."""

import csv
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from search.engine.controller import Controller
from search.ledger.events import create_sweep, read_history
from search.plan.checks import check_spec
from search.serial import train_here
from tests.conftest import Corpus
from tests.sweep_parts import SMALL_SPACE, TIMEOUT_S, call, call_here, environment, small_spec

WITHOUT_RAY = """
import sys
from search.cli.app import main
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
assert "search.worker.slices" in sys.modules
assert "ray" not in sys.modules
"""
NO_TRACE = """
import logging, os, signal
def state():
    return dict(os.environ), signal.getsignal(signal.SIGINT), logging.getLogger("ray.tune").level
before = state()
import search.cli.app, search.cluster.connect, search.serial, search.session
assert state() == before
"""


def options(corpus: Corpus, runs: Path, name: str) -> list[object]:
    given = {"--features": corpus.features_dir, "--name": name, "--trials": 5, "--epochs": 4}
    given |= {"--first-rung": 2, "--runs": runs}
    return ["quick", corpus.manifest.path, *(part for pair in given.items() for part in pair)]


@pytest.fixture(scope="module")
def runs(corpus: Corpus, empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the sweep `serial` in it."""
    runs = tmp_path_factory.mktemp("runs")
    shutil.copy(empty_store, runs)
    arguments = ["run", *options(corpus, runs, "serial"), "--serial"]
    subprocess.run(
        [sys.executable, "-c", WITHOUT_RAY, *map(str, arguments)],
        env=environment(),
        check=True,
        timeout=TIMEOUT_S,
    )
    return runs


def test_a_whole_sweep_runs_without_ray(runs: Path) -> None:
    history = read_history(runs / "serial" / "ledger.sqlite")
    assert {trial.state for trial in history.trials.values()} == {"complete", "pruned"}
    assert len(history.trials) == 5
    assert (runs / "serial" / "bundle").is_dir()


@pytest.mark.slow
def test_its_leaderboard_is_that_of_one_worker_on_ray(runs: Path, corpus: Corpus) -> None:
    call("search", "run", *options(corpus, runs, "on-ray"), "--workers", 1)
    boards = []
    for name in ("serial", "on-ray"):
        with open(runs / name / "leaderboard.csv", encoding="utf-8", newline="") as file:
            rows = [*csv.DictReader(file)]
        boards.append([{**row, "training_s": "", "epoch_s": ""} for row in rows])
    assert boards[0] == boards[1]
    assert len(boards[0]) == 6  # the linear baseline among them


def test_neither_audio_nor_a_gpu_is_needed_where_a_sweep_is_started(
    corpus: Corpus,
    empty_store: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copy(corpus.manifest.path, tmp_path / "manifest.csv")
    (tmp_path / "runs").mkdir()
    shutil.copy(empty_store, tmp_path / "runs")
    arguments = [tmp_path / "manifest.csv", "--features", corpus.features_dir]
    command = ["quick", *arguments, "--name", "a", "--runs", tmp_path / "runs", "--trials", 1]
    status, _, errors = call_here(capsys, monkeypatch, "run", *command, "--epochs", 1, "--serial")
    assert (status, errors) == (0, "")
    assert read_history(tmp_path / "runs" / "a" / "ledger.sqlite").trials[0].state == "complete"
    check_spec(small_spec(corpus, address="10.0.0.1:6379", gpus_per_trial=1.0, precision="bf16"))


@pytest.mark.parametrize("more", [["--workers", "2"], ["--address", "auto"]], ids=str)
def test_it_is_refused_with_more_than_one_worker_or_a_cluster(
    runs: Path,
    corpus: Corpus,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    more: list[str],
) -> None:
    for command in (["run", *options(corpus, runs, "new")], ["resume", "serial", "--runs", runs]):
        status, _, errors = call_here(capsys, monkeypatch, *command, "--serial", *more)
        assert status == 2
        assert "leave out --workers and --address, or leave out --serial" in errors
    assert not (runs / "new").exists()


def test_ctrl_c_waits_while_the_ledger_is_written(corpus: Corpus, tmp_path: Path) -> None:
    def interrupt_once() -> None:
        if not controller.verdicts.is_interrupted:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    spec = small_spec(corpus)
    with create_sweep(tmp_path / "s", spec) as ledger:
        controller = Controller(ledger, spec, SMALL_SPACE, "cpu", interrupt_once)
        controller.open_session("mmm-search run --serial")
        train_here(controller, 1)
        controller.close_session("interrupted")
        assert [trial.state for trial in controller.trials.values()] == ["running"]
    assert signal.getsignal(signal.SIGINT) == before


def test_importing_the_doors_changes_nothing_in_the_process() -> None:
    subprocess.run(
        [sys.executable, "-c", NO_TRACE], env=environment(), check=True, timeout=TIMEOUT_S
    )
