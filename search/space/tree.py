"""A define-by-run space as a tree: which parameters every setting has, and which only under which
choices.

A space declares nothing of the kind, so it is inferred from settings drawn at random.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    json_to_distribution,
)

_MAX_RANGES = 8  # of one parameter; more are shown as one that varies
_MAX_CHOICES = 64  # of a parameter that others may depend on
_CHANCE = 1e-4  # a choice under which a parameter is missing by chance so rarely decides on it


@dataclass(frozen=True, order=True)
class Parameter:
    """A name with its distribution, as Optuna's JSON; the same name may have several."""

    name: str
    distribution: str
    varies: bool = False

    @property
    def _found(self) -> CategoricalDistribution | IntDistribution | FloatDistribution:
        found: CategoricalDistribution | IntDistribution | FloatDistribution
        found = json_to_distribution(self.distribution)  # type: ignore[assignment]
        return found

    @property
    def num_values(self) -> int | None:
        """How many values it can take; None where it is continuous."""
        found = self._found
        if isinstance(found, CategoricalDistribution):
            return len(found.choices)
        if found.step is None:
            return None
        return 1 + int((found.high - found.low) / found.step + 1e-9)

    def place(self, value: Any) -> float:
        """Where a value stands in the distribution's own order."""
        found = self._found
        if isinstance(found, CategoricalDistribution):
            return float(found.choices.index(value))
        return float(value)

    def __str__(self) -> str:
        found = self._found
        if isinstance(found, CategoricalDistribution):
            return f"one of {', '.join(map(str, found.choices))}"
        step = f" step {found.step:g}" if found.step not in (None, 1) else ""
        varies = ", range varies" if self.varies else ""
        return f"{found.low:g} .. {found.high:g}{' log' if found.log else ''}{step}{varies}"


@dataclass(frozen=True)
class Branch:
    """Parameters that every setting has under a condition ("" at the root), and what depends on
    further choices.
    """

    condition: str
    parameters: tuple[Parameter, ...]
    branches: tuple["Branch", ...]

    def lines(self, depth: int = 0) -> Iterator[tuple[str, str]]:
        """Indented name and distribution in words; a condition is a line of its own."""
        for parameter in self.parameters:
            yield "  " * depth + parameter.name, str(parameter)
        for branch in self.branches:
            yield "  " * depth + f"{branch.condition}:", ""
            yield from branch.lines(depth + 1)

    def as_json(self) -> dict[str, object]:
        parameters = {parameter.name: str(parameter) for parameter in self.parameters}
        return {
            "condition": self.condition,
            "parameters": parameters,
            "branches": [one.as_json() for one in self.branches],
        }

    def __iter__(self) -> Iterator[Parameter]:
        """Every parameter below, in order."""
        yield from self.parameters
        for branch in self.branches:
            yield from branch


Row = Mapping[Parameter, Any]  # a drawn setting: the value of each parameter that it has


