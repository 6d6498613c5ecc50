"""Which Ray a command works on: its own, whatever other one is or was on the machine, or the one it
was told to join. That a sweep has its own is in test_sweep.py.
"""

import contextlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from search.cluster.connect import absolute
from tests.conftest import Corpus, names_in
from tests.encode_parts import contents
from tests.mmm.cli.test_encode_command import SMALL
from tests.sweep_parts import TIMEOUT_S, call, environment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path("/proc/self/stat").is_file(), reason="processes are found through /proc"
    ),
]

# Python tells of an exception around a fork and drops it.
STOPPED_WHILE_FORKING = """
import os, signal
from search.cluster.connect import _sigterm_is_ctrl_c
os.register_at_fork(before=lambda: os.kill(os.getpid(), signal.SIGINT))
try:
    with _sigterm_is_ctrl_c():
        if not (child := os.fork()):
            os._exit(0)
        os.waitpid(child, 0)
        print("it went on")
except KeyboardInterrupt:
    print("and was stopped")
"""
NOBODY = "127.0.0.1:6399"


@contextlib.contextmanager
def traces_of_another_ray() -> Iterator[Path]:
    """Of one that nobody answers for: the variable that names it, and the file that it leaves when
    it is killed.
    """
    with (
        # short, since Ray's sockets lie below it
        tempfile.TemporaryDirectory(dir="/tmp") as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        trace = Path(folder) / "ray" / "ray_current_cluster"
        trace.parent.mkdir()
        trace.write_text(NOBODY)
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("RAY_ADDRESS", NOBODY)
        yield trace


def test_encoding_on_two_actors_of_a_ray_of_its_own_gives_the_same_bytes(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = tmp_path / "features"
    with traces_of_another_ray() as trace:
        monkeypatch.delenv("RAY_ADDRESS")  # the file alone is enough to mislead it
        done = call(
            "search", "encode", corpus.manifest.path, "--features", features, *SMALL, "--workers", 2
        )
        assert trace.is_file()
    assert "none of 40 files had to be converted to 16 kHz mono" in done.stdout
    assert contents(features) == contents(corpus.features_dir)
    assert names_in(tmp_path) == ["features"]


CONNECT = """
import os, signal, sys
from search.cluster.connect import connect, disconnect, reach
from search.stopping import Stopping

def asked():
    print("asked", flush=True)

with Stopping(asked):
    try:
        connect(reach(None, {"CPU": 1.0}, 1), 1, 0)
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


OWN_RAY = """
import ray
from search.cluster.connect import Place, connect, disconnect
from search.cluster.look import TokenWanted, look

connect(Place(None), 1, 0)
try:
    look(ray.get_runtime_context().gcs_address, RAY_AUTH_MODE="disabled")
except TokenWanted as error:
    print(error)
disconnect()
"""


def test_a_ray_of_its_own_asks_for_a_token_whatever_is_set_where_it_is_started(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OWN_RAY],
        env=environment() | {"RAY_AUTH_MODE": "disabled", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert " wants a token, and the one that is given here, if any, is not" in done.stdout, done
    token = tmp_path / ".ray" / "auth_token"
    assert token.read_text().strip()
    assert token.stat().st_mode & 0o777 == 0o600


def test_workers_find_what_pythonpath_names_from_this_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("lib:/opt/lib::.") == f"{tmp_path}/lib:/opt/lib::{tmp_path}"
    assert absolute("") == ""


def test_ctrl_c_around_a_fork_is_not_lost() -> None:
    told = subprocess.run(
        [sys.executable, "-c", STOPPED_WHILE_FORKING],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    assert told.stdout == "it went on\nand was stopped\n"
    assert "Exception ignored" in told.stderr
