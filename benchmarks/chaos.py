"""`make chaos`: faults done to running sweeps, and what was lost: every row is one test or several.

    python -m benchmarks.chaos [--quick]

Prints a table; exit status 1 where a row does not hold or was not tried. `--quick` leaves out what
takes a minute or more of a fault's own time. What was lost is what the tests measured (`lost`, by
pytest's `record_property`, and `took_s` where each of many things has to be quick).
"""

import argparse
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

_CLUSTER = "tests/search/cluster"
# For two cores: much of a fault's time is a wait for a process to start or to be missed.
_PROCESSES = 2


@dataclass(frozen=True)
class Fault:
    """A row: what is done, what has to come of it, and the tests that do it, each a file or the
    beginning of a test's name in one.
    """

    done: str
    holds: str
    tests: tuple[str, ...]


# What takes longest is begun first, so that neither process is left alone with it at the end.
FAULTS = (
    Fault(
        "the driver is killed ten times",
        "nothing finished is trained again",
        (f"{_CLUSTER}/test_driver_death.py",),
    ),
    Fault(
        "Ray Tune's stock objects: the driver is killed, then restored",
        "nothing: it is a measure",
        (f"{_CLUSTER}/test_stock_faults.py::test_a_driver_of_stock",),
    ),
    Fault(
        "a worker hangs (SIGSTOP)",
        "it is ended, and its trial goes on in another",
        (f"{_CLUSTER}/test_watch.py",),
    ),
    Fault(
        "a node is killed, removed, or preempted after a notice",
        "its trials go on on another, and it is no failure of theirs",
        (f"{_CLUSTER}/test_nodes_that_go.py",),
    ),
    Fault(
        "Ray Tune's stock objects: a node is killed",
        "nothing: it is a measure",
        (f"{_CLUSTER}/test_stock_faults.py::test_a_node_of_stock",),
    ),
    Fault(
        "SIGTERM, SIGHUP, Ctrl-C",
        "as Ctrl-C once",
        (f"{_CLUSTER}/test_stopping.py",),
    ),
    Fault(
        "nodes come, and others use them",
        "what is added is used within 10 s; no trial only waits",
        (f"{_CLUSTER}/test_growing.py",),
    ),
    Fault(
        "a node lacks the package or a folder",
        "it is named and not used",
        (f"{_CLUSTER}/test_fitness.py",),
    ),
    Fault(
        "no cluster, no token, another Ray",
        "one sentence, status 2, nothing written",
        (f"{_CLUSTER}/test_unreachable.py",),
    ),
    Fault(
        "a worker is killed (SIGKILL)",
        "its trial goes on in another from its last checkpoint",
        (f"{_CLUSTER}/test_worker_death.py::test_the_trial_of_a_killed_worker",),
    ),
    Fault(
        "workers of one trial die again and again",
        "it fails after three, and the searcher learns nothing of it",
        (f"{_CLUSTER}/test_dead_workers.py",),
    ),
    Fault(
        "Ray's memory monitor kills workers",
        "the trial goes on with fewer beside it, alone, in half batches, then fails for memory",
        (
            f"{_CLUSTER}/test_worker_death.py::test_a_trial_whose_workers_are_all_killed",
            "tests/search/engine/test_memory.py",
        ),
    ),
    Fault(
        "Ray dies on this machine",
        "the session is closed, and it goes on by itself with another Ray",
        (f"{_CLUSTER}/test_worker_death.py::test_a_sweep_whose_own_ray_dies",),
    ),
    Fault(
        "the cluster's head dies",
        "a clean stop within a minute, and resume goes on",
        (f"{_CLUSTER}/test_head_death.py",),
    ),
    Fault(
        "storage is full or read-only",
        "a clean stop; status, report, export read",
        (f"{_CLUSTER}/test_storage.py",),
    ),
    Fault(
        "Ray Tune's stock objects: storage is full",
        "nothing: it is a measure",
        (f"{_CLUSTER}/test_stock_faults.py::test_a_full_storage_of_stock",),
    ),
    Fault(
        "the clock is set by hours",
        "no time budget is used up",
        ("tests/search/engine/test_controller.py::test_a_clock_that_is_set",),
    ),
    Fault(
        "a ledger that was cut or changed",
        "refused by name, or ends with its last whole transaction",
        ("tests/search/ledger/test_ledger_cuts.py",),
    ),
)