class SpaceTree:
    """The tree of a space, from the parameters and distributions (Optuna's JSON) of settings drawn
    from it.
    """

    def __init__(self, drawn: Iterable[tuple[Mapping[str, Any], Mapping[str, str]]]) -> None:
        drawn = list(drawn)
        ranges: dict[str, set[str]] = defaultdict(set)
        for _, distributions in drawn:
            for name, text in distributions.items():
                ranges[name].add(text)
        widest = {
            name: _widest(name, texts) for name, texts in ranges.items() if len(texts) > _MAX_RANGES
        }
        self._rows: list[Row] = [
            {
                widest.get(name) or Parameter(name, text): params[name]
                for name, text in distributions.items()
            }
            for params, distributions in drawn
        ]
        order = dict.fromkeys(parameter for row in self._rows for parameter in row)
        self._deciding: dict[Parameter, None] = {}
        self._is_lower_bound = False
        self.root = self._branch("", self._rows, list(order))

    def _branch(
        self, condition: str, rows: Sequence[Row], parameters: Sequence[Parameter]
    ) -> Branch:
        always = [parameter for parameter in parameters if all(parameter in row for row in rows)]
        rest = [
            parameter
            for parameter in parameters
            if parameter not in always and any(parameter in row for row in rows)
        ]
        choices = [
            each
            for each in rows[0]
            if each.num_values is not None
            and each.num_values <= _MAX_CHOICES
            and not each.varies
            and all(each in row for row in rows)
        ]
        below: dict[tuple[Parameter, tuple[Any, ...]], list[Parameter]] = defaultdict(list)
        branches = []
        for parameter in rest:
            splits = [(_split(rows, parameter, choice), choice) for choice in choices]
            splits = [(split, choice) for split, choice in splits if split[1] or split[2]]
            if not splits:
                share = sum(parameter in row for row in rows) / len(rows)
                branches.append(Branch(f"sometimes ({share:.0%})", (parameter,), ()))
                self._is_lower_bound = True
                continue
            # The choice after which least is open, the first suggested of equals.
            (open_values, present, _), choice = min(
                splits, key=lambda pair: len(pair[0][0]) / sum(map(len, pair[0]))
            )
            self._deciding[choice] = None
            for values in (present, open_values):
                if values:
                    below[choice, values].append(parameter)
        for (choice, values), inside in below.items():
            some = [row for row in rows if row[choice] in values]
            branches.append(
                self._branch(f"{choice.name} = {' or '.join(map(str, values))}", some, inside)
            )
        return Branch(condition, tuple(always), tuple(branches))

    @property
    def continuous(self) -> list[str]:
        """Names of parameters without a countable number of values."""
        return list(
            dict.fromkeys(parameter.name for parameter in self.root if parameter.num_values is None)
        )

    def num_combinations(self) -> tuple[int, bool]:
        """Combinations of all that is not continuous, and whether that is exact rather than a lower
        bound.
        """
        is_exact = not self._is_lower_bound and not any(parameter.varies for parameter in self.root)
        return self._count(self._rows, frozenset()), is_exact

    def _count(self, rows: Sequence[Row], fixed: frozenset[Parameter]) -> int:
        everywhere = [parameter for parameter in rows[0] if all(parameter in row for row in rows)]
        for choice in self._deciding:
            if choice in everywhere and choice not in fixed:
                groups = defaultdict(list)
                for row in rows:
                    groups[row[choice]].append(row)
                return sum(self._count(group, fixed | {choice}) for group in groups.values())
        total = 1
        for parameter in everywhere:
            total *= 1 if parameter in fixed else parameter.num_values or 1
        return total


def _split(
    rows: Sequence[Row], parameter: Parameter, choice: Parameter
) -> tuple[tuple[Any, ...], ...]:
    """Values of `choice` under which `parameter` is there in some settings, in all, in none."""
    counts: dict[Any, list[bool]] = defaultdict(list)
    for row in rows:
        counts[row[choice]].append(parameter in row)
    share = sum(map(sum, counts.values())) / len(rows)
    some, every, none = [], [], []
    for value in sorted(counts, key=choice.place):
        there, num_rows = sum(counts[value]), len(counts[value])
        if there == num_rows and share**num_rows < _CHANCE:
            every.append(value)
        elif there == 0 and (1 - share) ** num_rows < _CHANCE:
            none.append(value)
        else:
            some.append(value)
    return tuple(some), tuple(every), tuple(none)


def _widest(name: str, texts: Iterable[str]) -> Parameter:
    """One range that holds all of a parameter whose range depends on other values."""
    found = [json.loads(text) for text in texts]
    attributes = found[0]["attributes"]
    attributes["low"] = min(one["attributes"]["low"] for one in found)
    attributes["high"] = max(one["attributes"]["high"] for one in found)
    return Parameter(name, json.dumps(found[0]), varies=True)
