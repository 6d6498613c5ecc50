"""A worker that is killed costs its trial and no more."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from search.ledger import read_history
from search.mlflow_store import EXPERIMENT, default_tracking_uri
from tests.conftest import Corpus
from tests.sweep_parts import TIMEOUT_S, command, environment, write_space

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="processes are found through /proc"),
]

# Trials of a few seconds, so that a kill meets them in the middle of their training.
SPACE = """
def suggest(trial):
    return {"architecture": "mlp_mixer", "context": trial.suggest_int("context", 1, 3), "width": 64, "num_blocks": 1,
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


def training_workers_of(driver: int) -> list[int]:
    """Processes below a driver that train at this moment: Ray names them after what they run."""
    below, found = children(), []
    todo = [driver]
    while todo:
        process = todo.pop()
        todo += below.get(process, [])
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # The class that `tune.with_resources` makes of ours.
            if Path(f"/proc/{process}/cmdline").read_bytes().startswith(b"ray::ResourceTrainable.train"):
                found.append(process)
    return found


@contextlib.contextmanager
def driver_of(corpus: Corpus, folder: Path, trials: int) -> Iterator[subprocess.Popen[str]]:
    space = write_space(folder / "long.py", SPACE)
    arguments = command("search", "run", space, corpus.manifest.path, "--features", corpus.features_dir, "--name", "first", "--trials",
                        trials, "--epochs", EPOCHS, "--first-rung", 20, "--workers", 2, "--packs", "off",
                        "--runs", folder / "runs")  # fmt: skip
    with (
        open(folder / "stderr", "w") as errors,
        subprocess.Popen(arguments, env=environment(), stdout=subprocess.PIPE, stderr=errors, text=True) as process,
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


def test_a_killed_worker_fails_its_trial_and_the_sweep_goes_on(corpus: Corpus, empty_store: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    shutil.copy(empty_store, tmp_path / "runs")
    with driver_of(corpus, tmp_path, trials=TRIALS) as driver:
        for count in (1, 2, 3):
            wait_for_ended_trials(driver, count)
            if workers := training_workers_of(driver.pid):
                break  # otherwise they are all between two trials
        assert workers
        os.kill(workers[-1], signal.SIGKILL)
        told, _ = driver.communicate(timeout=TIMEOUT_S)
        assert driver.returncode == 0, (told, (tmp_path / "stderr").read_text())
    trials = read_history(tmp_path / "runs" / "first" / "ledger.sqlite").trials
    assert len(trials) == TRIALS
    failed = [trial for trial in trials.values() if trial.state == "failed"]
    assert len(failed) == 1
    assert failed[0].reason.startswith("the worker died: ")
    assert all(trial.state in ("complete", "pruned") for trial in trials.values() if trial is not failed[0])
    assert f"trial {failed[0].number} failed (the worker died: " in told
    found = statuses(tmp_path / "runs")
    assert found.pop("sweep") == "FINISHED"
    assert [number for number, status in found.items() if status == "FAILED"] == [str(failed[0].number)]
    assert "RUNNING" not in found.values()
