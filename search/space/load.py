"""Spaces by their names or files, looked at before anything runs."""

import functools
import hashlib
import math
import re
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
from mmm.setting import shown
from mmm.training.config import Params, ParamValue
from mmm.training.own_system import is_reference, load_system
from mmm.user_code import fault_of, user_code
from search.ledger.records import SpaceNote
from search.space.fixed import fixed_space
from search.space.study import random_study
from spaces import SPACES, Space, There, bound, spaces_on

_NUM_DRAWS = 200
_LONG_S = 2.0
_PLAIN = (str, int, float, bool, type(None))  # what JSON gives back as it was
_MOST_LETTERS = 5000  # of a name or a text that each trial has in the ledger
_SHORT = 100
_MOST_SETTINGS = 1000
_MOST_CHOICES = 1000  # of one parameter: each trial has them all in the ledger
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


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
    space: Space,
    suggester: Suggester,
    failing: str = "the space fails on it",
    fit: dict[int, BaseDistribution] | None = None,
) -> dict[str, ParamValue]:
    """The settings that a space makes of what it is suggested. Raises SpaceError, `failing` and the
    fault, whatever its function raises.

    `fit`: distributions by id that other calls have found to be fit, which are not looked at again.
    """
    try:
        settings = dict(space.suggest(suggester))
        fit = {} if fit is None else fit
        for name, distribution in suggester.distributions.items():
            if id(distribution) not in fit:
                _check_parameter(name, distribution)
                fit[id(distribution)] = distribution
        _check_settings(settings)
        return settings
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit() and asyncio's CancelledError are no Exception
        # `failing` may name the parameters, which are only there by now.
        raise SpaceError(
            f"{failing.format(params=_as_text(suggester.params))}: {fault_of(error)}",
            {
                name: shown(value) if _unfit(value) else value
                for name, value in suggester.params.items()
                if not _unfit_name(name)
            },
            as_texts(
                {
                    name: one
                    for name, one in suggester.distributions.items()
                    if not (_unfit_name(name) or any(map(_unfit, _ends(one))))
                }
            ),
        ) from error


def _as_text(params: Mapping[Any, object]) -> str:
    """As Python writes a dictionary, long values cut."""
    return f"{{{', '.join(f'{shown(name)}: {shown(value)}' for name, value in params.items())}}}"


def _unfit(value: Any) -> str:
    """Why a ledger could not give a value back as it is; "" where it can."""
    kind = type(value)
    if (kind is str and value.isascii() and len(value) < _SHORT) or kind is bool or value is None:
        return ""  # almost always, and asked for each of thousands of draws a suggestion
    if not isinstance(value, _PLAIN):
        return f"{shown(value)[:60]}; expected text, numbers, True, False or None"
    if isinstance(value, str) and len(value) > _MOST_LETTERS:
        return f"{shown(value)}; expected at most {_MOST_LETTERS:,} letters"
    if isinstance(value, str) and _HALF_CHARACTER.search(value):
        return f"{shown(value)}, which holds half a character that no file can"
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return f"{shown(value)}; expected one of 64 bits"
    return "nan, which equals no value" if isinstance(value, float) and math.isnan(value) else ""


def _unfit_name(name: object) -> str:
    return _unfit(name) if isinstance(name, str) else f"{shown(name)[:60]}; expected text"


def _check_parameter(name: object, distribution: BaseDistribution) -> None:
    """Raises TypeError for what JSON would bring back as something else, or not at all."""
    if what := _unfit_name(name):
        raise TypeError(f"the name of a parameter is {what}")
    if len(ends := _ends(distribution)) > _MOST_CHOICES:
        raise TypeError(
            f"{shown(name)} has {len(ends):,} choices; expected at most {_MOST_CHOICES:,}; with"
            " suggest_int a place in a list may be chosen"
        )
    for value in ends:
        if not (what := _unfit(value)):
            continue
        if not isinstance(distribution, CategoricalDistribution):
            raise TypeError(f"an end of the range of {shown(name)} is {what}")
        instead = ""
        if not isinstance(value, _PLAIN):
            instead = (
                f"; name it, and look it up by its name: {{'a': {shown(value)[:60]}}}"
                f"[trial.suggest_categorical({shown(name)}, ['a', ...])]"
            )
        raise TypeError(f"a choice of {shown(name)} is {what}{instead}")


def _check_settings(settings: Mapping[Any, object]) -> None:
    """Raises TypeError as `_check_parameter` does."""
    if len(settings) > _MOST_SETTINGS:
        raise TypeError(f"{len(settings):,} settings; expected at most {_MOST_SETTINGS:,}")
    for key, setting in settings.items():
        if not isinstance(key, str):
            raise TypeError(f"{key!r:.60} is no name of a setting")
        if what := _unfit(key):
            raise TypeError(f"the name of a setting is {what}")
        if not isinstance(setting, _PLAIN):
            raise TypeError(
                f"{key} is a {type(setting).__name__}; expected text, a number, True, False or None"
                " (of NumPy: int(...), float(...), bool(...))"
            )
        if isinstance(setting, str) and (what := _unfit(setting)):
            raise TypeError(f"{key} is {what}")


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
    path, points = name.rpartition(":")[0], getattr(module, "KNOWN_GOOD", ())
    if not isinstance(points, Sequence) or not all(isinstance(one, Mapping) for one in points):
        raise ValueError(f"{path}: KNOWN_GOOD is {shown(points)[:60]}; expected a list of points")
    try:
        return bound(_naming_systems(suggest, Path(path).parent), tuple(points), there or There())
    except (TypeError, ValueError) as error:  # a function that does not say what it takes
        raise ValueError(f"{path}: cannot be used as a space: {error}") from None


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
            for value in _ends(distribution):
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


def _ends(distribution: BaseDistribution) -> Sequence[Any]:
    """All choices, or both ends of a range."""
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
