"""A Ray that cannot be had is refused in one sentence that names the cause, within seconds, with
exit status 2 and nothing written.
"""

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from search.cluster.connect import ray_folder
from tests.conftest import Corpus, names_in
from tests.search.cluster.ray_parts import TOKEN, ray_head
from tests.sweep_parts import TIMEOUT_S, call, call_inside, command, environment

MOST_S = 20.0
Refused = Callable[..., str]


def can_unshare() -> bool:
    tried = ["unshare", "--net", "true"]
    return (
        bool(shutil.which("unshare"))
        and not subprocess.run(tried, capture_output=True, check=False).returncode
    )


@pytest.fixture
def refused(corpus: Corpus, record_property: Callable[[str, object], None]) -> Refused:
    """Called with a folder for the runs and options: what `run` says; asserts that it was quick and
    wrote nothing.
    """

    def refused(folder: Path, *options: object) -> str:
        arguments = ["run", "quick", corpus.manifest.path, "--features", corpus.features_dir]
        began = time.monotonic()
        done = call_inside(
            *("search", *arguments, "--name", "first", "--trials", 2, "--workers", 1),
            *("--runs", folder / "runs", *options),
            status=2,
        )
        took_s = time.monotonic() - began
        assert took_s < MOST_S
        assert names_in(folder) == []
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1, done.stderr
        record_property("took_s", took_s)
        record_property("lost", f"status {done.returncode}, {len(names_in(folder))} files written")
        return done.stderr.removeprefix("error: ").strip()

    return refused


