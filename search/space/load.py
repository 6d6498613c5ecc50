"""Spaces by their names or files, looked at before anything runs."""

import functools
import hashlib
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    distribution_to_json,
)
from optuna.trial import FixedTrial

import spaces
from mmm.training.config import Params, ParamValue
from mmm.training.own_system import is_reference, load_system
from mmm.user_code import user_code
from search.ledger.records import SpaceNote
from search.space.fixed import fixed_space
from search.space.study import random_study
from spaces import SPACES, Space, There, bound, spaces_on

_NUM_DRAWS = 200
_LONG_S = 2.0
_PLAIN = (str, int, float, bool, type(None))  # what JSON gives back as it was


class SpaceError(ValueError):
    """A space's function that failed, and what it had been suggested by then."""

    def __init__(
        self, message: str, params: dict[str, ParamValue], distributions: dict[str, str]
    ) -> None:
        super().__init__(message)
        self.params, self.distributions = params, distributions


class Suggester(Protocol):
    """What a space's function asks for values: a trial of Optuna's, or a draw in its place."""

    @property
    def params(self) -> Mapping[str, ParamValue]: ...

    @property
    def distributions(self) -> Mapping[str, BaseDistribution]: ...


def ask(
    space: Space, suggester: Suggester, failing: str = "the space fails on it"
) -> dict[str, ParamValue]:
    """The settings that a space makes of what it is suggested. Raises SpaceError, `failing` and the
    fault, whatever its function raises.
    """
    try:
        settings = dict(space.suggest(suggester))
        _check_plain(settings, suggester)
        return settings
    except (Exception, SystemExit) as error:
        # `failing` may name the parameters, which are only there by now.
        raise SpaceError(
            f"{failing.format(params=suggester.params)}: {type(error).__name__}: {error}",
            {
                name: value if isinstance(value, _PLAIN) else repr(value)
                for name, value in suggester.params.items()
            },
            as_texts({name: one for name, one in suggester.distributions.items() if not _odd(one)}),
        ) from error


def _check_plain(settings: Mapping[Any, object], suggester: Suggester) -> None:
    """Raises TypeError for what JSON would bring back as something else, or not at all."""
    for name, distribution in suggester.distributions.items():
        if odd := _odd(distribution):
            raise TypeError(
                f"a choice of {name!r} is {odd[0]!r:.60}; expected text, numbers, True, False or"
                f" None; name it, and look it up by its name: {{'a': {odd[0]!r:.60}}}"
                f"[trial.suggest_categorical({name!r}, ['a', ...])]"
            )
    for key, value in settings.items():
        if not isinstance(key, str):
            raise TypeError(f"{key!r:.60} is no name of a setting")
        if not isinstance(value, _PLAIN):
            raise TypeError(
                f"{key} is a {type(value).__name__}; expected text, a number, True, False or None"
                " (of NumPy: int(...), float(...), bool(...))"
            )


def _odd(distribution: BaseDistribution) -> list[object]:
    """Choices that a ledger could not give back as they are: tuples, arrays, objects."""
    if not isinstance(distribution, CategoricalDistribution):
        return []
    return [choice for choice in distribution.choices if not isinstance(choice, _PLAIN)]


def telling(space: Space, tell: Callable[[str], None]) -> Space:
    """The same space, of which is told what its function takes where that is long: beyond 2 s, and
    again whenever it is twice as much.
    """
    calls, seconds, told_s = 0, 0.0, _LONG_S

    @functools.wraps(space.suggest)
    def timed(trial: object) -> Mapping[str, ParamValue]:
        nonlocal calls, seconds, told_s
        began = time.monotonic()
        try:
            return space.suggest(trial)
        finally:
            calls, seconds = calls + 1, seconds + time.monotonic() - began
            if seconds >= told_s:
                told_s = 2 * seconds
                tell(
                    f"the space's function took {seconds:.0f} s in {calls:,} calls so far; it is"
                    " called hundreds of times before the first trial, and before each"
                )

    return replace(space, suggest=timed)


