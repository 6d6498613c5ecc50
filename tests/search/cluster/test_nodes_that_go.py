"""Nodes that die, are removed, or are taken away after a notice: their trials go on on another from
their last checkpoints, and none of it counts as a failure of theirs. Real nodes, all on this
machine.
"""

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from search.ledger.events import read_events
from search.ledger.records import LostNode
from tests.conftest import Corpus
from tests.search.cluster.loss_parts import gone_on
from tests.search.cluster.test_growing import Sweep, with_epochs
from tests.sweep_parts import TIMEOUT_S, environment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path("/proc/self/stat").is_file(), reason="Ray's processes are found through /proc"
    ),
]
_NOTICE_S = 2.0  # that a node is given before it is taken away


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


def kill(cluster: Any, node: Any) -> None:
    """As where its machine loses its current."""
    cluster.remove_node(node, allow_graceful=False)


def remove(cluster: Any, node: Any) -> None:
    """As `ray stop` does."""
    cluster.remove_node(node, allow_graceful=True)


def preempt(cluster: Any, node: Any) -> None:
    """A spot machine that is taken away after a notice, as an autoscaler passes it on."""
    from ray._raylet import GcsClient
    from ray.core.generated import autoscaler_pb2

    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    deadline = time.time() + _NOTICE_S
    client = GcsClient(address=cluster.address)
    is_accepted, why = client.drain_node(node.node_id, reason, "spot", int(1000 * deadline))
    assert is_accepted, why
    while time.time() < deadline:
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(["tail", "-f", "/dev/null"], timeout=0.2, check=False)
    cluster.remove_node(node, allow_graceful=False)


@pytest.mark.parametrize(
    "leave",
    [
        pytest.param(kill, marks=pytest.mark.chaos),
        pytest.param(remove, marks=pytest.mark.chaos),
        preempt,
    ],
)
def test_trials_of_a_node_that_goes_go_on_on_another_and_it_is_no_failure_of_theirs(
    corpus: Corpus,
    empty_store: Path,
    tmp_path: Path,
    cluster: Any,
    leave: Callable[[Any, Any], None],
    record_property: Callable[[str, object], None],
) -> None:
    first = cluster.add_node(num_cpus=1)
    sweep = Sweep(corpus, empty_store, tmp_path, "--trials", 1, "--workers", 1)
    sweep.command += ["--address", cluster.address, "--insecure"]
    with sweep.running(environment()) as driver:
        sweep.wait(driver, lambda history: with_epochs(history) == 1, TIMEOUT_S)
        sweep.wait(driver, lambda history: history.trials[0].checkpoint is not None, TIMEOUT_S)
        cluster.add_node(num_cpus=1)
        leave(cluster, first)
        sweep.wait(driver, lambda history: history.trials[0].lost_nodes == 1, 60.0)
        before = sweep.history.trials[0].epoch
        sweep.wait(driver, lambda history: history.trials[0].epoch > before, TIMEOUT_S)
        driver.terminate()
        told, _ = driver.communicate(timeout=TIMEOUT_S)
    assert driver.returncode == 0, told
    trial = sweep.history.trials[0]
    assert (trial.state, trial.dead_workers, trial.lost_nodes) == ("running", 0, 1)
    assert len(sweep.history.trials) == 1
    events = list(read_events(sweep.folder / "ledger.sqlite"))
    place = next(i for i, event in enumerate(events) if isinstance(event.body, LostNode))
    saved = [event.body.epoch for event in events[:place] if event.kind == "checkpoint"]
    after = [event.body for event in events[place:] if event.kind == "epoch"]
    assert after[0].epoch == saved[-1] + 1
    record_property("lost", f"{leave.__name__}: {gone_on(events, place)}")
