"""Three Ray nodes of two slots: how busy these are, how soon a node that is added is used, and what
one that dies costs.

    python -m benchmarks.three_nodes [--steady-s 60] [--width 32] [--json FILE]

The nodes are processes of this machine and share its cores (a slot is a logical CPU), so that an
epoch takes longer than alone; what is counted is whether a slot has a trial in training, from the
first step of an epoch to its end, by its worker's clock. The head has no slot. After the steady
time a fourth node is added, then one of the first three is killed with everything on it.
"""

import argparse
import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.sweep_efficiency import ROOT, make_data
from search.ledger.events import read_events, read_history
from search.ledger.history import History
from search.ledger.records import Epoch, LostNode

SPACE = """
def suggest(trial):
    return {"architecture": "mlp_mixer", "width": WIDTH, "num_blocks": 1, "batch_size": 32,
            "lr": trial.suggest_float("lr", 1e-4, 1e-2, log=True)}
"""
SLOTS_A_NODE = 2
_POLL_S = 0.1
_PATIENCE_S = 240.0


class Sweep:
    """One that runs on a cluster, and what its ledger says."""

    def __init__(
        self, folder: Path, address: str, trials: int, workers: int, width: int = 32
    ) -> None:
        manifest, features = make_data(folder)
        (folder / "space.py").write_text(SPACE.replace("WIDTH", str(width)))
        self.log, self.ledger = folder / "log", folder / "runs" / "nodes" / "ledger.sqlite"
        self.command = [
            *(sys.executable, "-m", "search", "run", f"{folder / 'space.py'}:suggest"),
            *(str(manifest), "--features", str(features), "--name", "nodes"),
            *("--runs", str(folder / "runs"), "--trials", str(trials), "--epochs", "27"),
            *("--workers", str(workers), "--packs", "off", "--address", address, "--insecure"),
        ]

    @contextlib.contextmanager
    def running(self) -> Iterator["subprocess.Popen[bytes]"]:
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": path}
        with (
            open(self.log, "wb") as log,
            subprocess.Popen(self.command, env=environment, stdout=log, stderr=log) as driver,
        ):
            try:
                yield driver
            finally:
                driver.kill()

    @property
    def history(self) -> History:
        return read_history(self.ledger)

    def until(
        self, driver: "subprocess.Popen[bytes]", found: Callable[[History], bool]
    ) -> tuple[float, History]:
        """When it was so, and the sweep then."""
        end = time.time() + _PATIENCE_S
        while time.time() < end and driver.poll() is None:
            with contextlib.suppress(ValueError, FileNotFoundError):
                if found(history := self.history):
                    return time.time(), history
            time.sleep(_POLL_S)
        raise SystemExit(f"waited in vain:\n{self.log.read_text()[-3000:]}")

    def trained_on(self, driver: "subprocess.Popen[bytes]") -> tuple[float, float, History]:
        """When a node's loss was noticed in all its trials, when each of these had trained on
        elsewhere or ended, and the sweep then.
        """
        noticed, lost = self.until(
            driver,
            lambda history: (
                sum(trial.lost_nodes + trial.dead_workers for trial in history.trials.values())
                >= SLOTS_A_NODE
            ),
        )
        numbers = [
            trial.number for trial in lost.trials.values() if trial.lost_nodes + trial.dead_workers
        ]
        resumed, history = self.until(
            driver,
            lambda history: all(
                history.trials[number].epoch > lost.trials[number].epoch
                or history.trials[number].state != "running"
                for number in numbers
            ),
        )
        return noticed, resumed, history

    def epochs(self) -> list[tuple[int, Epoch]]:
        return [
            (event.trial or 0, event.body)
            for event in read_events(self.ledger)
            if isinstance(event.body, Epoch)
        ]


def at_work(history: History, since: float = 0.0) -> int:
    """Trials that run and have trained since then."""
    return sum(
        trial.state == "running" and bool(trial.epochs) and trial.epochs[-1].ended > since
        for trial in history.trials.values()
    )


def utilisation(sweep: Sweep, slots: int, begin: float, end: float) -> float:
    """Time in training / slots / time."""
    trained = sum(
        max(0.0, min(epoch.ended, end) - max(epoch.started or epoch.ended, begin))
        for _, epoch in sweep.epochs()
    )
    return trained / slots / (end - begin)


