"""Which nodes of a cluster may train: each is looked at before its first trial."""

import importlib.util
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import ray

from mmm.version import VERSION
from search.cluster.nodes import ask_by_value, cause_of, describe_folders, on
from search.cluster.shipping import own_hashes

_ANSWER_S = 60.0  # a first task on a node starts a process
_WAIT_S = 1.0
_AGAIN_S = 60.0  # after which a node that was unfit is looked at again
# What a trial imports: code that was sent to a node (`--ship`) may find that they are not there.
_LIBRARIES = ("numpy", "pandas", "rich", "safetensors", "sklearn", "soundfile", "torch")


@dataclass(slots=True)
class _Look:
    """What is known of a node."""

    reference: Any  # of a task that looks; None once it has answered
    since: float
    fault: str | None = None


class Fitness:
    """Looks at nodes of the cluster that is connected, in a `with` block."""

    def __init__(self, folder: Path, readable: Sequence[str], tell: Callable[[str], None]) -> None:
        """Trials write into `folder`, which is there, and read what is in `readable`. `tell` is
        told of each node that is unfit, once for each reason.
        """
        self.folder, self.readable, self.tell = folder.resolve(), readable, tell
        self._looks: dict[str, _Look] = {}
        self._told: dict[str, str] = {}

    def __enter__(self) -> Self:
        # Of this session: a copy of the folder on a node's own disk does not have it.
        self._mark = tempfile.NamedTemporaryFile(dir=self.folder, prefix=".session.")
        self._own = own_hashes()
        self._describe = ask_by_value(_describe)
        return self

    def __exit__(self, *_: object) -> None:
        self._mark.close()

    def fit(self, nodes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Those of these living nodes, as `ray.nodes` has them, that may train."""
        found = []
        living = {node["NodeID"] for node in nodes}
        self._looks = {node: look for node, look in self._looks.items() if node in living}
        for node in nodes:
            look = self._looks.get(node["NodeID"])
            if look is None:
                look = self._looks[node["NodeID"]] = self._begin(node)
            self._follow(look, node)
            if look.reference is None and look.fault is None:
                found.append(node)
            elif look.reference is None and time.monotonic() - look.since > _AGAIN_S:
                self._looks[node["NodeID"]] = self._begin(node)
        return found

    def wait(self) -> None:
        """For the next answer, if one is awaited, but not for long."""
        if awaited := [look.reference for look in self._looks.values() if look.reference]:
            ray.wait(awaited, timeout=_WAIT_S)

    @property
    def is_looking(self) -> bool:
        """Whether an answer is awaited."""
        return any(look.reference is not None for look in self._looks.values())

    @property
    def faults(self) -> list[str]:
        """Of every node that was ever unfit."""
        return [f"node {address} {fault}" for address, fault in self._told.items()]

    def _begin(self, node: Mapping[str, Any]) -> _Look:
        here = self._describe.options(scheduling_strategy=on(node["NodeID"]))
        reference = here.remote(self.readable, [str(self.folder)], self._mark.name, self._own)
        return _Look(reference, time.monotonic())

    def _follow(self, look: _Look, node: Mapping[str, Any]) -> None:
        if look.reference is None:
            return
        ready, _ = ray.wait([look.reference], timeout=0)
        if not ready and time.monotonic() - look.since < _ANSWER_S:
            return
        fault: str | None = f"did not answer within {_ANSWER_S:g} s"
        if ready:
            try:
                fault = fault_in(ray.get(look.reference), self.folder)
            except Exception as error:  # whatever its Python raises
                fault = f"cannot train: {cause_of(error)}"
                if isinstance(getattr(error, "cause", error), ImportError):
                    fault += "; install mmm-search[search] there, or send this one's with --ship"
        look.reference, look.since, look.fault = None, time.monotonic(), fault
        address = node["NodeManagerAddress"]
        if fault is not None and self._told.get(address) != fault:
            self._told[address] = fault
            self.tell(f"node {address} {fault}; it is not used")


def _describe(
    readable: Sequence[str], writable: Sequence[str], mark: str, own: Mapping[str, str]
) -> Mapping[str, Any]:
    """Runs on a node. `own`: files of the user's, with their SHA-256."""
    said = describe_folders(readable, writable, mark)
    if said["mmm_search"] != VERSION:  # of the driver, whose function this is
        return said
    from mmm.files import sha256_of_file
    from search.worker.own_code import copy_of

    here = {file: copy_of(Path(file)) for file in own}
    return {
        **said,
        "lacks": [name for name in _LIBRARIES if importlib.util.find_spec(name) is None],
        "lacks_own": [
            file
            for file, copy in here.items()
            if not os.access(copy, os.R_OK) or sha256_of_file(copy) != own[file]
        ],
    }


def fault_in(said: Mapping[str, Any], folder: Path) -> str | None:
    """Why a node that said this of itself may not train; None where it may."""
    if (theirs := said["mmm_search"]) != VERSION:
        return f"has mmm-search {theirs}, here it is {VERSION}; send it this one with --ship"
    if lacks := said["lacks"]:
        return f"lacks {', '.join(lacks)}, which trials need; install mmm-search[search] there"
    if lacks_own := said["lacks_own"]:
        return (
            f"lacks {', '.join(lacks_own)} as on this machine, code of the user's own; send it with"
            " --ship"
        )
    if unreadable := said["unreadable"]:
        return f"cannot read {', '.join(unreadable)}"
    if said["unwritable"]:
        return f"cannot write into {folder}"
    if said["lacks_mark"]:
        return f"has another folder as {folder}"
    return None
