"""Search over speech-and-text emotion recognisers: Ray, Optuna and MLflow around training."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.ledger.history import History

__all__ = ["open_sweep"]


def open_sweep(folder: str | Path) -> "History":
    """What a sweep's folder, `runs/NAME`, says of it: specification, trials, baseline, data.

    It needs no lock, also while the sweep runs. Raises FileNotFoundError, and LedgerError where the
    ledger is damaged.
    """
    # torch takes a second to import, which `import search` must not cost.
    from search.ledger.events import read_history
    from search.ledger.files import existing_sweep

    path = Path(folder).resolve()
    return read_history(existing_sweep(path.parent, path.name) / "ledger.sqlite")
