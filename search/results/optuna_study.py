"""A sweep as an Optuna study in a file of its own, for optuna-dashboard and whatever else reads
Optuna's storages.
"""

import tempfile
import warnings
from datetime import datetime
from pathlib import Path

import optuna
from optuna.distributions import json_to_distribution
from optuna.trial import FrozenTrial, TrialState

from mmm.files import sync
from search.ledger.history import History, Trial

optuna.logging.set_verbosity(optuna.logging.ERROR)
_STATES = {
    "running": TrialState.RUNNING,
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


def export_study(history: History, path: Path) -> None:
    """Write an SQLite storage with one study, named after the sweep. Trials are as they ended, also
    those that failed, which the sweep's own sampler is told of as pruned. Optuna takes tens of
    milliseconds a trial. Raises FileExistsError.
    """
    if path.exists():
        raise FileExistsError(f"{path} exists; remove it or name another file")
    spec = history.spec
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # metric names
        made = Path(scratch) / path.name
        storage = optuna.storages.RDBStorage(f"sqlite:///{made}")
        study = optuna.create_study(storage=storage, study_name=spec.name, direction="maximize")
        study.set_metric_names([spec.metric])
        study.add_trials(
            _frozen(history.trials[number], spec.metric) for number in sorted(history.trials)
        )
        storage.engine.dispose()
        sync(made)
        made.rename(path)
    sync(path.parent)


def _frozen(trial: Trial, metric: str) -> FrozenTrial:
    """A trial of the ledger with its state, values and times."""
    state = _STATES[trial.state]
    best = trial.best(metric)
    user_attrs = {
        "settings": trial.settings,
        "state": trial.state,
        "reason": trial.reason,
        "architecture": trial.settings.get("architecture"),
        "seconds": trial.alone_seconds,
    }
    return FrozenTrial(
        number=trial.number,
        state=state,
        value=best[1] if best and state == TrialState.COMPLETE else None,
        datetime_start=datetime.fromtimestamp(trial.suggested),
        datetime_complete=None if trial.ended is None else datetime.fromtimestamp(trial.ended),
        params=dict(trial.params),
        distributions={
            name: json_to_distribution(text) for name, text in trial.distributions.items()
        },
        user_attrs=user_attrs,
        system_attrs={},
        intermediate_values=trial.scores(metric),
        trial_id=-1,  # the storage gives it one
    )
