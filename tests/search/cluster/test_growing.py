"""Clusters whose nodes come and go: no trial is begun that would only wait, and what is added is
used. Real nodes, all on this machine.
"""

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from search.cluster.look import look
from search.ledger.events import read_history
from search.ledger.history import History
from tests.conftest import Corpus
from tests.search.cluster.ray_parts import ray_head
from tests.search.cluster.test_stopping import SPACE
from tests.sweep_parts import TIMEOUT_S, command, environment, write_space

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path("/proc/self/stat").is_file(), reason="Ray's processes are found through /proc"
    ),
]
# Only here does Ray's cluster of pretended machines start nodes (its fake_multi_node provider).
_PORT = 6379
_NODE_ID = "f" * 51 + "00000"
_NO_COMMANDS = (
    *("setup_commands", "head_setup_commands", "worker_setup_commands", "initialization_commands"),
    *("head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files"),
    *("rsync_exclude", "rsync_filter"),
)


class Sweep:
    """One that trains until it is told to end, and what its ledger has."""

    def __init__(self, corpus: Corpus, store: Path, folder: Path, *options: object) -> None:
        (folder / "runs").mkdir()
        shutil.copy(store, folder / "runs")
        self.folder = folder / "runs" / "first"
        self.command = command(
            *("search", "run", write_space(folder / "long.py", SPACE), corpus.manifest.path),
            *("--features", corpus.features_dir, "--name", "first", "--runs", folder / "runs"),
            *("--epochs", 1_000_000, "--first-rung", 999_999, "--packs", "off", *options),
        )

    @contextlib.contextmanager
    def running(self, environment: dict[str, str]) -> Iterator["subprocess.Popen[str]"]:
        with subprocess.Popen(
            self.command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as driver:
            try:
                yield driver
            finally:
                driver.kill()

    def wait(
        self, driver: "subprocess.Popen[str]", found: Callable[[History], bool], limit_s: float
    ) -> None:
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline and driver.poll() is None:
            with contextlib.suppress(ValueError, FileNotFoundError):
                if found(self.history):
                    return
            with contextlib.suppress(subprocess.TimeoutExpired):
                driver.wait(0.2)
        driver.kill()
        raise AssertionError(driver.communicate()[0])

    @property
    def history(self) -> History:
        return read_history(self.folder / "ledger.sqlite")


def with_epochs(history: History) -> int:
    return sum(bool(trial.epochs) for trial in history.trials.values())


@pytest.fixture
def cluster() -> Iterator[Any]:
    """One node without a core, where the driver is."""
    from ray.cluster_utils import Cluster

    found = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    try:
        yield found
    finally:
        found.shutdown()


def test_no_more_trials_are_begun_than_find_room_and_a_node_that_is_added_is_used_within_10_s(
    corpus: Corpus,
    empty_store: Path,
    tmp_path: Path,
    cluster: Any,
    record_property: Callable[[str, object], None],
) -> None:
    cluster.add_node(num_cpus=1)
    sweep = Sweep(corpus, empty_store, tmp_path, "--trials", 5, "--workers", 3)
    sweep.command += ["--address", cluster.address, "--insecure"]
    with sweep.running(environment()) as driver:
        sweep.wait(driver, lambda history: with_epochs(history) == 1, TIMEOUT_S)
        assert len(sweep.history.trials) == 1
        cluster.add_node(num_cpus=1)
        added = time.monotonic()
        sweep.wait(driver, lambda history: len(history.trials) == 2, 10.0)
        used_s = time.monotonic() - added
        # However long its process takes to start.
        sweep.wait(driver, lambda history: with_epochs(history) == 2, TIMEOUT_S)
        trained_s = time.monotonic() - added
        assert len(sweep.history.trials) == 2
        driver.send_signal(signal.SIGTERM)
        told, _ = driver.communicate(timeout=TIMEOUT_S)
    assert driver.returncode == 0, told
    lines = told.splitlines()
    assert lines[0] == (
        "the cluster has room for 1 trials at a time (1 CPU each), 3 are wanted; the others start"
        " when there is room, or when nodes are added"
    )
    assert "the cluster has room for 2 of 3 trials now" in lines
    assert not [line for line in lines if "that others have" in line]
    record_property(
        "lost",
        f"a node that was added has a trial after {used_s:.1f} s, its first epoch after"
        f" {trained_s:.1f} s",
    )


# Another user's work: a core of a node for as long as its process lives.
TAKES_A_CORE = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)

