"""What decided the score of a sweep's trials, by what is expected of all that reached a rung.

The trials that trained to the end are those that ASHA let through: settings that all of them share
decided most and would seem to decide nothing. So every trial counts that was seen at a rung, with
the final score that the sweep's model of learning curves (search/suggest/curve_model.py) expects of
it, as the sweep itself saw it when it stopped it.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    IntDistribution,
    json_to_distribution,
)
from optuna.importance import (
    FanovaImportanceEvaluator,
    PedAnovaImportanceEvaluator,
    get_param_importances,
)
from optuna.trial import TrialState
from threadpoolctl import threadpool_limits

from mmm.training.config import Params
from search.ledger.history import History
from search.ledger.trial import Trial
from search.results.optuna_study import frozen_trials
from search.space.study import new_study
from search.suggest.curve_model import NUM_FIRST, Belief

# Of fANOVA's forests, which take seconds: trees, and trials that they are grown from, the newest.
_NUM_TREES, _MAX_TRIALS = 16, 300
# Of a categorical parameter. Optuna's fANOVA goes through every subset of them: more are numbers.
_MOST_CHOICES = 8


@dataclass(frozen=True)
class Importance:
    """Of one parameter: its share of the score's variance (fANOVA, Hutter et al. 2014), and of what
    tells good trials from the others (PED-ANOVA, Watanabe et al. 2023).

    Of a parameter that only some trials have, both are among these; `num_trials` is how many.
    """

    name: str
    fanova: float
    ped_anova: float
    num_trials: int
    is_conditional: bool


@dataclass(frozen=True)
class Step:
    """One setting changed on the way from a trial to another; `expected` is the final score
    afterwards, `gain` the difference to the one before, `deviation` the model's own doubt of it.

    `first` and `then` are empty where the settings did not have it, or have it no longer.
    """

    name: str
    first: str
    then: str
    expected: float
    gain: float
    deviation: float


@dataclass(frozen=True)
class Ablation:
    """Greedy steps from the first trial of the winner's system, or of any, to the winner."""

    first: int
    winner: int
    expected: float  # of the first
    steps: tuple[Step, ...]


class Expected:
    """What a sweep's model expects of its trials at their end."""

    def __init__(self, history: History) -> None:
        self.history = history
        spec = history.spec
        self._belief = Belief(
            _parameters(history.trials.values()),
            spec.metric,
            [*spec.rungs, spec.epochs],
            num_folds=max((trial.num_folds for trial in history.trials.values()), default=1),
        )
        with threadpool_limits(limits=1):  # as the sweep's searcher does
            self._process = self._belief.process(history.trials)

    @property
    def is_known(self) -> bool:
        """Whether there are enough trials to expect anything."""
        return self._process is not None

    def finals(self) -> dict[int, float]:
        """By trial: the score of those that trained to the end, and what is expected of the others
        that reached a rung. Failed ones are left out.
        """
        metric = self.history.spec.metric
        found, numbers = {}, []
        for number, trial in self.history.trials.items():
            best = trial.best(metric)
            if trial.state == "failed" or best is None:
                continue
            if trial.state == "complete":
                found[number] = best[1]
            elif self._belief.reached(trial):
                numbers.append(number)
        expected = self._belief.expected(self.history.trials, numbers) if numbers else None
        if expected is not None:
            found.update(zip(numbers, expected.tolist(), strict=True))
        return dict(sorted(found.items()))

    def steps(self, ways: Sequence[Params]) -> tuple[list[float], list[float], list[float]]:
        """Of settings one after the other: expected final scores, and of each but the first its
        difference to the one before and how sure that is.
        """
        assert self._process is not None
        rows = np.array([self._belief.encoding(params) for params in ways])
        means = self._process.mean_of_settings(rows)
        gains, deviations = self._process.expected_steps(rows)
        return means.tolist(), gains.tolist(), deviations.tolist()

    def expected_of(self, ways: Sequence[Params]) -> list[float]:
        """Expected final scores of settings."""
        assert self._process is not None
        rows = np.array([self._belief.encoding(params) for params in ways])
        means = self._process.mean_of_settings(rows)
        return list(map(float, means))


