"""`--warm-start OTHER`: trials of other sweeps, or of an Optuna storage, for the sampler to learn
from.
"""

import sqlite3
from pathlib import Path

import optuna

from search.ledger.events import LedgerError, read_history
from search.ledger.records import Prior
from search.space.study import quieten


def load_priors(source: str, runs: Path, metric: str) -> list[Prior]:
    """The trials of a sweep (its name, folder or ledger) or an Optuna storage (a SQLite file or a
    URL), best first.

    Spaces may differ: what this sweep's space does not have is left out. Raises ValueError or
    FileNotFoundError.
    """
    if "://" in source:
        found = _of_storage(source, source)
    else:
        path = _find(source, runs)
        found = (
            _of_ledger(path, source, metric)
            if _is_ledger(path)
            else _of_storage(f"sqlite:///{path.resolve()}", source)
        )
    if not found:
        raise ValueError(f"--warm-start {source}: no trial with a score ({metric}) in it")
    return sorted(found, key=lambda prior: -max(prior.scores.values()))


def _find(source: str, runs: Path) -> Path:
    for path in (runs / source / "ledger.sqlite", Path(source) / "ledger.sqlite", Path(source)):
        if path.is_file():
            return path
    there = ", ".join(sorted(file.parent.name for file in runs.glob("*/ledger.sqlite"))) or "none"
    raise FileNotFoundError(
        f"--warm-start {source}: no sweep of that name in {runs}/ (found: {there}), and no such"
        " file"
    )


def _is_ledger(path: Path) -> bool:
    try:
        with sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True) as connection:
            return (
                connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'events'").fetchone()
                is not None
            )
    except sqlite3.DatabaseError as error:
        raise LedgerError(
            f"--warm-start {path}: neither a ledger nor an Optuna storage ({error})"
        ) from None


def _of_ledger(path: Path, source: str, metric: str) -> list[Prior]:
    history = read_history(path)
    found = []
    for trial in history.trials.values():
        # Where its data were changed, only scores on the last ones: those of one source have to
        # compare.
        if (
            trial.state != "failed"
            and trial.epochs
            and metric in trial.epochs[0].metrics
            and history.may_win(trial.number)
        ):
            found.append(Prior(source, trial.params, trial.scores(metric)))
    return found


def _of_storage(url: str, source: str) -> list[Prior]:
    quieten()
    try:
        names = optuna.get_all_study_names(url)
    except Exception as error:
        raise ValueError(
            f"--warm-start {source}: cannot be read as an Optuna storage ({error})"
        ) from None
    found = []
    for name in names:
        study = optuna.load_study(study_name=name, storage=url)
        if len(study.directions) != 1 or study.direction != optuna.study.StudyDirection.MAXIMIZE:
            raise ValueError(f"--warm-start {source}: study {name!r} does not maximise one score")
        for trial in study.get_trials(deepcopy=False):
            # A study may hold final values alone: they count as scores of one late epoch.
            scores = dict(trial.intermediate_values) or (
                {1_000_000: trial.value} if trial.value is not None else {}
            )
            if scores and trial.state in (
                optuna.trial.TrialState.COMPLETE,
                optuna.trial.TrialState.PRUNED,
            ):
                found.append(Prior(f"{source} {name}", trial.params, scores))
    return found
