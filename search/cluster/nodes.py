"""What each node of a cluster says of itself: versions, devices, clock, and whether it sees the
folders that trials need.
"""

import hashlib
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_ANSWER_S = 60.0  # a first task on a node starts a process, which imports torch


@dataclass(frozen=True)
class NodeReport:
    """What a node said."""

    mmm_search: str
    code: str  # hash of its mmm-search
    torch: str
    num_gpus: int
    clock: float  # seconds since 1970, when it answered
    asked: tuple[float, float]  # this machine's clock, before it was asked and after it answered
    unreadable: tuple[str, ...]  # folders and files that it does not see, or cannot read
    unwritable: tuple[str, ...]  # folders in which it did not read back what it wrote
    lacks_mark: bool  # whether it does not see what this machine has just written into `runs`


@dataclass(frozen=True)
class Answer:
    """Of a node, or why there is none."""

    address: str
    report: NodeReport | None = None
    why: str = ""


def describe_folders(
    readable: Sequence[str], writable: Sequence[str], mark: str
) -> Mapping[str, Any]:
    """Runs on a node: the first and the last three of what a `NodeReport` has."""
    import tempfile

    from mmm.version import VERSION

    unwritable = []
    for folder in writable:
        try:
            with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor.") as file:
                file.write(b"written")
                file.flush()
                if Path(file.name).read_bytes() != b"written":
                    unwritable.append(folder)
        except OSError:
            unwritable.append(folder)
    return {
        "mmm_search": VERSION,
        "unreadable": tuple(path for path in readable if not os.access(path, os.R_OK)),
        "unwritable": tuple(unwritable),
        "lacks_mark": not Path(mark).is_file(),
    }


def hash_of_code() -> str:
    """Of every module of the mmm-search that is imported here."""
    digest = hashlib.sha256()
    for name in ("mmm", "search", "spaces"):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue
        folder = Path(spec.origin).parent
        for file in sorted(folder.rglob("*.py")):
            digest.update(f"{name}/{file.relative_to(folder)}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _describe(readable: Sequence[str], writable: Sequence[str], mark: str) -> Mapping[str, Any]:
    """Runs on a node."""
    import torch

    return {
        **describe_folders(readable, writable, mark),
        "code": hash_of_code(),
        "torch": torch.__version__,
        "num_gpus": torch.cuda.device_count(),
        "clock": time.time(),
    }


def ask_nodes(readable: Sequence[Path], writable: Sequence[Path], mark: Path) -> Iterator[Answer]:
    """Each living node of the cluster that is connected. `mark` is a file that was just written
    here.
    """
    given = [*map(str, readable)], [*map(str, writable)], str(mark)
    describe = ask_by_value(_describe)
    before = time.time()
    asked = {}
    for node in ray.nodes():
        if node["Alive"]:
            reference = describe.options(scheduling_strategy=on(node["NodeID"])).remote(*given)
            asked[reference] = node["NodeManagerAddress"]
    waiting, deadline = list(asked), time.monotonic() + _ANSWER_S
    while waiting and (left := deadline - time.monotonic()) > 0:
        ready, waiting = ray.wait(waiting, num_returns=1, timeout=left)
        for reference in ready:
            try:
                said = ray.get(reference)
            except Exception as error:  # whatever its Python raises
                yield Answer(asked[reference], why=cause_of(error))
            else:
                times = (before, time.time())
                yield Answer(asked[reference], NodeReport(asked=times, **said))
    for reference in waiting:
        yield Answer(asked[reference], why=f"it did not answer within {_ANSWER_S:g} s")


def ask_by_value(question: Callable[..., Mapping[str, Any]]) -> Any:
    """A function of a module of this folder as a task that wants nothing of a node: its code is
    sent, so that a node which has another mmm-search, or none, is asked the same.
    """
    for name in {__name__, question.__module__}:
        ray.cloudpickle.register_pickle_by_value(sys.modules[name])
    return ray.remote(num_cpus=0, max_retries=0)(question)


def on(node_id: str) -> NodeAffinitySchedulingStrategy:
    """Where a task is to run, and nowhere else."""
    return NodeAffinitySchedulingStrategy(node_id, soft=False)


def cause_of(error: Exception) -> str:
    """Why a node did not answer, in a sentence."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    for line in reversed(lines):
        if "No module named" in line:
            return line.partition("No module named ")[2].join(("no module ", " there"))
    return lines[-1][:300] if lines else type(error).__name__