def importances(expected: Expected) -> list[Importance]:
    """Of every parameter that trials differ in, the most important first; none where there are too
    few trials to tell.
    """
    history, finals = expected.history, expected.finals()
    if len(finals) < NUM_FIRST:
        return []
    finals = {number: finals[number] for number in list(finals)[-_MAX_TRIALS:]}
    names = {name for number in finals for name in history.trials[number].params}
    if len(names) < 2:  # of what would it be a share?
        return []
    found: list[Importance] = []
    groups: dict[tuple[int, ...], list[str]] = {}
    for name in sorted(names):
        having = tuple(number for number in finals if name in history.trials[number].params)
        groups.setdefault(having, []).append(name)
    for having, group in groups.items():
        if len(having) < NUM_FIRST:
            continue
        study = _study(history, {number: finals[number] for number in having})
        shares = [_shares(study, history.spec.seed, is_ped) for is_ped in (False, True)]
        found += [
            Importance(
                name,
                float(shares[0].get(name, 0.0)),
                float(shares[1].get(name, 0.0)),
                len(having),
                len(having) < len(finals),
            )
            for name in group
            if any(name in share for share in shares)
        ]
    return sorted(found, key=lambda one: (-one.fanova, one.name))


def ablation_of(expected: Expected) -> Ablation | None:
    """The way to the winner from the sweep's first trial of its system, which is a known good point
    where the space has them: of the settings that still differ the one is changed next whose change
    the model expects most of (Fawcett and Hoos 2016). None where there is no way.
    """
    history = expected.history
    if history.best is None or not expected.is_known:
        return None
    winner = history.trials[history.best[1]]
    first = next(
        (trial for trial in history.trials.values() if trial.architecture == winner.architecture),
        winner,
    )
    here, there = dict(first.params), dict(winner.params)
    if here == there:
        return None
    ways: list[Params] = [here]
    names = []
    left = sorted(name for name in {*here, *there} if here.get(name) != there.get(name))
    while left:
        tried = [_changed(ways[-1], there, name) for name in left]
        scores = expected.expected_of(tried)
        place = int(np.argmax(scores))
        ways.append(tried[place])
        names.append(left.pop(place))
    means, gains, deviations = expected.steps(ways)
    steps = tuple(
        Step(
            name,
            _word(before.get(name)),
            _word(after.get(name)),
            means[place + 1],
            gains[place],
            deviations[place],
        )
        for place, (name, before, after) in enumerate(zip(names, ways[:-1], ways[1:], strict=True))
    )
    return Ablation(first.number, winner.number, means[0], steps)


def _word(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _changed(here: Params, there: Params, name: str) -> Params:
    changed = {**here}
    if name in there:
        changed[name] = there[name]
    else:
        changed.pop(name)
    return changed


def _parameters(trials: Iterable[Trial]) -> dict[str, BaseDistribution]:
    """Of all trials; where sessions had different ones, the first."""
    found: dict[str, BaseDistribution] = {}
    for trial in trials:
        for name, text in trial.distributions.items():
            if name not in found:
                found[name] = json_to_distribution(text)
    return found


def _study(history: History, finals: Mapping[int, float]) -> optuna.Study:
    study = new_study()
    trials = [history.trials[number] for number in finals]
    for frozen, score in zip(
        frozen_trials(trials, history.spec.metric), finals.values(), strict=True
    ):
        frozen.state, frozen.values = TrialState.COMPLETE, [score]
        frozen.datetime_complete = frozen.datetime_complete or frozen.datetime_start
        frozen.intermediate_values, frozen.user_attrs = {}, {}
        for name, one in frozen.distributions.items():
            if isinstance(one, CategoricalDistribution) and len(one.choices) > _MOST_CHOICES:
                frozen.params[name] = one.choices.index(frozen.params[name])
                frozen.distributions[name] = IntDistribution(0, len(one.choices) - 1)
        study.add_trial(frozen)
    return study


def _shares(study: optuna.Study, seed: int, is_ped: bool) -> dict[str, float]:
    evaluator = (
        PedAnovaImportanceEvaluator()
        if is_ped
        else FanovaImportanceEvaluator(n_trees=_NUM_TREES, seed=seed)
    )
    common = set.intersection(*(set(trial.params) for trial in study.trials))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return dict(get_param_importances(study, evaluator=evaluator, params=sorted(common)))
        except (ValueError, RuntimeError, ZeroDivisionError):
            # Optuna refuses where all scores are equal or no parameter varies
            return {}
