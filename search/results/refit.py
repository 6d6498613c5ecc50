"""A winner over folds, trained once more on the rows of all of them: what ships."""

import contextlib
from pathlib import Path

import torch
from torch import Tensor

from mmm.files import write_bytes
from mmm.training.checkpoint import checkpoint_bytes, load_checkpoint
from mmm.training.config import make_config
from mmm.training.features import Features
from mmm.training.fit import fit
from mmm.training.run import ALL_FOLDS, begin
from search.ledger.files import trial_folder
from search.ledger.trial import Trial


def trained_on_all_folds(
    trial: Trial, features: Features, sweep: Path, metric: str, epoch: int, device: str
) -> dict[str, Tensor]:
    """Weights after `epoch` epochs on the rows of all folds, with the trial's settings, seed and
    precision. Training is done once: its checkpoint stays in the trial's folder.

    No row is left to validate on, so nothing is chosen here; the epoch is the one whose mean over
    folds was best. Raises Diverged.
    """
    run = begin(
        make_config({**trial.settings, "epochs": epoch}),
        features,
        objective=metric,
        device=torch.device(device),
        precision=trial.precision or "float32",
        fold=ALL_FOLDS,
    )
    path = trial_folder(sweep, trial.number) / f"all-folds-{epoch:05d}.safetensors"
    # Of other data: made anew.
    with contextlib.suppress(FileNotFoundError, ValueError):
        load_checkpoint(run, path)
    if not run.is_finished:
        for _ in fit(run):
            pass
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, checkpoint_bytes(run))
    return {name: value.detach().cpu() for name, value in run.model.state_dict().items()}
