"""The cluster's head dies while its driver lives: the session ends by itself within a minute, and
another goes on with it. Its machine's other processes live on, as on another machine.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from search.ledger.events import read_events
from tests.conftest import Corpus
from tests.search.cluster.loss_parts import trained_again
from tests.search.cluster.test_growing import Sweep, with_epochs
from tests.search.cluster.test_worker_death import children, statuses
from tests.sweep_parts import TIMEOUT_S, call_inside, environment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path("/proc/self/stat").is_file(), reason="processes are found through /proc"
    ),
]


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Three nodes of one machine: the first without a core, where the driver is."""
    from ray.cluster_utils import Cluster

    found = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    try:
        for _ in range(2):
            found.add_node(num_cpus=1)
        yield found
    finally:
        found.shutdown()


def test_a_sweep_whose_head_dies_ends_in_good_order_within_a_minute_and_goes_on_elsewhere(
    corpus: Corpus,
    empty_store: Path,
    tmp_path: Path,
    cluster: Any,
    record_property: Callable[[str, object], None],
) -> None:
    sweep = Sweep(corpus, empty_store, tmp_path, "--trials", 2, "--workers", 2)
    sweep.command += ["--address", cluster.address, "--insecure"]
    with sweep.running(environment()) as driver:
        sweep.wait(driver, lambda history: with_epochs(history) == 2, TIMEOUT_S)
        (head,) = [
            process
            for process in children()[os.getpid()]
            if Path(f"/proc/{process}/exe").resolve().name == "gcs_server"
        ]
        os.kill(head, signal.SIGKILL)
        killed = time.monotonic()
        told, _ = driver.communicate(timeout=TIMEOUT_S)
        ended_s = time.monotonic() - killed
        assert ended_s < 60
    assert driver.returncode == 1, told
    why = f"broken off: the head of the Ray cluster at {cluster.address} does not answer any more"
    go_on = f"mmm-search resume first --runs {sweep.folder.parent}"
    lines = told.splitlines()
    assert f"error: {why}" in lines
    assert f"ended: {why}; once that is mended, go on with: {go_on}" in lines
    assert "leaderboard of first, validation macro_f1" in told
    assert "Traceback" not in told
    assert "SIGABRT" not in told
    history = sweep.history
    assert history.last_close is not None
    assert history.last_close.why == why
    assert 0 < history.last_close.seconds < 60 + TIMEOUT_S
    assert {trial.state for trial in history.trials.values()} == {"running"}
    for name in ("report.html", "leaderboard.csv", "bundle"):
        assert (sweep.folder / name).exists()
    saved = {number: trial.checkpoint for number, trial in history.trials.items()}
    before = list(read_events(sweep.folder / "ledger.sqlite"))
    more = ["--runs", sweep.folder.parent, "--time-budget", f"{history.used_s + 1}s"]
    call_inside("search", "resume", "first", *more, "--serial", "--workers", 1)
    events = list(read_events(sweep.folder / "ledger.sqlite"))
    first = next(
        event.body for event in events[len(before) :] if (event.trial, event.kind) == (0, "epoch")
    )
    assert saved[0] is not None
    assert first.epoch == saved[0].epoch + 1
    failed = sum(trial.state == "failed" for trial in history.trials.values())
    record_property(
        "lost",
        f"ended {ended_s:.0f} s after it; {failed} of {len(history.trials)} trials failed, resumed:"
        f" {trained_again(events)}",
    )
    assert "RUNNING" not in statuses(sweep.folder.parent).values()
