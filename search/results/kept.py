"""Which trials of a sweep can be exported: those with a score that counts, and weights."""

from pathlib import Path

from search.ledger.files import best_file, trial_folder
from search.ledger.history import History, Trial


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


def _has_weights(folder: Path, number: int) -> bool:
    return best_file(folder, number).is_file() or any(
        trial_folder(folder, number).glob("checkpoint-*.safetensors")
    )