def space_note(name: str) -> SpaceNote:
    """What the ledger keeps of the file that a space is in."""
    if name in SPACES:
        file = Path(spaces.__file__).with_name(f"{name}.py")
    else:
        file = Path(name if name.endswith(".json") else name.rpartition(":")[0])
    content = file.read_bytes()
    return SpaceNote(name, hashlib.sha256(content).hexdigest(), content.decode(errors="replace"))


def as_texts(distributions: Mapping[str, BaseDistribution]) -> dict[str, str]:
    """Distributions as Optuna's JSON, which a ledger keeps."""
    return {name: distribution_to_json(found) for name, found in distributions.items()}


def ask_for(space: Space, point: Params) -> tuple[optuna.Trial, Params]:
    """The trial that suggests a point, anything for what the point does not say, and the settings
    that the space makes of it. Raises SpaceError.
    """
    study = random_study()
    study.enqueue_trial(dict(point))
    trial = study.ask()
    with warnings.catch_warnings():
        # Optuna takes a value that is out of range with no more than a warning.
        warnings.simplefilter("ignore")
        return trial, ask(space, trial)


def load_space(name: str, there: There | None = None) -> Space:
    """A space by its name in `spaces/`, or `path/to/file.py:function`. Raises ValueError or
    FileNotFoundError.

    `there`: what the features folder holds, for spaces that look; None where a sweep began before
    any did.
    """
    if name in SPACES:
        return SPACES[name] if there is None else spaces_on(there)[name]
    if name.endswith(".json"):
        return fixed_space(Path(name))
    if not name.rpartition(":")[0].endswith(".py"):
        raise ValueError(
            f"unknown space {name!r}; expected one of {', '.join(SPACES)}, or"
            " path/to/file.py:function"
        )
    module, suggest = user_code(name, "space")
    suggest = _naming_systems(suggest, Path(name.rpartition(":")[0]).parent)
    return bound(suggest, getattr(module, "KNOWN_GOOD", ()), there or There())


def _naming_systems(
    suggest: Callable[..., Mapping[str, ParamValue]], folder: Path
) -> Callable[..., Mapping[str, ParamValue]]:
    """A space's function of the user's own, which may name systems of the user's own: their files,
    beside its own in `folder` where the path is relative, are loaded here.
    """

    @functools.wraps(suggest)
    def naming(*arguments: object) -> Mapping[str, ParamValue]:
        settings = dict(suggest(*arguments))
        if is_reference(architecture := settings.get("architecture")):
            settings["architecture"] = load_system(str(architecture), folder).reference
        return settings

    return naming


def check_space(space: Space, check: Callable[[Params], None]) -> list[Params]:
    """Draw settings from a space, every choice and both ends of every range among them, and `check`
    each.

    `check` raises ValueError or FileNotFoundError for settings that cannot be trained. Returns the
    settings drawn. Raises ValueError naming the fault and the suggested parameters that lead to it.
    """
    drawn: list[Params] = []

    def look(trial: optuna.Trial | FixedTrial) -> None:
        settings = ask(space, trial, "the space fails on {params}")
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
            raise ValueError(
                f"a known good point of the space cannot be trained: {error}\n  point:"
                f" {dict(point)}"
            ) from None
    study = random_study()
    for _ in range(_NUM_DRAWS):
        look(study.ask())
    tried: set[tuple[str, str]] = set()
    for example in study.get_trials(deepcopy=False):
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


def _edges(distribution: BaseDistribution) -> Sequence[str | float | None]:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    return [distribution.low, distribution.high]  # type: ignore[attr-defined]


def point_settings(space: Space, point: Params) -> Params:
    """What a space makes of a point. Raises ValueError where it does not take it as it is."""
    trial, settings = ask_for(space, point)
    if trial.params != dict(point):
        raise ValueError(
            f"the space makes {trial.params} of it; is a value out of range, or a name unknown or"
            " missing?"
        )
    return settings
