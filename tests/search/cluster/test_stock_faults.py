"""Faults done to Ray Tune's stock objects, as a measure for what ours lose under the same ones.
It is asserted that the fault was done to a search under way; what came of it is only recorded.
"""

import contextlib
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.search.cluster.test_storage import can_mount, fill
from tests.sweep_parts import environment

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path("/proc/self/stat").is_file(), reason="Ray's processes are found through /proc"
    ),
]
_TIMEOUT_S = 120.0
_DISK_MIB = 64


class Stock:
    """A search of stock objects in a process of its own."""

    def __init__(self, folder: Path, storage: Path) -> None:
        self.log, self.said = folder / "epochs", folder / "said"
        self.log.touch()
        self.storage = storage

    @contextlib.contextmanager
    def running(self, *options: str) -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, "-m", "benchmarks.stock_faults", str(self.storage)]
        with (
            self.said.open("w") as said,
            subprocess.Popen(
                [*command, str(self.log), *options],
                stdout=said,
                stderr=subprocess.STDOUT,
                text=True,
                env=environment(),
            ) as driver,
        ):
            try:
                yield driver
            finally:
                driver.kill()

    def epochs(self) -> list[str]:
        """Every epoch trained so far, as `trial epoch`, in the order of their ends."""
        return self.log.read_text().splitlines()

    def wait_for_epochs(self, driver: subprocess.Popen[str], count: int) -> None:
        until = time.monotonic() + _TIMEOUT_S
        while len(self.epochs()) < count:
            assert driver.poll() is None, self.said.read_text()[-3000:]
            assert time.monotonic() < until, self.said.read_text()[-3000:]
            with contextlib.suppress(subprocess.TimeoutExpired):
                driver.wait(0.1)

    def end(self, driver: subprocess.Popen[str]) -> str:
        """How it ended, in words."""
        try:
            driver.wait(_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return f"had not ended after {_TIMEOUT_S:.0f} s"
        told = self.said.read_text()
        found = re.search(r"^TRIALS (\d+) (\d+)$", told, re.MULTILINE)
        trials = f", {found[1]} trials ended and {found[2]} ERROR" if found else ""
        raised = re.findall(r"^([\w.]*(?:Error|Exception))\b", told, re.MULTILINE)
        why = f" ({raised[-1]})" if raised and not found else ""
        return f"exit status {driver.returncode}{why}, {len(told.splitlines())} lines{trials}"

    def lost(self) -> str:
        """Epochs that were trained more than once, or for a trial that has no result."""
        again = sum(count - 1 for count in Counter(self.epochs()).values())
        found = re.search(r"^ENDED(.*)$", self.said.read_text(), re.MULTILINE)
        ended = found[1].split() if found else []
        given_up = sum(line.split()[0] not in ended for line in set(self.epochs()))
        return (
            f"{again} of {len(self.epochs())} epochs trained again, {given_up} in trials without a"
            " result"
        )


def test_a_driver_of_stock_objects_that_is_killed(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    stock = Stock(tmp_path, tmp_path / "storage")
    with stock.running() as driver:
        stock.wait_for_epochs(driver, 16)
        driver.kill()
        driver.wait()
    before = len(stock.epochs())
    begun = list(dict.fromkeys(line.split()[0] for line in reversed(stock.epochs())))
    finished = set(begun[2:])  # two are trained at a time: whoever else has begun is over
    with stock.running("--restore") as driver:
        end = stock.end(driver)
    assert before >= 16
    repeated = {line.split()[0] for line in stock.epochs()[before:]} & finished
    record_property(
        "lost",
        f"after {before} epochs: {stock.lost()}, {len(repeated)} of {len(finished)} finished trials"
        f" trained again; restored: {end}",
    )


def test_a_node_of_stock_objects_that_is_killed(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    try:
        first = cluster.add_node(num_cpus=2)
        stock = Stock(tmp_path, tmp_path / "storage")
        with stock.running("--address", cluster.address) as driver:
            stock.wait_for_epochs(driver, 8)
            # Before the other one is there, whose start takes as long as these trials do.
            cluster.remove_node(first, allow_graceful=False)
            before = len(stock.epochs())
            cluster.add_node(num_cpus=2)
            end = stock.end(driver)
    finally:
        cluster.shutdown()
    assert before >= 8
    record_property("lost", f"after {before} epochs: {stock.lost()}; {end}")


@pytest.mark.skipif(not can_mount(), reason="a small disk cannot be mounted")
def test_a_full_storage_of_stock_objects(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    storage = tmp_path / "storage"
    storage.mkdir()
    disk = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_MIB}m", "none", str(storage)]
    subprocess.run(disk, check=True)
    try:
        stock = Stock(tmp_path, storage)
        with stock.running() as driver:
            stock.wait_for_epochs(driver, 8)
            fill(storage / "ballast")
            before = len(stock.epochs())
            end = stock.end(driver)
        told = stock.said.read_text()
        assert "No space left" in told, told[-3000:]
        (storage / "ballast").unlink()
        with stock.running("--restore") as driver:
            restored = stock.end(driver)
    finally:
        subprocess.run(["umount", "-l", str(storage)], check=True)
    record_property(
        "lost",
        f"after {before} epochs: {end}; with room again and restored: {stock.lost()}, {restored}",
    )
