"""`ray job submit`: a sweep as a job of a cluster, whose driver runs on the head."""

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from search.ledger.events import read_history
from tests.conftest import Corpus
from tests.search.cluster.ray_parts import ray_head
from tests.sweep_parts import TIMEOUT_S

# What Ray's dashboard needs, through which jobs are submitted; a plain `ray[tune]` has none of it.
_NEEDED = ("aiohttp_cors", "colorful", "grpc", "opencensus", "smart_open", "virtualenv")
_LACKING = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(_LACKING), reason=f"ray[default] is not complete here: no {', '.join(_LACKING)}"
    ),
]


def submit(port: int, *command: str) -> subprocess.CompletedProcess[str]:
    """A job, waited for."""
    ray = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit"]
    return subprocess.run(
        [*ray, f"--address=http://127.0.0.1:{port}", "--", *command],
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def test_a_sweep_is_a_job_of_a_cluster_and_its_status_is_the_job_s(
    corpus: Corpus, empty_store: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    shutil.copy(empty_store, runs)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--num-cpus=2", "--dashboard-host=127.0.0.1", f"--dashboard-port={port}"]
    with ray_head(*options, dashboard=True):
        sweep = [sys.executable, "-m", "search", "run", "quick", str(corpus.manifest.path)]
        sweep += ["--features", str(corpus.features_dir), "--name", "job", "--runs", str(runs)]
        sweep += [
            "--trials",
            "2",
            "--epochs",
            "1",
            "--workers",
            "1",
            "--address",
            "auto",
            "--insecure",
        ]
        done = submit(port, *sweep)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "succeeded" in done.stdout.lower()
        again = submit(port, *sweep)  # the name is taken: refused, and the job failed
        assert again.returncode != 0
        assert "job" in again.stdout
        assert "resume" in again.stdout
    history = read_history(runs / "job" / "ledger.sqlite")
    assert [trial.state for trial in history.trials.values()] == ["complete", "complete"]
    assert json.loads((runs / "job" / "bundle" / "config.json").read_text())
