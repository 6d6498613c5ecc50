"""Where a trial's weights lie: `runs/NAME/trials/NNNNN/`, on storage that workers and driver share."""

import shutil
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from mmm.checkpoint import best_of


def trial_folder(sweep: Path, number: int) -> Path:
    return sweep / "trials" / f"{number:05d}"


def checkpoint_file(sweep: Path, number: int, epoch: int) -> Path:
    return trial_folder(sweep, number) / f"checkpoint-{epoch:05d}.safetensors"


def best_file(sweep: Path, number: int) -> Path:
    """Weights of the best epoch alone: what is left of a trial that has ended."""
    return trial_folder(sweep, number) / "best.safetensors"


def best_weights(sweep: Path, number: int, recorded: int | None = None) -> dict[str, Tensor] | None:
    """Weights of a trial's best epoch, or None where they were not kept.

    `recorded`: of a trial that was interrupted, the epoch of the checkpoint that the ledger has. Its worker may have gone on
    and written a later one, or its end, of which nobody was told any more.
    """
    if recorded is not None and (checkpoint := checkpoint_file(sweep, number, recorded)).is_file():
        return best_of(load_file(checkpoint))
    if (best := best_file(sweep, number)).is_file():
        return load_file(best)
    if checkpoints := sorted(trial_folder(sweep, number).glob("checkpoint-*.safetensors")):
        return best_of(load_file(checkpoints[-1]))
    return None


def drop_weights(sweep: Path, number: int) -> None:
    """Remove a trial's weights. Raises FileNotFoundError where there are none."""
    shutil.rmtree(trial_folder(sweep, number))
