"""Search over speech-and-text emotion recognisers: Ray, Optuna and MLflow around training."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.results.opened import OpenedSweep

__all__ = ["open_sweep"]


def open_sweep(folder: str | Path) -> "OpenedSweep":
    """What a sweep's folder, `runs/NAME`, says of it: `trials` and `curves` as pandas tables,
    `best`, `finalists`, Optuna's `study`, `report()`.

    It needs no lock, also while the sweep runs. Raises FileNotFoundError, and LedgerError where the
    ledger is damaged.
    """
    # torch takes a second to import, which `import search` must not cost.
    from search.ledger.events import read_history
    from search.ledger.files import existing_sweep
    from search.results.opened import OpenedSweep

    path = Path(folder).resolve()
    found = existing_sweep(path.parent, path.name)
    return OpenedSweep(found, read_history(found / "ledger.sqlite"))