def idle(sweep: Sweep, slots: int, begin: float, end: float) -> dict[str, float]:
    """Shares of all slots' time: at a rung, between other epochs, and between trials."""
    rungs = set(sweep.history.spec.rungs)
    at_rungs = elsewhere = 0.0
    by_trial: dict[int, list[Epoch]] = {}
    for number, epoch in sweep.epochs():
        by_trial.setdefault(number, []).append(epoch)
    for epochs in by_trial.values():
        for first, then in itertools.pairwise(epochs):
            gap = min(then.started or then.ended, end) - max(first.ended, begin)
            if gap > 0 and first.epoch in rungs:
                at_rungs += gap
            elif gap > 0:
                elsewhere += gap
    whole = slots * (end - begin)
    between = 1 - utilisation(sweep, slots, begin, end) - (at_rungs + elsewhere) / whole
    return {"rungs": at_rungs / whole, "epochs": elsewhere / whole, "trials": between}


def losses(sweep: Sweep) -> list[dict[str, Any]]:
    """Of each trial that lost its node: the epochs that were reported and trained again, and their
    seconds.
    """
    found = []
    all_events = list(read_events(sweep.ledger))
    bodies = [event.body for event in all_events]
    for number in sorted({body.trial for body in bodies if isinstance(body, LostNode)}):
        events = [
            event
            for event in all_events
            if event.trial == number
            or (isinstance(event.body, LostNode) and event.body.trial == number)
        ]
        place = next(i for i, event in enumerate(events) if isinstance(event.body, LostNode))
        before = [event.body for event in events[:place] if isinstance(event.body, Epoch)]
        after = [event.body for event in events[place:] if isinstance(event.body, Epoch)]
        again = [epoch for epoch in before if after and epoch.epoch >= after[0].epoch]
        found.append(
            {
                "trial": number,
                "epochs_again": len(again),
                "seconds_again": sum(epoch.seconds for epoch in again),
            }
        )
    return found


def measure(folder: Path, steady_s: float, width: int) -> dict[str, Any]:
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    try:
        nodes = [cluster.add_node(num_cpus=SLOTS_A_NODE) for _ in range(3)]
        slots = 3 * SLOTS_A_NODE
        sweep = Sweep(folder, cluster.address, 10_000, slots + SLOTS_A_NODE, width)
        with sweep.running() as driver:
            begin, _ = sweep.until(driver, lambda history: at_work(history) == slots)
            end, _ = sweep.until(driver, lambda _: time.time() >= begin + steady_s)
            steady = utilisation(sweep, slots, begin, end)
            idled = idle(sweep, slots, begin, end)

            before = len(sweep.history.trials)
            started = time.time()
            cluster.add_node(num_cpus=SLOTS_A_NODE)
            joined = time.time()
            wanted = slots + SLOTS_A_NODE
            given, _ = sweep.until(
                driver,
                lambda history: (
                    sum(t.state == "running" for t in history.trials.values()) == wanted
                ),
            )
            used, _ = sweep.until(driver, lambda history: at_work(history, joined) == wanted)

            killed = time.time()
            cluster.remove_node(nodes[0], allow_graceful=False)
            _, resumed, history = sweep.trained_on(driver)
            driver.terminate()
            driver.wait(60)
        return {
            "slots": slots,
            "steady_s": end - begin,
            "trials": before,
            "utilisation": steady,
            "idle": idled,
            "node_started_s": joined - started,
            "given_s": given - joined,
            "in_training_s": used - joined,
            "killed_to_trained_on_s": resumed - killed,
            "lost": losses(sweep),
            "dead_workers": sum(trial.dead_workers for trial in history.trials.values()),
            "failed": sum(trial.state == "failed" for trial in history.trials.values()),
            "exit_status": driver.returncode,
        }
    finally:
        cluster.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steady-s", type=float, default=60.0)
    parser.add_argument("--width", type=int, default=32, help="of the mixer: how long a trial is")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        found = measure(Path(folder), options.steady_s, options.width)
    print(
        f"{found['slots']} slots for {found['steady_s']:.0f} s, {found['trials']} trials begun:"
        f" utilisation {found['utilisation']:.3f}; idle at rungs {found['idle']['rungs']:.3f},"
        f" between other epochs {found['idle']['epochs']:.3f},"
        f" between trials {found['idle']['trials']:.3f}\n"
        f"a node added (its start took {found['node_started_s']:.1f} s): trials given to it"
        f" {found['given_s']:.1f} s later, all in training {found['in_training_s']:.1f} s later\n"
        f"a node killed: {found['failed']} trials failed; both trained on after"
        f" {found['killed_to_trained_on_s']:.1f} s"
    )
    for row in found["lost"]:
        print(
            f"  trial {row['trial']}: {row['epochs_again']} epochs ({row['seconds_again']:.2f} s)"
            " trained again"
        )
    print(f"SIGTERM: exit status {found['exit_status']}")
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
