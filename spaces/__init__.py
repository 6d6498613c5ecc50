"""What may be searched: one small file a space, a define-by-run function of an Optuna trial and
known good points.

A space function takes an Optuna trial, or a trial and what the features folder holds
(spaces/there.py), and returns settings (see mmm/training/config.py, or `mmm train --help`). Epochs
and, where the function gives none, the seed and the scaling of inputs come from the sweep.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from spaces import full, paper, quick
from spaces.there import There as There


@dataclass(frozen=True)
class Space:
    """A function of an Optuna trial, and parameter points that run first."""

    suggest: Callable[[Any], Mapping[str, Any]]
    known_good: tuple[Mapping[str, Any], ...] = ()
    has_baseline: bool = True  # whether a sweep fits the linear system first, to compare with


Points = tuple[Mapping[str, Any], ...]


def bound(
    suggest: Callable[..., Mapping[str, Any]],
    known_good: Points | Callable[[There], Points],
    there: There,
    *,
    has_baseline: bool = True,
) -> Space:
    """A space on one features folder. Known good points may be a function of what is there; written
    out, they lose the speech feature where there is no choice of it.
    """
    if len(inspect.signature(suggest).parameters) < 2:
        assert not callable(known_good), "known good points of a space that does not look"
        return Space(suggest, tuple(known_good), has_baseline)
    points = known_good(there) if callable(known_good) else tuple(known_good)
    if not callable(known_good) and len(there.audio_features) == 1:
        points = tuple(
            {name: value for name, value in point.items() if name != "audio_feature"}
            for point in points
        )
    return Space(lambda trial: suggest(trial, there), points, has_baseline)


def spaces_on(there: There) -> dict[str, Space]:
    """The built-in spaces on one features folder, by their names."""
    return {
        "quick": bound(quick.suggest, quick.known_good, there),
        "full": bound(full.suggest, full.known_good, there),
        "paper": bound(paper.suggest, paper.known_good, there, has_baseline=False),
    }


SPACES = spaces_on(There())
