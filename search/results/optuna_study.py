"""A sweep as an Optuna study: in a file of its own, for optuna-dashboard and whatever else reads
Optuna's storages, or in memory, for what Optuna says about its parameters.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalChoiceType,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    json_to_distribution,
)
from optuna.trial import FrozenTrial, TrialState

from mmm.files import sync
from search.ledger.history import History
from search.ledger.trial import Trial
from search.space.study import new_study

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
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch:
        made = Path(scratch) / path.name
        storage = optuna.storages.RDBStorage(f"sqlite:///{made}")
        study = new_study(storage, spec.name)
        study.set_metric_names([spec.metric])
        trials = [history.trials[number] for number in sorted(history.trials)]
        study.add_trials(frozen_trials(trials, spec.metric))
        storage.engine.dispose()
        sync(made)
        made.rename(path)
    sync(path.parent)


def study_of(history: History) -> optuna.Study:
    """The same in memory."""
    study = new_study()
    study.set_metric_names([history.spec.metric])
    trials = [history.trials[number] for number in sorted(history.trials)]
    study.add_trials(frozen_trials(trials, history.spec.metric))
    return study


@dataclass(frozen=True)
class SearchedRange:
    """What a parameter was searched over, all sessions together."""

    name: str
    kind: str  # float, int or choice
    low: float | None = None
    high: float | None = None
    is_log: bool = False
    choices: tuple[str, ...] = ()
    num_trials: int = 0  # that have it

    @property
    def words(self) -> str:
        """`0.0001 to 0.01, logarithmic`, or the choices."""
        if self.kind == "choice":
            return ", ".join(self.choices)
        scale = ", logarithmic" if self.is_log else ""
        return f"{self.low:g} to {self.high:g}{scale}"


def searched_ranges(history: History) -> list[SearchedRange]:
    """Of each parameter that a trial has, in the order in which the space asked for them."""
    found: dict[str, SearchedRange] = {}
    for trial in history.trials.values():
        for name, text in trial.distributions.items():
            one = _range_of(name, json_to_distribution(text))
            found[name] = _joined(found[name], one) if name in found else one
    return list(found.values())


def _range_of(name: str, one: BaseDistribution) -> SearchedRange:
    if isinstance(one, CategoricalDistribution):
        return SearchedRange(name, "choice", choices=tuple(map(str, one.choices)), num_trials=1)
    assert isinstance(one, FloatDistribution | IntDistribution)
    kind = "int" if isinstance(one, IntDistribution) else "float"
    return SearchedRange(name, kind, one.low, one.high, one.log, num_trials=1)


def _joined(first: SearchedRange, second: SearchedRange) -> SearchedRange:
    num_trials = first.num_trials + 1
    if first.kind != second.kind or first.low is None or second.low is None:
        choices = tuple(dict.fromkeys((*first.choices, *second.choices)))
        return replace(first, choices=choices, num_trials=num_trials)
    assert first.high is not None
    assert second.high is not None
    low, high = min(first.low, second.low), max(first.high, second.high)
    return replace(first, low=low, high=high, num_trials=num_trials)


def study_to_draw(
    history: History, trials: Sequence[Trial], shown: Callable[[object], str]
) -> optuna.Study:
    """A study of trials that have a score, in memory, for Optuna's plots: they draw complete trials
    alone, so that here every trial is complete, with its best score. `shown` makes of a name, and
    of a choice that is text, what plotly shows as it is.
    """
    study = new_study()
    metric = history.spec.metric
    for frozen, trial in zip(frozen_trials(trials, metric), trials, strict=True):
        best = trial.best(metric)
        assert best is not None
        frozen.state, frozen.values = TrialState.COMPLETE, [best[1]]
        frozen.datetime_complete = frozen.datetime_complete or datetime.now()
        frozen.intermediate_values, frozen.user_attrs = {}, {}
        frozen.distributions = {
            shown(name): _shown_choices(one, shown) for name, one in frozen.distributions.items()
        }
        frozen.params = {
            shown(name): shown(value) if isinstance(value, str) else value
            for name, value in frozen.params.items()
        }
        study.add_trial(frozen)
    return study


def _shown_choices(one: BaseDistribution, shown: Callable[[object], str]) -> BaseDistribution:
    if not isinstance(one, CategoricalDistribution):
        return one
    return CategoricalDistribution(
        [shown(choice) if isinstance(choice, str) else choice for choice in one.choices]
    )


def frozen_trials(trials: Sequence[Trial], metric: str) -> Iterator[FrozenTrial]:
    """Trials of the ledger, with one set of choices for a parameter where later sessions had others
    (a version with more systems, a space that was changed): Optuna takes no other.
    """
    found = [
        {name: json_to_distribution(text) for name, text in trial.distributions.items()}
        for trial in trials
    ]
    choices: dict[str, dict[CategoricalChoiceType, None]] = {}
    for distributions in found:
        for name, one in distributions.items():
            if isinstance(one, CategoricalDistribution):
                choices.setdefault(name, {}).update(dict.fromkeys(map(_hashable, one.choices)))
    for trial, distributions in zip(trials, found, strict=True):
        for name, one in distributions.items():
            if isinstance(one, CategoricalDistribution):
                distributions[name] = CategoricalDistribution(tuple(choices[name]))
        yield _frozen_trial(trial, metric, distributions)


def _hashable(value: Any) -> Any:
    """Once a choice could be a tuple, which JSON gives back as a list."""
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def _frozen_trial(
    trial: Trial, metric: str, distributions: dict[str, BaseDistribution]
) -> FrozenTrial:
    """With its state, values and times."""
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
        params={name: _hashable(value) for name, value in trial.params.items()},
        distributions=distributions,
        user_attrs=user_attrs,
        system_attrs={},
        intermediate_values=trial.scores(metric),
        trial_id=-1,  # the storage gives it one
    )
