"""`--ship`: this machine's own code, sent to the nodes of a cluster that have none or another.

Ray packs each folder, keeps it on the head while the sweep is connected, and puts where it unpacks
it first on the PYTHONPATH of the sweep's processes (ray/_private/runtime_env/py_modules.py): before
an installed copy, an editable one, and what a node's own PYTHONPATH names.
"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from mmm.version import VERSION

_PACKAGES = ("mmm", "search", "spaces")
_COMPILED = "__pycache__"  # not sent: it changes whenever a module is imported


class Shipped(TypedDict):
    """As Ray's `runtime_env` has it."""

    py_modules: list[str]
    excludes: list[str]


def shipped() -> Shipped:
    """What a job sends to each node on which it starts a process."""
    return {"py_modules": [str(folder) for folder in _folders()], "excludes": [_COMPILED]}


def sentence() -> str:
    """What is sent and how large, before Ray packs it."""
    size = sum(
        file.stat().st_size
        for folder in _folders()
        for file in folder.rglob("*")
        if file.is_file() and _COMPILED not in file.parts
    )
    *others, last = _PACKAGES
    return (
        f"sending {', '.join(others)} and {last} {VERSION} of this machine to the nodes,"
        f" {size / 1e6:.1f} MB"
    )


def _folders() -> Iterator[Path]:
    for name in _PACKAGES:
        found = importlib.util.find_spec(name)
        assert found is not None
        assert found.origin is not None
        yield Path(found.origin).parent
