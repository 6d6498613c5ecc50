"""Random settings of a space, also with some parameters fixed."""

import contextlib
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalChoiceType,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from search.space.study import random_study
from spaces import Space

_KEEP = (
    0.75  # chance that a draw near a point keeps a parameter's value, or a number's neighbourhood
)
_STEP = 0.1  # of a range, standard deviation
_NUM_TRIED = 8  # other values of a parameter that show whether it matters
_NUM_LOOKS = 300  # draws that show which parameters a space has


class Draw:
    """In a trial's place for a space's function: draws what is asked for, at random or near
    `around`, `fixed` as given.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        around: Mapping[str, Any] | None = None,
        fixed: Mapping[str, Any] | None = None,
    ) -> None:
        self._rng, self._around, self._fixed = rng, around or {}, fixed or {}
        self.params: dict[str, Any] = {}
        self.settings: dict[str, Any] = {}  # what the space makes of them
        self.distributions: dict[str, BaseDistribution] = {}

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return float(self._number(name, FloatDistribution(low, high, log=log, step=step)))

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        return int(self._number(name, IntDistribution(low, high, log=log, step=step)))

    def _number(self, name: str, distribution: FloatDistribution | IntDistribution) -> float:
        if name in self._fixed:
            self.params[name], self.distributions[name] = self._fixed[name], distribution
        if name not in self.params:
            low, high, step = distribution.low, distribution.high, distribution.step or 0
            start, end = (math.log(low), math.log(high)) if distribution.log else (low, high)
            if (
                name in self._around
                and low <= self._around[name] <= high
                and self._rng.random() < _KEEP
            ):
                if isinstance(distribution, IntDistribution):
                    self.params[name] = self._around[name]
                    self.distributions[name] = distribution
                    return self.params[name]  # type: ignore[no-any-return]
                middle = math.log(self._around[name]) if distribution.log else self._around[name]
                place = min(max(self._rng.normal(middle, _STEP * (end - start)), start), end)
            elif isinstance(
                distribution, IntDistribution
            ):  # each whole number gets its share of the range
                edges = (
                    (math.log(low - 0.5), math.log(high + 0.5))
                    if distribution.log
                    else (low - step / 2, high + step / 2)
                )
                place = self._rng.uniform(*edges)
            else:
                place = self._rng.uniform(start, end)
            value = math.exp(place) if distribution.log else place
            if step:
                value = low + round((value - low) / step) * step
            value = min(max(value, low), high)
            self.params[name] = int(value) if isinstance(distribution, IntDistribution) else value
            self.distributions[name] = distribution
        return self.params[name]  # type: ignore[no-any-return]

    def suggest_categorical(self, name: str, choices: Sequence[CategoricalChoiceType]) -> Any:
        if name in self._fixed:
            self.params[name], self.distributions[name] = (
                self._fixed[name],
                CategoricalDistribution(choices),
            )
        if name not in self.params:
            if (
                self._around.get(name) in choices
                and name in self._around
                and self._rng.random() < _KEEP
            ):
                self.params[name] = self._around[name]
            else:
                self.params[name] = choices[int(self._rng.integers(len(choices)))]
            self.distributions[name] = CategoricalDistribution(choices)
        return self.params[name]


def draws(
    space: Space,
    arounds: Sequence[Mapping[str, Any] | None],
    rng: np.random.Generator,
    fixed: Mapping[str, Any] | None = None,
) -> list[Draw]:
    """A draw near each of `arounds` (None: anywhere), with the `fixed` parameters; fewer where the
    space fails on rare settings.
    """
    found = []
    for around in arounds:
        draw = Draw(rng, around, fixed)
        with contextlib.suppress(Exception):
            draw.settings = dict(space.suggest(draw))
            found.append(draw)
    return found


def fixing(
    space: Space, params: Mapping[str, Any], shape_of: Callable[[Mapping[str, Any]], Hashable]
) -> dict[str, Any] | None:
    """The parameters that settings of one shape have in common: those of `params` whose change
    changes `shape_of` the settings.

    None where nothing else is left to vary.
    """
    rng = np.random.default_rng(0)
    shapes = {_shape(draw, shape_of) for draw in draws(space, [None], rng, params)}
    found: dict[str, Any] = {}
    for name in params:
        others = {key: value for key, value in params.items() if key != name}
        tried = draws(space, [None] * _NUM_TRIED, rng, others)
        if {_shape(draw, shape_of) for draw in tried} != shapes:
            found[name] = params[name]
    return found if len(found) < len(params) else None


def _shape(draw: Draw, shape_of: Callable[[Mapping[str, Any]], Hashable]) -> Hashable:
    try:
        return shape_of(draw.settings)
    except ValueError:
        return None


def parameters_of(space: Space) -> dict[str, BaseDistribution]:
    """Every parameter that a space was seen to have, always the same."""
    distributions: dict[str, BaseDistribution] = {}
    for draw in draws(space, [None] * _NUM_LOOKS, np.random.default_rng(0)):
        distributions = {**draw.distributions, **distributions}
    return distributions


def draw(
    space: Space, num_draws: int
) -> list[tuple[dict[str, Any], dict[str, str], dict[str, Any]]]:
    """Parameters, their distributions as JSON, and settings, drawn at random, always the same ones.

    Those that the space fails on are left out.
    """
    study = random_study()
    found = []
    for _ in range(num_draws):
        trial = study.ask()
        with contextlib.suppress(Exception):
            settings = dict(space.suggest(trial))
            texts = {
                name: distribution_to_json(distribution)
                for name, distribution in trial.distributions.items()
            }
            found.append((dict(trial.params), texts, settings))
    return found
