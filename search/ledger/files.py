"""Where the files of a sweep and of its trials lie, on storage that workers and driver share."""

import hashlib
import re
import shlex
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from mmm.files import Unchecked
from mmm.training.checkpoint import best_of
from mmm.training.tensor_file import load_checked
from search.ledger.records import Checkpoint

SEALED = "train-and-dev.csv"  # in a sweep's folder: its manifest without the rows of test


def command_for(command: str, sweep: Path, *more: str) -> str:
    """A command for the sweep in a folder, `mmm-search resume NAME --runs RUNS`, as a shell in the
    same working directory takes it.
    """
    return shlex.join(["mmm-search", command, sweep.name, "--runs", str(sweep.parent), *more])


def trial_folder(sweep: Path, number: int) -> Path:
    return sweep / "trials" / f"{number:05d}"


def checkpoint_file(sweep: Path, number: int, epoch: int, fold: int = 1) -> Path:
    of_fold = "" if fold == 1 else f"fold{fold:04d}-"
    return trial_folder(sweep, number) / f"checkpoint-{of_fold}{epoch:05d}.safetensors"


def answers_file(sweep: Path, number: int, fold: int) -> Path:
    """What a trial answered on a fold's held-out rows after each epoch: tensor `answers` (E, N)."""
    return trial_folder(sweep, number) / f"answers-fold{fold:04d}.safetensors"


def best_file(sweep: Path, number: int) -> Path:
    """Weights of the best epoch alone: what is left of a trial that has ended."""
    return trial_folder(sweep, number) / "best.safetensors"


def best_weights(
    sweep: Path,
    number: int,
    checkpoints: Sequence[Checkpoint] = (),
    *,
    is_unfinished: bool = False,
) -> dict[str, Tensor] | None:
    """Weights of a trial's best epoch, or None where they were not kept; `checkpoints` are the
    ledger's, the newer first.

    `is_unfinished`: it was interrupted, and its worker may have gone on and written its end, of
    which nobody was told any more: what the ledger has counts. Raises ValueError where they are
    damaged. Warns where there is no checksum to tell by.
    """
    path = best = best_file(sweep, number)
    try:
        if not is_unfinished and best.is_file():
            return _kept(best)
        for checkpoint in checkpoints:
            if (path := checkpoint_file(sweep, number, checkpoint.epoch)).is_file():
                content = path.read_bytes()
                if hashlib.sha256(content).hexdigest() != checkpoint.sha256:
                    raise ValueError("damaged: its checksum is not the recorded one")
                return best_of(load(content))
        if (path := best).is_file():
            return _kept(best)
        if others := sorted(trial_folder(sweep, number).glob("checkpoint-*.safetensors")):
            path = others[-1]
            weights = best_of(load(path.read_bytes()))
            _warn(path, "the ledger has no checksum of it")
            return weights
    except (SafetensorError, ValueError) as error:
        raise ValueError(
            f"{path}: {error}; bring it back from a copy, or export another trial, see:"
            f" {command_for('status', sweep)}"
        ) from None
    return None


def _kept(path: Path) -> dict[str, Tensor]:
    weights, is_checked = load_checked(path.read_bytes())
    if not is_checked:
        _warn(path, "an earlier version kept it without a checksum")
    return weights


def _warn(path: Path, why: str) -> None:
    warnings.warn(f"{path}: read unchecked: {why}", Unchecked, stacklevel=3)


def drop_weights(sweep: Path, number: int) -> None:
    """Remove a trial's weights. Raises FileNotFoundError where there are none."""
    shutil.rmtree(trial_folder(sweep, number))


_OF_A_SWEEP = ("trials", "bundle", "baseline", "leaderboard.csv", "report.html")
_OF_MLFLOW = ("mlartifacts", "mlruns", "mlflow.db")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def check_name(name: str) -> str:
    """Raise ValueError where a sweep's name could not be a folder's."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"sweep name {name!r} is not usable; expected letters, digits, '.', '_' and '-', a"
            " letter or digit first"
        )
    return name


def sweep_dir(runs: Path, name: str) -> Path:
    return runs / check_name(name)


def check_new(runs: Path, name: str, *, is_tracked_here: bool) -> None:
    """Raises ValueError where a new sweep could not be kept, or would write over what is there.
    `is_tracked_here`: MLflow's store is to lie in `runs`.
    """
    folder = sweep_dir(runs, name)
    if (folder / "ledger.sqlite").is_file():
        raise ValueError(
            f"sweep {name!r} exists in {runs}/; choose another --name, or go on with it:"
            f" {command_for('resume', folder)}"
        )
    if left := [one for one in _OF_A_SWEEP if (folder / one).exists()]:
        raise ValueError(
            f"{folder}: holds what a sweep left ({', '.join(left)}) and no ledger.sqlite; bring"
            " that back, or choose another --name"
        )
    if name in _OF_MLFLOW:
        raise ValueError(f"--name {name}: MLflow's own in {runs}/; choose another")
    if is_tracked_here and (odd := sorted(set(str(runs.resolve())) & set("%?#"))):
        raise ValueError(
            f"--runs {runs}: MLflow's store would lie elsewhere, as its address cannot have"
            f" {' or '.join(odd)}; choose another folder, or a store with --tracking-uri"
        )


def existing_sweep(runs: Path, name: str) -> Path:
    """The folder of a sweep that was started. Raises FileNotFoundError, naming those there are."""
    folder = sweep_dir(runs, name)
    if not (folder / "ledger.sqlite").is_file():
        there = sorted(file.parent.name for file in runs.glob("*/ledger.sqlite"))
        raise FileNotFoundError(
            f"no sweep {name!r} in {runs}/ (found: {', '.join(there) or 'none'}); start one with"
            " mmm-search run"
        )
    return folder
