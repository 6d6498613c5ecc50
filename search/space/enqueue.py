"""`--enqueue`: points that a person wants tried, as the space's parameters or as a trial's complete
settings.
"""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from optuna.distributions import CategoricalDistribution

from mmm.files import parse_json
from mmm.training.config import Params, ParamValue
from search.space.load import ask_for
from spaces import Space

Point = tuple[str, Params]  # what to call it in a message, and what was written
Complete = Callable[[Params], Params]
_NUM_WAYS = 1000  # of completing a point that says little
_OF_THE_SWEEP = ("epochs", "seed")
# Settings that a trial has and nobody writes by hand.
_RECORDED = {"epochs", "label_policy", "accumulation", "masked"}


def read_points(path: Path) -> list[Point]:
    """The points of a JSON file: one object, or a list of them. Raises ValueError or
    FileNotFoundError.
    """
    if not path.is_file():
        raise FileNotFoundError(f"--enqueue {path}: no such file")
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"--enqueue {path}: not JSON: {error}") from None
    points = found if isinstance(found, list) else [found]
    if not points or not all(isinstance(point, dict) and point for point in points):
        raise ValueError(
            f"--enqueue {path}: expected an object of parameters or settings, or a list of such"
            " objects"
        )
    return [
        (f"--enqueue {path}, point {number}", point) for number, point in enumerate(points, start=1)
    ]


def as_params(space: Space, name: str, point: Params, complete: Complete) -> dict[str, ParamValue]:
    """The parameters that make the space suggest this point.

    A point is the parameters themselves, or complete settings; epochs and seed among them are the
    sweep's to say. `complete` makes complete settings of what a space suggests. Raises ValueError
    where the space cannot make the point, or can in more than one way.
    """
    found: list[dict[str, ParamValue]] = []
    faults: list[str] = []
    hint = ""
    if point.keys() >= _RECORDED and "input_scaling" not in point:
        point = {**point, "input_scaling": "none"}  # a trial of before there was a choice
        hint = (
            "; settings that do not name input_scaling were recorded without it: enqueue them with"
            ' --input-scaling none, or write "input_scaling": "standard" into the point'
        )
    try:
        for params, suggested in itertools.islice(_ways(space, point), _NUM_WAYS):
            if params == point:
                complete(suggested)
                return params
            settings = complete(suggested)
            made = {**params, **settings}
            wrong = [
                f"{key}={value!r}"
                f" ({f'the space makes {made[key]!r}' if key in made else 'the space has none'})"
                for key, value in point.items()
                if key not in _OF_THE_SWEEP and made.get(key) != value
            ]
            if wrong:
                faults.append(", ".join(wrong))
            else:
                found.append(params)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if not found:
        fault = min(faults, key=len)
        raise ValueError(
            f"{name}: not in the space: {fault}{hint if 'input_scaling' in fault else ''}"
        )
    if len(found) > 1:
        raise ValueError(
            f"{name}: the space makes it of {found[0]} and of {found[1]}; give one of these"
        )
    return found[0]


def _ways(space: Space, given: Params) -> Iterator[tuple[dict[str, ParamValue], Params]]:
    """Every (parameters, settings) of the space with the values in `given`, over all choices of
    what is not in it.
    """
    trial, settings = ask_for(space, given)
    for name, distribution in trial.distributions.items():
        if not distribution._contains(distribution.to_internal_repr(trial.params[name])):
            raise ValueError(f"{name}={trial.params[name]!r} is not in the space ({distribution})")
    missing = next((name for name in trial.params if name not in given), None)
    if missing is None:
        yield dict(trial.params), settings
        return
    distribution = trial.distributions[missing]
    if not isinstance(distribution, CategoricalDistribution):
        raise ValueError(f"{missing} is missing ({distribution})")
    for choice in distribution.choices:
        yield from _ways(space, {**given, missing: choice})
