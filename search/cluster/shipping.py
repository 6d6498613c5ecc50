"""`--ship`: this machine's own code, sent to the nodes of a cluster that have none or another.

Ray packs each folder, keeps it on the head while the sweep is connected, and puts where it unpacks
it first on the PYTHONPATH of the sweep's processes (ray/_private/runtime_env/py_modules.py): before
an installed copy, an editable one, and what a node's own PYTHONPATH names.
"""

import contextlib
import hashlib
import importlib.util
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TypedDict

from mmm.training.own_system import loaded_files
from mmm.version import VERSION
from search.worker.own_code import SENT

_PACKAGES = ("mmm", "search", "spaces")
_COMPILED = "__pycache__"  # not sent: it changes whenever a module is imported
_MOST_NAMES = 3  # of files of the user's, in a sentence


class Shipped(TypedDict):
    """As Ray's `runtime_env` has it."""

    py_modules: list[str]
    excludes: list[str]


@contextlib.contextmanager
def shipped() -> Iterator[Shipped]:
    """What a job sends to each node on which it starts a process; Ray packs it when it connects,
    which has to be inside.
    """
    with tempfile.TemporaryDirectory(prefix="mmm-search-") as scratch:
        for file in own_files():
            copy = Path(scratch, SENT, *file.parts[1:])
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
        folders = [*_folders(), *Path(scratch).iterdir()]
        yield {"py_modules": [str(folder) for folder in folders], "excludes": [_COMPILED]}


def own_files() -> list[Path]:
    """What the systems of the user's own are made of that this process has loaded: their files, and
    the modules beside them that they import (mmm/user_code.py).
    """
    systems = loaded_files()
    beside = {
        file
        for folder in {system.parent for system in systems}
        for name, module in [*sys.modules.items()]
        if name not in (*_PACKAGES, "__main__") and "." not in name
        for file in _files_in(folder, name, module)
    }
    return sorted(beside.union(systems))


def _files_in(folder: Path, name: str, module: ModuleType) -> Iterator[Path]:
    """The files of a module or a package that stands in a folder; none where it is elsewhere."""
    file = getattr(module, "__file__", None)
    places = [file] if file is not None else [*getattr(module, "__path__", ())]
    for place in (Path(place).resolve() for place in places):
        if place.parent == folder and place.is_file():
            yield place
        elif folder / name in (place, place.parent):
            yield from (folder / name).rglob("*.py")


def own_hashes() -> dict[str, str]:
    """The same by path, with the SHA-256 of each."""
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in own_files()}


def sentence() -> str:
    """What is sent and how large, before Ray packs it."""
    ours = (
        file
        for folder in _folders()
        for file in folder.rglob("*")
        if file.is_file() and _COMPILED not in file.parts
    )
    own = own_files()
    size = sum(file.stat().st_size for file in (*ours, *own))
    *others, last = _PACKAGES
    sent = f"{', '.join(others)} and {last} {VERSION}"
    if own:
        names = ", ".join(file.name for file in own)
        sent += f" and {names if len(own) <= _MOST_NAMES else f'{len(own)} files of your systems'}"
    return f"sending {sent} of this machine to the nodes, {size / 1e6:.1f} MB"


def _folders() -> Iterator[Path]:
    for name in _PACKAGES:
        found = importlib.util.find_spec(name)
        assert found is not None
        assert found.origin is not None
        yield Path(found.origin).parent
