"""Spaces by their names or files, looked at before anything runs."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
)
from optuna.trial import FixedTrial, FrozenTrial

from mmm.user_code import user_code
from spaces import SPACES, Space, There, bound, spaces_on

_NUM_DRAWS = 200


class SpaceError(ValueError):
    """A space's function that failed, and what it had been suggested by then."""

    def __init__(self, message: str, params: dict[str, Any], distributions: dict[str, str]) -> None:
        super().__init__(message)
        self.params, self.distributions = params, distributions


def load_space(name: str, audio_features: Sequence[str] | None = None) -> Space:
    """A space by its name in `spaces/`, or `path/to/file.py:function`. Raises ValueError or
    FileNotFoundError.

    `audio_features`: those of the features folder, for spaces that look; None where a sweep began
    before any did.
    """
    there = There() if audio_features is None else There(tuple(audio_features))
    if name in SPACES:
        return SPACES[name] if audio_features is None else spaces_on(there)[name]
    if not name.rpartition(":")[0].endswith(".py"):
        raise ValueError(
            f"unknown space {name!r}; expected one of {', '.join(SPACES)}, or"
            " path/to/file.py:function"
        )
    module, suggest = user_code(name, "space")
    return bound(suggest, tuple(getattr(module, "KNOWN_GOOD", ())), there)


def check_space(space: Space, check: Callable[[dict[str, Any]], None]) -> list[dict[str, Any]]:
    """Draw settings from a space, every choice and both ends of every range among them, and `check`
    each.

    `check` raises ValueError or FileNotFoundError for settings that cannot be trained. Returns the
    settings drawn. Raises ValueError naming the fault and the suggested parameters that lead to it.
    """
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn: list[dict[str, Any]] = []

    def look(trial: optuna.Trial | FixedTrial) -> None:
        try:
            settings = dict(space.suggest(trial))
        except Exception as error:
            raise ValueError(
                f"the space fails on {trial.params}: {type(error).__name__}: {error}"
            ) from error
        try:
            check(settings)
        except (ValueError, FileNotFoundError) as error:
            raise type(error)(
                f"the space suggests settings that cannot be trained: {error}\n  suggested:"
                f" {trial.params}"
            ) from None
        drawn.append(settings)

    for point in space.known_good:
        try:
            check(point_settings(space, point))
        except (ValueError, FileNotFoundError) as error:
            raise type(error)(
                f"a known good point of the space cannot be trained: {error}\n  point:"
                f" {dict(point)}"
            ) from None
    frozen: list[FrozenTrial] = []
    for _ in range(_NUM_DRAWS):
        trial = study.ask()
        look(trial)
        frozen.append(study.get_trials(deepcopy=False)[trial.number])
    tried: set[tuple[str, str]] = set()
    for example in frozen:
        for name, distribution in example.distributions.items():
            for value in _edges(distribution):
                if (name, repr(value)) in tried or example.params[name] == value:
                    tried.add((name, repr(value)))
                    continue
                try:
                    look(FixedTrial({**example.params, name: value}))
                except ValueError as error:
                    # Another choice may ask for parameters this example does not have: those were
                    # drawn elsewhere.
                    if "is not found" not in str(error):
                        raise
                    continue
                tried.add((name, repr(value)))
    return drawn


def _edges(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    return [distribution.low, distribution.high]  # type: ignore[attr-defined]


def point_settings(space: Space, point: Mapping[str, Any]) -> dict[str, Any]:
    """What a space makes of a point. Raises ValueError where it does not take it as it is."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(dict(point))
    trial = study.ask()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # Optuna warns and draws another value; here that is refused
            settings = dict(space.suggest(trial))
    except Exception as error:
        raise ValueError(f"the space fails on it: {type(error).__name__}: {error}") from error
    if trial.params != dict(point):
        raise ValueError(
            f"the space makes {trial.params} of it; is a value out of range, or a name unknown or"
            " missing?"
        )
    return settings
