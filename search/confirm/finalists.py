"""Who is confirmed: the best trials of a sweep, the best of each system, and what would have been
tried without a search.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mmm.files import write_json
from mmm.training.config import Params
from search.ledger.history import History
from search.ledger.trial import Trial
from search.space.fixed import CHOICE
from search.space.load import load_space, point_settings
from search.space.settings import there_in, trial_config

_SYSTEM = ("architecture", "speech", "text")  # what makes two trials the same system


@dataclass(frozen=True)
class Finalist:
    """Settings that are trained again."""

    name: str  # `trial 12`, or `default 1` where it was not trained in the sweep
    settings: Params  # complete, with the first of the fresh seeds
    trial: int | None  # of the sweep; None: it was not trained there
    score: float | None  # the sweep's
    of_trials: int  # how many it is the best of
    is_default: bool = False  # a known good point of the space

    @property
    def architecture(self) -> str:
        return str(self.settings["architecture"])


def choose_finalists(
    history: History, top: int, *, per_system: bool, include_default: bool
) -> list[Finalist]:
    """The `top` best settings of a sweep, seeds aside; `per_system`: and the best of each system on
    each encoder; `include_default`: and the space's known good points of the systems among them.

    Raises ValueError where no trial has a score.
    """
    spec = history.spec
    ranked = [
        trial
        for trial in history.ranked(spec.metric)
        if trial.state in ("complete", "pruned")
        and trial.copied_from is None
        and history.may_win(trial.number)
    ]
    if not ranked:
        raise ValueError(
            f"sweep {spec.name!r} has no ended trial with a score to confirm; go on with it by"
            " mmm-search resume, or see by mmm-search status why its trials failed"
        )
    seed = 1 + max(int(trial.settings.get("seed") or 0) for trial in ranked)
    found: dict[str, Finalist] = {}

    def add(name: str, settings: Params, trial: Trial | None, of_trials: int) -> str:
        best = None if trial is None else trial.best(spec.metric)
        complete = {**settings, "seed": seed, "epochs": spec.epochs}
        found.setdefault(
            key := _key(complete),
            Finalist(
                name,
                complete,
                None if trial is None else trial.number,
                None if best is None else best[1],
                of_trials,
            ),
        )
        return key

    for trial in ranked:
        if len(found) == top:
            break
        add(f"trial {trial.number}", trial.settings, trial, len(ranked))
    if per_system:
        by_system: dict[Sequence[object], list[Trial]] = {}
        for trial in ranked:
            system = tuple(trial.settings.get(name) for name in _SYSTEM)
            by_system.setdefault(system, []).append(trial)
        for trials in by_system.values():
            add(f"trial {trials[0].number}", trials[0].settings, trials[0], len(trials))
    if include_default:
        wanted = {finalist.architecture for finalist in found.values()}
        same = {_key({**trial.settings, "seed": seed}): trial for trial in reversed(ranked)}
        number = 0
        for settings in _defaults(history):
            if settings["architecture"] in wanted:
                number += 1
                trained = same.get(_key({**settings, "seed": seed}))
                name = f"default {number}" if trained is None else f"trial {trained.number}"
                key = add(name, settings, trained, 1)
                found[key] = replace(found[key], is_default=True)
    return list(found.values())


def _defaults(history: History) -> Iterable[Params]:
    """Complete settings of the space's known good points."""
    space = load_space(history.spec.space, there_in(history.spec))
    for point in space.known_good:
        yield trial_config(point_settings(space, point), history.spec).params()


def _key(settings: Params) -> str:
    return json.dumps(settings, sort_keys=True)


def write_finalists(path: Path, finalists: Sequence[Finalist]) -> None:
    """The file that a sweep's space is made of (search/space/fixed.py)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {one.name: asdict(one) for one in finalists})


def read_finalists(path: Path) -> list[Finalist]:
    """Raises ValueError where the file is not as it was written."""
    try:
        found: Mapping[str, Mapping[str, object]] = json.loads(path.read_text(encoding="utf-8"))
        return [Finalist(**one) for one in found.values()]  # type: ignore[arg-type]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: cannot be read ({error}); bring it back from a copy, or confirm under another"
            " name with --as"
        ) from None


def with_more(
    queue: Sequence[Params], names: Sequence[str], seeds: int, *, one_round: bool = False
) -> list[Params]:
    """A queue of points with what it lacks of so many seeds of each of these finalists, or only the
    next of them: a round after the other, so that whatever ends it early leaves all with about as
    many.
    """
    have = Counter(str(point[CHOICE]) for point in queue)
    more: list[Params] = []
    for number in range(seeds):
        more += [{CHOICE: name} for name in names if have[name] <= number]
        if one_round and more:
            break
    return [*queue, *more]