@ray.remote(num_cpus=1)
class Taker:
    def there(self):
        return True

taker = Taker.remote()
assert ray.get(taker.there.remote())
print("taken", flush=True)
sys.stdin.read()
"""


@pytest.mark.chaos
def test_what_others_have_is_waited_for_without_a_trial_that_only_waits_and_told(
    corpus: Corpus,
    empty_store: Path,
    tmp_path: Path,
    cluster: Any,
    record_property: Callable[[str, object], None],
) -> None:
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    sweep = Sweep(corpus, empty_store, tmp_path, "--trials", 5, "--workers", 2)
    sweep.command += ["--address", cluster.address, "--insecure"]
    with subprocess.Popen(
        [sys.executable, "-c", TAKES_A_CORE, cluster.address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "taken\n"
        with sweep.running(environment()) as driver:
            assert driver.stdout is not None
            told = [driver.stdout.readline()]
            while "wait for" not in told[-1]:
                assert driver.poll() is None, told
                told.append(driver.stdout.readline())
            assert told[-1] == (
                "1 trials at a time are trained, 2 would find room: 1 wait for CPUs or GPUs that"
                " others have\n"
            )
            only_wait = len(sweep.history.trials) - 1
            assert only_wait == 0
            other.kill()
            freed = time.monotonic()
            sweep.wait(driver, lambda history: with_epochs(history) == 2, TIMEOUT_S)
            trained_s = time.monotonic() - freed
            driver.send_signal(signal.SIGTERM)
            said, _ = driver.communicate(timeout=TIMEOUT_S)
    assert driver.returncode == 0, said
    record_property(
        "lost",
        f"{only_wait} trials only wait for what others have; given back, an epoch is trained there"
        f" after {trained_s:.1f} s",
    )


def autoscaling(folder: Path) -> Path:
    """The file of a cluster that starts with no core, and has up to two nodes of one."""
    node_types = {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "worker": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 1},
    }
    file = folder / "cluster.yaml"
    file.write_text(
        json.dumps(
            {
                "cluster_name": "pretended",
                "max_workers": 2,
                "provider": {"type": "fake_multinode", "head_node_id": _NODE_ID},
                "available_node_types": node_types,
                "head_node_type": "ray.head.default",
                "auth": {},
                "file_mounts": {},
                "file_mounts_sync_continuously": False,
                "upscaling_speed": 1.0,
                "idle_timeout_minutes": 1,
                **{key: [] for key in _NO_COMMANDS},
            }
        )
    )
    return file


@pytest.mark.chaos
def test_a_cluster_that_has_nothing_yet_is_asked_for_what_is_needed(
    corpus: Corpus,
    empty_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    try:
        socket.create_server(("0.0.0.0", _PORT)).close()
    except OSError:
        pytest.skip(f"port {_PORT}, which Ray's pretended machines need, is taken")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    sweep = Sweep(corpus, empty_store, tmp_path, "--trials", 3, "--workers", 1)
    options = ["--num-cpus=0", f"--autoscaling-config={autoscaling(tmp_path)}"]
    fast = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    with ray_head(*options, port=_PORT, **fast) as address:
        sweep.command += ["--address", address, "--insecure"]
        began = time.monotonic()
        with sweep.running(environment()) as driver:
            sweep.wait(driver, lambda history: with_epochs(history) == 1, 60.0)
            trained_s = time.monotonic() - began
            driver.send_signal(signal.SIGTERM)
            told, _ = driver.communicate(timeout=TIMEOUT_S)
    assert driver.returncode == 0, told
    lines = told.splitlines()
    assert lines[0] == (
        "the cluster has room for 0 trials at a time (1 CPU each), 1 are wanted; the cluster is"
        " asked for more nodes"
    )
    assert "the cluster has room for 1 of 1 trials now" in lines
    record_property(
        "lost", f"a cluster of no node: the first epoch {trained_s:.1f} s after the command"
    )


def test_whether_a_cluster_grows_is_seen_with_both_versions_of_the_autoscaler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    second = {"RAY_enable_autoscaler_v2": "1"}
    for asked, grows in (
        (second, False),
        # As `ray up` and KubeRay name the type of a node.
        (second | {"RAY_NODE_TYPE_NAME": "head"}, True),
    ):
        with ray_head("--num-cpus=1", **asked) as address:
            seen = look(address)
        assert (seen.grows, seen.may_add) == (grows, None)
