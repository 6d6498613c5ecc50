"""What may be searched: one small file a space, a define-by-run function of an Optuna trial and known good points.

A space function takes an Optuna trial and returns settings (see mmm/config.py, or `mmm train --help`). Epochs and, where the
function gives none, the seed come from the sweep.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from spaces import full, paper, quick


@dataclass(frozen=True)
class Space:
    """A function of an Optuna trial, and parameter points that run first."""

    suggest: Callable[[Any], Mapping[str, Any]]
    known_good: tuple[Mapping[str, Any], ...] = ()


SPACES = {
    "quick": Space(quick.suggest, quick.KNOWN_GOOD),
    "full": Space(full.suggest, full.KNOWN_GOOD),
    "paper": Space(paper.suggest, paper.KNOWN_GOOD),
}
