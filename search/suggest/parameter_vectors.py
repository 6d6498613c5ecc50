"""Settings as vectors: one axis a numerical parameter, one a choice of a nominal one."""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from mmm.training.config import Params

_NOMINAL = math.sqrt(0.5)  # two different categories are 1 apart


class Encoding:
    """Parameters as numbers: categories one-hot, ranges scaled to [0, 1] (logarithmic ones by their
    logarithm).

    Choices that are numbers are one column, in the order in which they are listed. A parameter that
    settings do not have is in the middle of its range, or no category at all. The columns are those
    of `distributions`.
    """

    def __init__(self, distributions: Mapping[str, BaseDistribution]) -> None:
        self._columns: dict[str, tuple[int, Callable[[Any], float] | dict[Any, int]]] = {}
        self._absent: list[float] = []
        for name in sorted(distributions):  # the same columns, whichever settings came first
            distribution, place = distributions[name], len(self._absent)
            if _is_nominal(distribution):
                self._columns[name] = (
                    place,
                    {choice: index for index, choice in enumerate(distribution.choices)},
                )
                self._absent += [0.0] * len(distribution.choices)
            else:
                self._columns[name] = (place, _scaling(distribution))
                self._absent.append(0.5)

    @property
    def width(self) -> int:
        return len(self._absent)

    def __call__(self, params: Params) -> list[float]:
        """The row of these parameters. Names and choices that are not in the distributions are left
        out.
        """
        row = self._absent.copy()
        for name, value in params.items():
            if (column := self._columns.get(name)) is None:
                continue
            place, how = column
            if isinstance(how, dict):
                if value in how:
                    row[place + how[value]] = _NOMINAL
                continue
            try:
                row[place] = min(max(how(value), -0.5), 1.5)
            except (KeyError, TypeError, ValueError):
                continue
        return row


def _is_nominal(distribution: BaseDistribution) -> TypeGuard[CategoricalDistribution]:
    return isinstance(distribution, CategoricalDistribution) and not all(
        isinstance(choice, (int, float)) and not isinstance(choice, bool)
        for choice in distribution.choices
    )


def _scaling(distribution: BaseDistribution) -> Callable[[Any], float]:
    if isinstance(distribution, CategoricalDistribution):
        places = {
            choice: index / max(1, len(distribution.choices) - 1)
            for index, choice in enumerate(distribution.choices)
        }
        return places.__getitem__
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    low, high = float(distribution.low), float(distribution.high)
    if high <= low:
        return lambda value: 0.5
    if distribution.log:
        start, width = math.log(low), math.log(high / low)
        return lambda value: (math.log(value) - start) / width
    return lambda value: (value - low) / (high - low)
