"""Random settings of a space, also with some parameters fixed."""

import contextlib
import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalChoiceType,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from mmm.training.config import Params, ParamValue
from search.space.load import SpaceError, as_texts, ask
from search.space.study import random_study
from spaces import Space

_KEEP = 0.75  # chance that a draw near a point keeps a value, or a number's neighbourhood
_STEP = 0.1  # of a range, standard deviation
_NUM_TRIED = 8  # other values of a parameter that show whether it matters
_NUM_LOOKS = 300  # draws that show which parameters a space has


class Draw:
    """In a trial's place for a space's function: draws what is asked for, at random or near
    `around`, `fixed` as given.
    """

    def __init__(
        self, rng: np.random.Generator, around: Params | None = None, fixed: Params | None = None
    ) -> None:
        self._rng, self._around, self._fixed = rng, around or {}, fixed or {}
        self.params: dict[str, ParamValue] = {}
        self.settings: Params = {}  # what the space makes of them
        self.distributions: dict[str, BaseDistribution] = {}

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return float(self._number(name, FloatDistribution(low, high, log=log, step=step)))

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        return int(self._number(name, IntDistribution(low, high, log=log, step=step)))

    def suggest_categorical(self, name: str, choices: Sequence[CategoricalChoiceType]) -> Any:
        def drawn() -> CategoricalChoiceType:
            if name in self._around and (near := self._around[name]) in choices and self._stays():
                return near
            return choices[int(self._rng.integers(len(choices)))]

        return self._take(name, CategoricalDistribution(choices), drawn)

    def _number(self, name: str, distribution: FloatDistribution | IntDistribution) -> Any:
        return self._take(name, distribution, lambda: self._drawn_number(name, distribution))

    def _take(
        self, name: str, distribution: BaseDistribution, drawn: Callable[[], ParamValue]
    ) -> ParamValue:
        """A parameter's value: fixed, taken before, or drawn now."""
        if name in self._fixed:
            self.params[name] = self._fixed[name]
        elif name in self.params:
            return self.params[name]
        else:
            self.params[name] = drawn()
        self.distributions[name] = distribution
        return self.params[name]

    def _stays(self) -> bool:
        return self._rng.random() < _KEEP

    def _drawn_number(self, name: str, distribution: FloatDistribution | IntDistribution) -> float:
        low, high, step = distribution.low, distribution.high, distribution.step or 0
        is_whole = isinstance(distribution, IntDistribution)
        scale: Callable[[float], float] = math.log if distribution.log else float
        near = self._around.get(name)
        if isinstance(near, int | float) and low <= near <= high and self._stays():
            if is_whole:
                return near
            place = self._rng.normal(scale(near), _STEP * (scale(high) - scale(low)))
            place = min(max(place, scale(low)), scale(high))
        elif is_whole:  # each whole number gets its share of the range
            half = 0.5 if distribution.log else step / 2
            place = self._rng.uniform(scale(low - half), scale(high + half))
        else:
            place = self._rng.uniform(scale(low), scale(high))
        value = math.exp(place) if distribution.log else place
        if step:
            value = low + round((value - low) / step) * step
        value = min(max(value, low), high)
        return int(value) if is_whole else value


def draws(
    space: Space,
    arounds: Sequence[Params | None],
    rng: np.random.Generator,
    fixed: Params | None = None,
) -> list[Draw]:
    """A draw near each of `arounds` (None: anywhere), with the `fixed` parameters; fewer where the
    space fails on rare settings.
    """
    found = []
    for around in arounds:
        draw = Draw(rng, around, fixed)
        with contextlib.suppress(SpaceError):
            draw.settings = ask(space, draw)
            found.append(draw)
    return found


def fixing(
    space: Space, params: Params, shape_of: Callable[[Params], Hashable]
) -> dict[str, ParamValue] | None:
    """The parameters that settings of one shape have in common: those of `params` whose change
    changes `shape_of` the settings.

    None where nothing else is left to vary.
    """
    rng = np.random.default_rng(0)
    shapes = {_shape(draw, shape_of) for draw in draws(space, [None], rng, params)}
    found: dict[str, ParamValue] = {}
    for name in params:
        others = {key: value for key, value in params.items() if key != name}
        tried = draws(space, [None] * _NUM_TRIED, rng, others)
        if {_shape(draw, shape_of) for draw in tried} != shapes:
            found[name] = params[name]
    return found if len(found) < len(params) else None


def _shape(draw: Draw, shape_of: Callable[[Params], Hashable]) -> Hashable:
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


def draw(space: Space, num_draws: int) -> list[tuple[Params, dict[str, str], Params]]:
    """Parameters, their distributions as JSON, and settings, drawn at random, always the same ones.

    Those that the space fails on are left out.
    """
    study = random_study()
    found: list[tuple[Params, dict[str, str], Params]] = []
    for _ in range(num_draws):
        trial = study.ask()
        with contextlib.suppress(SpaceError):
            settings = ask(space, trial)
            found.append((dict(trial.params), as_texts(trial.distributions), settings))
    return found
