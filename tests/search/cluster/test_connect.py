"""Which Ray a command works on: its own, whatever other one is or was on the machine, or the one it
was told to join.
"""

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from search.ledger.events import read_history
from tests.conftest import Corpus
from tests.encode_parts import contents
from tests.mmm.cli.test_encode_command import SMALL
from tests.sweep_parts import TIMEOUT_S, call, environment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path("/proc/self/stat").is_file(), reason="processes are found through /proc"
    ),
]

NOBODY = "127.0.0.1:6399"


@pytest.fixture
def other_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Traces of another Ray that nobody answers for: the variable that names it, and the file that
    one leaves when it is killed.
    """
    with tempfile.TemporaryDirectory(
        dir="/tmp"
    ) as folder:  # short, since Ray's sockets lie below it
        trace = Path(folder) / "ray" / "ray_current_cluster"
        trace.parent.mkdir()
        trace.write_text(NOBODY)
        monkeypatch.setenv("RAY_TMPDIR", folder)
        monkeypatch.setenv("RAY_ADDRESS", NOBODY)
        yield trace


def test_a_sweep_starts_a_ray_of_its_own(
    corpus: Corpus, empty_store: Path, tmp_path: Path, other_ray: Path
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    shutil.copy(empty_store, runs)
    call(
        "search",
        "run",
        "quick",
        corpus.manifest.path,
        "--features",
        corpus.features_dir,
        "--name",
        "first",
        "--trials",
        1,
        "--epochs",
        1,
        "--workers",
        1,
        "--runs",
        runs,
    )
    assert [
        trial.state for trial in read_history(runs / "first" / "ledger.sqlite").trials.values()
    ] == ["complete"]
    assert other_ray.is_file()


def test_encoding_starts_a_ray_of_its_own(
    corpus: Corpus, tmp_path: Path, other_ray: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS")  # the file alone is enough to mislead it
    features = tmp_path / "features"
    call("search", "encode", corpus.manifest.path, "--features", features, *SMALL, "--workers", 1)
    assert contents(features) == contents(corpus.features_dir)


CONNECT = """
import os, signal, sys
from search.cluster.connect import connect, disconnect
from search.stopping import Stopping

def asked():
    print("asked", flush=True)

with Stopping(asked):
    try:
        connect(None, 1, 0, {"CPU": 1.0})
        print("connected", flush=True)
        signal.pause()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    disconnect()
"""


def test_a_signal_is_ours_to_handle_once_ray_is_there() -> None:
    # While it starts there is a moment in which its own handler, installed by its C++ part, ends
    # the process: not ours to close.
    with subprocess.Popen(
        [sys.executable, "-c", CONNECT],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            while process.stdout.readline() != "connected\n":
                assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            told, errors = process.communicate(timeout=TIMEOUT_S)
        finally:
            process.kill()
    assert told.splitlines()[-1] == "interrupted", (told, errors)
    assert process.returncode == 0
    assert "SIGTERM" not in errors


def test_a_cluster_that_is_too_small_is_refused() -> None:
    code = "from search.cluster.connect import connect; connect(None, 1, 0, {'CPU': 3.0})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert (
        done.stderr.splitlines()[-1]
        == "ValueError: the cluster has 1 CPUs, 3 are asked for; Ray would wait for ever"
    )