@pytest.fixture
def quiet_port() -> Iterator[int]:
    """Of something that takes connections and never answers."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        yield server.getsockname()[1]


def test_an_address_where_nobody_is(refused: Refused, tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
    said = refused(tmp_path, "--address", f"127.0.0.1:{port}")
    assert f"--address 127.0.0.1:{port}: no Ray cluster answers at " in said
    assert "Connection refused" in said


def test_a_word_that_is_no_address(refused: Refused, tmp_path: Path) -> None:
    assert refused(tmp_path, "--address", "ray://10.0.0.1:10001").startswith(
        "--address ray://10.0.0.1:10001: that is another of Ray's doors; expected host:port of the"
    )
    assert refused(tmp_path, "--address", "local") == (
        "--address local: expected host:port or auto; leave it out for a Ray of the sweep's own"
    )
    assert refused(tmp_path, "--address", "head").startswith(
        "--address head: expected host:port or auto ("
    )


@pytest.mark.slow
def test_something_else_than_ray(refused: Refused, tmp_path: Path, quiet_port: int) -> None:
    said = refused(tmp_path, "--address", f"127.0.0.1:{quiet_port}")
    assert said.endswith(": something is there, but it did not answer as a Ray cluster")


def test_a_temporary_folder_whose_name_is_too_long_for_sockets(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)  # it comes first
    # So do some batch systems with their TMPDIR.
    for variable in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.setenv(variable, "/tmp/" + 60 * "x")
        said = refused(tmp_path)
        assert f"in /tmp/{60 * 'x'}/ray, whose name is " in said
        assert said.endswith("set RAY_TMPDIR to a shorter one, for example: export RAY_TMPDIR=/tmp")


@pytest.mark.parametrize("folder", ["", "here"])
def test_a_temporary_folder_that_is_no_absolute_path(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", folder)
    said = refused(tmp_path)
    assert said.startswith(
        f"Ray's sockets would lie in {str(Path(folder, 'ray'))!r}, as RAY_TMPDIR"
    )


def test_folders_in_which_ray_cannot_write(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.cluster.connect._MOST_BYTES_OF_A_SOCKET", 1000)
    file, empty = tmp_path / "file", tmp_path / "empty"
    file.write_text("no folder")
    empty.mkdir()
    with monkeypatch.context() as patch:
        patch.setenv("RAY_TMPDIR", str(file))
        said = refused(empty)
        assert f"would lie in {file}/ray, and {file} is no folder that can be written to" in said
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("HOME", str(file))
    said = refused(empty)
    assert said.startswith(f"Ray keeps a token in {file}/.ray/auth_token, and {file} is no folder")
    assert said.endswith("; set HOME to one that can")
    (tmp_path / "home" / ".ray" / "auth_token").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    said = refused(empty)
    assert said.startswith(
        f"Ray keeps a token in {tmp_path}/home/.ray/auth_token, which is no file"
    )
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    none = str(tmp_path / "none")
    assert refused(empty).startswith(f"RAY_AUTH_TOKEN_PATH names {none!r}")


@pytest.mark.skipif(not can_unshare(), reason="a network of its own cannot be made")
def test_a_machine_without_a_network(corpus: Corpus, tmp_path: Path) -> None:
    run = command("search", "run", "quick", corpus.manifest.path, "--features", corpus.features_dir)
    done = subprocess.run(
        [
            "unshare",
            "--net",
            *run,
            "--name",
            "first",
            "--workers",
            "1",
            "--runs",
            tmp_path / "runs",
        ],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: Ray's processes would not reach each other")
    assert names_in(tmp_path) == []


@pytest.mark.slow
def test_a_ray_that_does_not_start(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # Ray sets it for what this process starts
    monkeypatch.setenv("RAY_gcs_storage", "nowhere")  # with which its first process ends at once
    monkeypatch.setenv(
        "RAY_gcs_server_port_wait_time_s", "2"
    )  # until it is given up, instead of 30
    (tmp_path / "empty").mkdir()
    said = refused(tmp_path / "empty")
    assert said.startswith("Ray did not start on this machine (")
    assert said.endswith(f"; its logs are in {ray_folder()}/session_latest/logs")


# As another version's head has it.
OTHER_VERSION = """
import json, sys
from ray._raylet import GcsClient
client = GcsClient(address=sys.argv[1])
(key,) = client.internal_kv_keys(b"CLUSTER_METADATA", b"cluster", timeout=5)
metadata = json.loads(client.internal_kv_get(key, b"cluster", timeout=5))
metadata["ray_version"] = "2.41.0"
client.internal_kv_put(key, json.dumps(metadata).encode(), True, b"cluster", timeout=5)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="as Ray finds its processes")
def test_a_cluster_whose_token_is_another_and_whose_ray_is_another_version(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ray_head("--num-cpus=1", token=TOKEN) as address:
        options = ["--address", address]
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
        assert "wants a token, and the one that is given here, if any, is not its token;" in (
            refused(tmp_path, *options)
        )
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        monkeypatch.setenv("RAY_AUTH_TOKEN", "another")
        said = refused(tmp_path, *options)
        assert said.endswith(
            "set RAY_AUTH_MODE=token, and put the cluster's token into ~/.ray/auth_token, or into"
            " the file that RAY_AUTH_TOKEN_PATH names"
        )
        monkeypatch.delenv("RAY_AUTH_TOKEN")
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
        with monkeypatch.context() as patch:
            patch.setenv("HOME", "/nowhere")
            said = refused(tmp_path, *options)
        assert "RAY_AUTH_MODE is token, but there is no token here; put the cluster's" in said
        monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
        monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
        said = refused(tmp_path, *options, "--gpus-per-trial", 1)
        assert "each trial wants 1 CPU and 1 GPU, and no node of the cluster at " in said
        subprocess.run(
            [sys.executable, "-c", OTHER_VERSION, address], timeout=TIMEOUT_S, check=True
        )
        said = refused(tmp_path, *options)
        assert " has Ray 2.41.0 and Python " in said
        assert "; both have to be the same: pip install ray==2.41.0, or install what is" in said


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="as Ray finds its processes")
def test_a_cluster_that_asks_for_no_token_is_joined_with_insecure_alone(
    corpus: Corpus, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with ray_head("--num-cpus=1") as address:
        options = ["--address", address]
        said = refused(tmp_path, *options)
        assert said.partition(" asks ")[2] == (
            "for no token, so whoever reaches it runs any command on its nodes; make one with: ray"
            " get-auth-token --generate, copy ~/.ray/auth_token to every node and start Ray on each"
            " with RAY_AUTH_MODE=token, or give --insecure"
        )
        # The token of somebody else's cluster, sent to this one, makes it no safer.
        with monkeypatch.context() as patch:
            patch.setenv("RAY_AUTH_MODE", "token")
            patch.setenv("RAY_AUTH_TOKEN", TOKEN)
            assert refused(tmp_path, *options) == said
        encode = call(
            *("search", "encode", corpus.manifest.path, "--features", tmp_path / "features"),
            *("--text-only", "--text-encoder", "char-ngram", "--workers", 1, *options),
            status=2,
        )
        assert encode.stderr.endswith(" or give --insecure\n"), encode.stderr
        # With it, what is refused next is another thing.
        said = refused(tmp_path, *options, "--insecure", "--gpus-per-trial", 1)
        assert "each trial wants 1 CPU and 1 GPU, and no node of the cluster at " in said


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="as Ray finds its processes")
def test_ctrl_c_while_ray_starts_leaves_nothing(
    corpus: Corpus, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        arguments = ["quick", corpus.manifest.path, "--features", corpus.features_dir]
        arguments += ["--name", "first", "--runs", tmp_path / "runs", "--workers", 1]
        with subprocess.Popen(
            command("search", "run", *arguments),
            env=environment() | {"RAY_TMPDIR": folder},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            while not [*Path(folder).glob("ray/session_*/logs")]:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.1)
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            told, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130, (told, errors)
    assert "Traceback" not in errors
    assert names_in(tmp_path) == []
    written = len(names_in(tmp_path))
    record_property(
        "lost", f"Ctrl-C while Ray starts: status {process.returncode}, {written} files written"
    )
