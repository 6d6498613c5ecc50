"""A worker that is killed, whoever kills it, costs what its trial did since its last checkpoint,
and no more.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from search.ledger.events import read_events, read_history
from search.ledger.records import DeadWorker, OutOfMemory
from search.tracking.store import EXPERIMENT, default_tracking_uri
from tests.conftest import Corpus
from tests.search.cluster.loss_parts import gone_on, trained_again
from tests.sweep_parts import TIMEOUT_S, command, environment, write_space

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path("/proc/self/stat").is_file(), reason="processes are found through /proc"
    ),
]

# Trials of a few seconds, so that a kill meets them in the middle of their training.
SPACE = """
def suggest(trial):
    return {"architecture": "mlp_mixer", "context": trial.suggest_int("context", 1, 3),
            "width": 64, "num_blocks": 1,
            "lr": trial.suggest_float("lr", 1e-4, 1e-3, log=True)}
"""
EPOCHS, TRIALS = 60, 4


def children() -> dict[int, list[int]]:
    """Process -> its children."""
    found: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                found.setdefault(parent, []).append(int(folder.name))
    return found


def processes_below(process: int) -> list[int]:
    """All that one started, and those that these started."""
    tree, found, todo = children(), [], [process]
    while todo:
        started = tree.get(todo.pop(), [])
        found += started
        todo += started
    return found


def training_workers_of(driver: int) -> list[int]:
    """Processes below a driver that train at this moment: Ray names them after what they run."""
    found = []
    for process in processes_below(driver):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # The class that `tune.with_resources` makes of ours.
            if (
                Path(f"/proc/{process}/cmdline")
                .read_bytes()
                .startswith(b"ray::ResourceTrainable.train")
            ):
                found.append(process)
    return found


@contextlib.contextmanager
def driver_of(corpus: Corpus, folder: Path, trials: int) -> Iterator[subprocess.Popen[str]]:
    space = write_space(folder / "long.py", SPACE)
    arguments = command(
        "search",
        "run",
        space,
        corpus.manifest.path,
        "--features",
        corpus.features_dir,
        "--name",
        "first",
        "--trials",
        trials,
        "--epochs",
        EPOCHS,
        "--first-rung",
        20,
        "--workers",
        2,
        "--packs",
        "off",
        "--runs",
        folder / "runs",
    )
    with (
        open(folder / "stderr", "w") as errors,
        subprocess.Popen(
            arguments, env=environment(), stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def wait_for_ended_trials(process: subprocess.Popen[str], count: int) -> None:
    """Read what the driver tells until that many trials have ended."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if f"; {count} of " in line:
            return
    raise AssertionError("".join(lines))


def statuses(runs: Path) -> dict[str, str]:
    """MLflow's status by trial; asserts that there is one run a trial."""
    client = MlflowClient(tracking_uri=default_tracking_uri(runs))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    by_trial = {run.data.tags["mmm.trial"]: str(run.info.status) for run in found}
    assert len(by_trial) == len(found)
    return by_trial


def kill_a_training_worker(driver: subprocess.Popen[str]) -> None:
    """As soon as there is one, after the first trial has ended."""
    for count in range(1, TRIALS):
        wait_for_ended_trials(driver, count)
        if workers := training_workers_of(driver.pid):
            os.kill(workers[-1], signal.SIGKILL)
            return  # otherwise they are all between two trials
    raise AssertionError("no worker was seen training")


