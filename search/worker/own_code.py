"""Systems of the user's own where trials run: what `--ship` has sent goes before the path that is
on record, which a node may not have.
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

# A folder of this name on the Python path has files of the user's, each at its absolute path.
SENT = "mmm_search_sent"


def copy_of(file: Path) -> Path:
    """The copy of a file that was sent here; where none was, the file itself."""
    found = importlib.util.find_spec(SENT)
    for folder in (found and found.submodule_search_locations) or ():
        copy = Path(folder, *file.parts[1:])
        if copy.is_file():
            return copy
    return file


def load_here(settings: Mapping[str, object]) -> None:
    """Load the system that a trial's settings name, if they name one. Raises as `load_system`."""
    if (reference := settings.get("system")) is not None:
        # It imports torch, for which a look at a node need not wait.
        from mmm.training.own_system import load_system

        path, _, name = str(reference).rpartition(":")
        load_system(f"{copy_of(Path(path))}:{name}", sha256=settings.get("system_sha256"))
