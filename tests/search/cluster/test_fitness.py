"""What a node says of itself decides whether it is given trials."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mmm
from mmm.version import VERSION
from search.cluster.fitness import fault_in
from tests.conftest import Corpus
from tests.search.cluster.ray_parts import node_without
from tests.search.cluster.test_growing import Sweep, with_epochs
from tests.search.cluster.test_storage import can_mount
from tests.sweep_parts import TIMEOUT_S, environment

WELL = {
    "mmm_search": VERSION,
    "lacks": [],
    "lacks_own": [],
    "unreadable": (),
    "unwritable": (),
    "lacks_mark": False,
}


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({}, None),
        (
            {"mmm_search": "0.0.1"},
            f"has mmm-search 0.0.1, here it is {VERSION}; send it this one with --ship",
        ),
        (
            {"lacks": ["sklearn", "torch"]},
            "lacks sklearn, torch, which trials need; install mmm-search[search] there",
        ),
        (
            {"lacks_own": ["/me/my.py"]},
            "lacks /me/my.py as on this machine, code of the user's own; send it with --ship",
        ),
        ({"unreadable": ("/a", "/b")}, "cannot read /a, /b"),
        ({"unwritable": ("/runs/s",)}, "cannot write into /runs/s"),
        ({"lacks_mark": True}, "has another folder as /runs/s"),
    ],
)
def test_what_a_node_says_of_itself_decides_whether_it_may_train(
    said: dict[str, Any], fault: str | None
) -> None:
    assert fault_in({**WELL, **said}, Path("/runs/s")) == fault


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


def copies_of_the_package() -> set[Path]:
    """The installed one, and the one that is imported here, where PYTHONPATH names another."""
    command = [sys.executable, "-P", "-c", "import mmm; print(mmm.__path__[0])"]
    others = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, env=others, capture_output=True, text=True, check=True)
    return {Path(mmm.__file__).parent, Path(done.stdout.strip())}


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="a folder cannot be hidden from a node")
def test_a_node_without_the_package_or_the_runs_folder_is_named_and_not_used(
    corpus: Corpus,
    empty_store: Path,
    tmp_path: Path,
    cluster: Any,
    record_property: Callable[[str, object], None],
) -> None:
    sweep = Sweep(corpus, empty_store, tmp_path, "--trials", 9, "--workers", 3)
    sweep.command += ["--address", cluster.address, "--insecure"]
    cluster.add_node(num_cpus=1)
    with (
        node_without(copies_of_the_package(), cluster.address),
        node_without([sweep.folder.parent], cluster.address),
    ):
        began, told = time.monotonic(), [""]
        with sweep.running(environment()) as driver:
            assert driver.stdout is not None
            silent = threading.Timer(TIMEOUT_S, driver.kill)
            silent.daemon = True
            silent.start()
            while sum(line.endswith("; it is not used\n") for line in told) < 2:
                told.append(driver.stdout.readline())
                assert told[-1], told
            silent.cancel()
            named_s = time.monotonic() - began
            sweep.wait(driver, lambda history: with_epochs(history) == 1, TIMEOUT_S)
            driver.send_signal(signal.SIGTERM)
            said, _ = driver.communicate(timeout=TIMEOUT_S)
    assert driver.returncode == 0, said
    first, second = sorted(line for line in told if line.endswith("; it is not used\n"))
    assert " cannot train: " in first
    assert "no module 'mmm" in first
    assert f" cannot write into {sweep.folder}" in second
    trials = sweep.history.trials.values()
    assert [(trial.state, trial.dead_workers, trial.lost_nodes) for trial in trials] == [
        ("running", 0, 0)
    ]
    failed = sum(trial.state == "failed" for trial in trials)
    record_property(
        "lost",
        f"2 nodes named {named_s:.0f} s after the command, {failed} of {len(trials)} trials failed",
    )
