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


class _Asked:
    """A parameter as a space's function asks for it, made once for all draws: building and checking
    a distribution takes longer than drawing from it.
    """

    def __init__(self, distribution: BaseDistribution) -> None:
        self.distribution = distribution
        if not isinstance(distribution, FloatDistribution | IntDistribution):
            return
        self.low, self.high, self.step = (
            distribution.low,
            distribution.high,
            distribution.step or 0,
        )
        self.is_whole, self.is_log = isinstance(distribution, IntDistribution), distribution.log
        half = (0.5 if self.is_log else self.step / 2) if self.is_whole else 0.0
        self.scale: Callable[[float], float] = math.log if self.is_log else float
        self.first, self.last = self.scale(self.low), self.scale(self.high)
        # Each whole number gets its share of the range.
        self.begin, self.end = self.scale(self.low - half), self.scale(self.high + half)

    def number(self, rng: np.random.Generator, near: object) -> float:
        """At random, or in the neighbourhood of `near` where that is a number of the range."""
        if isinstance(near, int | float) and self.low <= near <= self.high and rng.random() < _KEEP:
            if self.is_whole:
                return near
            place = rng.normal(self.scale(near), _STEP * (self.last - self.first))
            place = min(max(place, self.first), self.last)
        else:
            place = self.begin + (self.end - self.begin) * rng.random()
        value = math.exp(place) if self.is_log else place
        if self.step:
            value = self.low + round((value - self.low) / self.step) * self.step
        value = min(max(value, self.low), self.high)
        return int(value) if self.is_whole else value


class Draw:
    """In a trial's place for a space's function: draws what is asked for, at random or near
    `around`, `fixed` as given.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        around: Params | None = None,
        fixed: Params | None = None,
        asked: dict[Hashable, _Asked] | None = None,
    ) -> None:
        """`asked`: what other draws from the same space were asked for."""
        self._rng, self._around, self._fixed = rng, around or {}, fixed or {}
        self._asked = {} if asked is None else asked
        self.params: dict[str, ParamValue] = {}
        self.settings: Params = {}  # what the space makes of them
        self.distributions: dict[str, BaseDistribution] = {}

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        asked = self._known(
            (name, float, low, high, step, log),
            lambda: FloatDistribution(low, high, log=log, step=step),
        )
        return float(self._number(name, asked))

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        asked = self._known(
            (name, int, low, high, step, log),
            lambda: IntDistribution(low, high, log=log, step=step),
        )
        return int(self._number(name, asked))

    def suggest_categorical(self, name: str, choices: Sequence[CategoricalChoiceType]) -> Any:
        def drawn() -> CategoricalChoiceType:
            if name in self._around and (near := self._around[name]) in choices and self._stays():
                return near
            return choices[int(self._rng.integers(len(choices)))]

        # True is equal to 1, and is another choice.
        key = name, tuple(choices), tuple(map(type, choices))
        asked = self._known(key, lambda: CategoricalDistribution(choices))
        return self._take(name, asked.distribution, drawn)

    def _known(self, key: Hashable, make: Callable[[], BaseDistribution]) -> _Asked:
        try:
            found = self._asked.get(key)
        except TypeError:  # a list among the choices
            return _Asked(make())
        if found is None:
            found = self._asked[key] = _Asked(make())
        return found

    def _number(self, name: str, asked: _Asked) -> Any:
        near = self._around.get(name)
        return self._take(name, asked.distribution, lambda: asked.number(self._rng, near))

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
    asked: dict[Hashable, _Asked] = {}
    fit: dict[int, BaseDistribution] = {}
    for around in arounds:
        draw = Draw(rng, around, fixed, asked)
        with contextlib.suppress(SpaceError):
            draw.settings = ask(space, draw, fit=fit)
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
