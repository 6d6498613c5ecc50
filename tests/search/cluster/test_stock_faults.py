"""Faults done to Ray Tune's stock objects, as a measure for what ours lose under the same ones.
It is asserted that the fault was done to a search under way; what came of it is only recorded.
"""

import contextlib
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.search.cluster.test_storage import can_mount
from tests.sweep_parts import environment

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path("/proc/self/stat").is_file(), reason="Ray's processes are found through /proc"
    ),
]
_TIMEOUT_S = 120.0
_FULL_MIB = 6


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
        if cut := re.search(r"^EPOCHS OF ERROR (\d+)", told, re.MULTILINE):
            trials += f" (with {cut[1]} reported epochs)"
        raised = re.findall(r"^([\w.]*(?:Error|Exception))\b", told, re.MULTILINE)
        why = f" ({raised[-1]})" if raised and not found else ""
        return f"exit status {driver.returncode}{why}, {len(told.splitlines())} lines{trials}"

    def again(self) -> int:
        """Epochs that were trained more than once."""
        return sum(count - 1 for count in Counter(self.epochs()).values())


def test_a_driver_of_stock_objects_that_is_killed(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    stock = Stock(tmp_path, tmp_path / "storage")
    with stock.running() as driver:
        stock.wait_for_epochs(driver, 20)
        driver.kill()
        driver.wait()
    before = len(stock.epochs())
    begun = list(dict.fromkeys(line.split()[0] for line in reversed(stock.epochs())))
    finished = set(begun[2:])  # two are trained at a time: whoever else has begun is over
    with stock.running("--restore") as driver:
        end = stock.end(driver)
    assert before >= 20
    repeated = {line.split()[0] for line in stock.epochs()[before:]} & finished
    record_property(
        "lost",
        f"driver killed after {before} epochs: {stock.again()} epochs trained again,"
        f" {len(repeated)} of {len(finished)} finished trials trained again; restored: {end}",
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
            cluster.add_node(num_cpus=2)
            cluster.remove_node(first, allow_graceful=False)
            before = Counter(line.split()[0] for line in stock.epochs())
            end = stock.end(driver)
    finally:
        cluster.shutdown()
    assert before
    record_property(
        "lost",
        f"node killed with {len(before)} trials begun: {stock.again()} epochs trained again; {end}",
    )


@pytest.mark.skipif(not can_mount(), reason="a small disk cannot be mounted")
def test_a_full_storage_of_stock_objects(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    storage = tmp_path / "storage"
    storage.mkdir()
    disk = ["mount", "-t", "tmpfs", "-o", f"size={_FULL_MIB}m", "none", str(storage)]
    subprocess.run(disk, check=True)
    try:
        stock = Stock(tmp_path, storage)
        with stock.running() as driver:
            end = stock.end(driver)
        told, before = stock.said.read_text(), len(stock.epochs())
        assert "No space left" in told, told[-3000:]
        assert os.statvfs(storage).f_bavail < 200
        subprocess.run(["mount", "-o", "remount,size=200m", str(storage)], check=True)
        with stock.running("--restore") as driver:
            restored = stock.end(driver)
    finally:
        subprocess.run(["umount", "-l", str(storage)], check=True)
    record_property(
        "lost",
        f"storage full after {before} epochs: {end}; restored with room: {restored},"
        f" {stock.again()} epochs trained again",
    )