@dataclass
class Seen:
    """What became of the tests of each row."""

    passed: dict[str, int] = field(default_factory=dict)
    failed: dict[str, list[str]] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    lost: dict[str, list[str]] = field(default_factory=dict)
    took_s: dict[str, list[float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def pytest_runtest_logreport(self, report: Any) -> None:
        fault = next(
            (row for row in FAULTS if any(report.nodeid.startswith(test) for test in row.tests)),
            None,
        )
        if fault is None:
            return
        self.seconds[fault.done] = self.seconds.get(fault.done, 0.0) + report.duration
        if report.failed:
            self.failed.setdefault(fault.done, []).append(report.nodeid)
        elif report.skipped:
            self.skipped[fault.done] = self.skipped.get(fault.done, 0) + 1
        elif report.when == "call":
            self.passed[fault.done] = self.passed.get(fault.done, 0) + 1
            for name, value in report.user_properties:
                if name == "lost":
                    self.lost.setdefault(fault.done, []).append(str(value))
                elif name == "took_s":
                    self.took_s.setdefault(fault.done, []).append(float(value))

    def was_missed(self, fault: Fault) -> bool:
        """Whether nothing was heard of it at all, as where its tests have other names now."""
        return fault.done not in self.seconds

    def line(self, fault: Fault) -> str:
        """The row of a table."""
        passed, skipped = self.passed.get(fault.done, 0), self.skipped.get(fault.done, 0)
        happened = f"held ({passed} tests)" if passed else "not tried"
        if self.failed.get(fault.done):
            happened = f"DID NOT HOLD ({', '.join(self.failed[fault.done])})"
        if skipped:
            happened += f", {skipped} skipped"
        told = Counter(self.lost.get(fault.done, []))
        lost = [f"{count} x {text}" if count > 1 else text for text, count in told.items()]
        if took_s := self.took_s.get(fault.done):
            lost.append(f"each within {max(took_s):.1f} s")
        seconds = self.seconds.get(fault.done, 0.0)
        return f"| {fault.done} | {fault.holds} | {happened} | {'; '.join(lost)} | {seconds:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    is_quick = parser.parse_args().quick
    wanted = [test.partition("::") for fault in FAULTS for test in fault.tests]
    files = list(dict.fromkeys(file for file, _, _ in wanted))
    names = " or ".join(name or file.rpartition("/")[2] for file, _, name in wanted)
    # One test after the other is handed out, in the order of the rows.
    spread = ["-n", str(_PROCESSES), "--dist", "load", "--maxschedchunk", "1"]
    options = ["-m", "not chaos"] if is_quick else []
    began, seen = time.monotonic(), Seen()
    status = pytest.main(
        [*files, "-k", names, "-p", "no:cacheprovider", *spread, *options], plugins=[seen]
    )
    wall_s = time.monotonic() - began
    print("\n| fault | what must hold | what happened | what was lost | s |")
    print("| --- | --- | --- | --- | ---: |")
    for fault in FAULTS:
        print(seen.line(fault))
    minutes, seconds = divmod(round(wall_s), 60)
    print(
        f"\n{sum(seen.passed.values())} tests held in {minutes}:{seconds:02}, {_PROCESSES} at a"
        f" time ({sum(seen.seconds.values()):.0f} s one after the other)"
    )
    missed = [fault for fault in FAULTS if seen.was_missed(fault)]
    sys.exit(bool(status) or (bool(missed) and not is_quick))


if __name__ == "__main__":
    main()
