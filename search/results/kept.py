"""Which trials of a sweep can be exported: those with a score that counts, and weights; and the
bundle that its last session wrote.
"""

import shutil
from pathlib import Path

from mmm.bundle.read import load_bundle
from mmm.bundle.write import check_destination
from mmm.files import new_directory, sha256_of_file
from mmm.training.own_system import load_recorded
from search.ledger.files import best_file, trial_folder
from search.ledger.history import History
from search.ledger.trial import Trial


def best_trial(history: History) -> Trial | None:
    """The trial with the best score that still has weights to export; one that an ended session
    left running may be it.

    Trials on data that were changed since do not count, unless labels of train were all that was.
    """
    return next(iter(_exportable(history)), None)


def _exportable(history: History) -> list[Trial]:
    return [
        trial
        for trial in history.ranked(history.spec.metric)
        if history.may_win(trial.number)
        and (
            trial.state in ("complete", "pruned")
            or (history.last_close is not None and _has_saved_its_best(trial, history.spec.metric))
        )
    ]


def _has_saved_its_best(trial: Trial, metric: str) -> bool:
    best = trial.best(metric)
    return (
        trial.state == "running"
        and best is not None
        and trial.checkpoint is not None
        and best[0] <= trial.checkpoint.epoch
    )


def top_trials(history: History, folder: Path, count: int) -> list[int]:
    """Numbers of the `count` best trials that have weights, best first, answers from the ledger
    (--repeats reuse) aside.

    Raises ValueError where there are not so many.
    """
    found = kept_trials(history, folder)
    if count < 1 or len(found) < count:
        raise ValueError(
            f"--top {count}: sweep {history.spec.name!r} has {len(found)} trials with weights; the"
            f" best {history.spec.keep} are kept (--keep of mmm-search run)"
        )
    return found[:count]


def kept_trials(history: History, folder: Path) -> list[int]:
    """Numbers of all trials that can be exported, best first, answers from the ledger aside."""
    return [
        trial.number
        for trial in _exportable(history)
        if trial.copied_from is None and (history.spec.folds or _has_weights(folder, trial.number))
    ]


def copy_kept_bundle(history: History, folder: Path, number: int, out: Path) -> str | None:
    """The bundle that a session wrote at its end, copied to `out`; returns its hash, None where it
    is not of this trial's best epoch as the ledger has it. Raises BundleError.
    """
    kept, trial = folder / "bundle", history.trials[number]
    best = trial.best(history.spec.metric)
    if best is None or not kept.is_dir():
        return None
    load_recorded(trial.settings)
    about = load_bundle(kept).provenance
    found = about.sweep, about.trial, about.epoch, about.validation_metrics
    if found != (history.spec.name, number, best[0], trial.metrics(best[0])):
        return None
    check_destination(out)
    with new_directory(out, keep="epoch-*") as scratch:
        shutil.copytree(kept, scratch, dirs_exist_ok=True)
        load_bundle(scratch)
    return sha256_of_file(out / "checksums.json")


def _has_weights(folder: Path, number: int) -> bool:
    return best_file(folder, number).is_file() or any(
        trial_folder(folder, number).glob("checkpoint-*.safetensors")
    )