def test_the_trial_of_a_killed_worker_goes_on_in_another_from_its_checkpoint(
    corpus: Corpus,
    empty_store: Path,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    (tmp_path / "runs").mkdir()
    shutil.copy(empty_store, tmp_path / "runs")
    with driver_of(corpus, tmp_path, trials=TRIALS) as driver:
        kill_a_training_worker(driver)
        told, _ = driver.communicate(timeout=TIMEOUT_S)
        assert driver.returncode == 0, (told, (tmp_path / "stderr").read_text())
    ledger = tmp_path / "runs" / "first" / "ledger.sqlite"
    trials = read_history(ledger).trials
    assert len(trials) == TRIALS
    assert {trial.state for trial in trials.values()} <= {"complete", "pruned"}
    (killed,) = [trial for trial in trials.values() if trial.dead_workers]
    assert [entry.epoch for entry in killed.epochs] == list(range(1, len(killed.epochs) + 1))
    events = [
        event
        for event in read_events(ledger)
        if killed.number in (event.trial, getattr(event.body, "trial", None))
    ]
    place = next(place for place, event in enumerate(events) if isinstance(event.body, DeadWorker))
    assert events[place].body.reason.startswith("Worker unexpectedly exits")
    saved = [event.body.epoch for event in events[:place] if event.kind == "checkpoint"]
    after = [event.body.epoch for event in events[place:] if event.kind == "epoch"]
    assert after[0] == (saved[-1] if saved else 0) + 1
    failed = sum(trial.state == "failed" for trial in trials.values())
    record_property("lost", f"{gone_on(events, place)}; {failed} of {len(trials)} trials failed")
    assert (
        "warning: 1 workers died, and what they trained went on in others from its last"
        " checkpoints; " in told
    )
    found = statuses(tmp_path / "runs")
    assert found.pop("sweep") == "FINISHED"
    assert set(found.values()) <= {"FINISHED", "KILLED"}


def test_a_trial_whose_workers_are_all_killed_for_memory_is_tried_with_less_and_fails_for_memory(
    corpus: Corpus,
    empty_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    (tmp_path / "runs").mkdir()
    shutil.copy(empty_store, tmp_path / "runs")
    monkeypatch.setenv(
        "RAY_memory_usage_threshold", "0.001"
    )  # Ray's own monitor: more is used already
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    began = time.monotonic()
    with driver_of(corpus, tmp_path, trials=1) as driver:
        told, _ = driver.communicate(timeout=TIMEOUT_S)
        assert driver.returncode == 1, told
    ended_s = time.monotonic() - began
    (trial,) = read_history(tmp_path / "runs" / "first" / "ledger.sqlite").trials.values()
    assert (trial.state, trial.is_lost, trial.dead_workers) == ("failed", True, 0)
    assert trial.reason.startswith("out of memory even alone, each batch in two halves: ")
    assert "low on memory" in trial.reason
    attempts = [
        event.body.attempt
        for event in read_events(tmp_path / "runs" / "first" / "ledger.sqlite")
        if isinstance(event.body, OutOfMemory)
    ]
    assert attempts == ["alone", "half"]  # there was none beside it
    record_property(
        "lost",
        f"killed each time: {trial.state} after {len(attempts)} further attempts with"
        f" {len(trial.epochs)} reported epochs, the sweep ended {ended_s:.0f} s after its start",
    )
    for words in ("alone", "alone, each batch in two halves"):
        assert f"trial 0: out of memory; it goes on {words} (" in told
    assert f"trial 0 failed ({trial.reason}): " in told
    assert (
        tmp_path / "stderr"
    ).read_text() == f"error: every trial failed; the first reason: {trial.reason}\n"
    assert statuses(tmp_path / "runs") == {"sweep": "FINISHED", "0": "FAILED"}


def test_a_sweep_whose_own_ray_dies_closes_its_session_and_goes_on_by_itself_with_another(
    corpus: Corpus,
    empty_store: Path,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    shutil.copy(empty_store, runs)
    with driver_of(corpus, tmp_path, trials=1000) as driver:
        wait_for_ended_trials(driver, 1)
        (raylet,) = [
            process
            for process in processes_below(driver.pid)
            if Path(f"/proc/{process}/exe").resolve().name == "raylet"
        ]
        os.kill(raylet, signal.SIGKILL)
        killed = time.monotonic()
        assert driver.stdout is not None
        before = []
        for line in driver.stdout:
            before.append(line)
            if line.startswith("going on by itself"):
                break
        closed_s = time.monotonic() - killed
        (number,) = re.findall(r"; (\d+) of 1000 trials", "".join(before))[-1:] or ["1"]
        wait_for_ended_trials(driver, int(number) + 1)
        went_on_s = time.monotonic() - killed
        driver.terminate()
        told, _ = driver.communicate(timeout=TIMEOUT_S)
        assert driver.returncode == 0, told
    why = "broken off: Ray has died on this machine (its raylet does not live any more)"
    go_on = f"mmm-search resume first --runs {runs}"
    assert before[-1] == f"going on by itself (1 of at most 3 times an hour): {go_on}\n"
    assert f"ended: {why}; once that is mended, go on with: {go_on}\n" in before
    events = list(read_events(runs / "first" / "ledger.sqlite"))
    closes = [event.body.why for event in events if event.kind == "close"]
    assert closes == [why, "interrupted"]
    trials = read_history(runs / "first" / "ledger.sqlite").trials
    assert "failed" not in {trial.state for trial in trials.values()}
    assert [trial.dead_workers for trial in trials.values()] == [0] * len(trials)
    record_property(
        "lost",
        f"{trained_again(events)}; closed after {closed_s:.0f} s, the first trial after that"
        f" ended after {went_on_s:.0f} s",
    )
