"""What a confirmation finds: every finalist's mean over seeds, how each stands to the leader and to
the baseline, and how much of the search's score was luck.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from mmm.metrics import LEVEL
from search.confirm.answers import Validation
from search.confirm.finalists import Finalist
from search.confirm.opening import Opening, opening_of
from search.confirm.scores import Array
from search.confirm.statistics import (
    Sampled,
    corrected,
    difference,
    expected_best_of,
    mean_interval,
    p_seeds,
    sample,
    seeds_to_decide,
)
from search.confirm.units import Units
from search.confirm.variance import VarianceSplit, variance_split
from search.confirm.verdicts import MOST_WINS, Verdict, verdict_of
from search.ledger.history import History
from search.ledger.trial import Trial
from search.space.fixed import CHOICE

BASELINE, MAJORITY = "linear baseline", "majority class"


@dataclass(frozen=True)
class Confirmed:
    """A finalist, or a baseline, on the validation rows, or over folds on those of all of them: of
    answers that are put together, not a mean over folds (Forman and Scholz 2010).
    """

    name: str
    architecture: str
    trial: int | None
    search_score: float | None
    of_trials: int
    is_default: bool
    seeds: tuple[int, ...]
    scores: tuple[float, ...]  # of each seed
    mean: float
    deviation: float | None  # over seeds; None of one
    low: float | None  # of the interval; None: cannot be told
    high: float | None
    searched_as: tuple[float, ...] = ()  # of each seed, as the search counts: over folds their mean


@dataclass(frozen=True)
class Compared:
    """Two of them: `first` minus `second`. None: cannot be told."""

    first: str
    second: str
    difference: float
    low: float | None
    high: float | None
    p_units: float | None  # by sign flips of the units
    p: float | None  # the larger of that and of what counts seeds too, corrected
    wins: float | None  # probability that a run of `first` beats one of `second`
    verdict: Verdict  # of `first`
    seeds_to_decide: int | None  # of a tie; None: no number of seeds would do


@dataclass(frozen=True)
class Curse:
    """How far the search's own score of its winner was above what its settings give."""

    finalist: str
    search_score: float
    mean: float  # over seeds, of the score as the search counts it
    seed_noise: float  # standard deviation over seeds, pooled over finalists
    of_trials: int
    predicted: float  # of the best of so many, were all equal but for the seeds' noise

    @property
    def excess(self) -> float:
        return self.search_score - self.mean


@dataclass(frozen=True)
class Confirmation:
    """The whole; finalists best mean first."""

    sweep: str
    confirmed_in: str  # the sweep that trained them
    metric: str
    level: float
    units: str  # what was drawn; empty where there is too little of anything
    limits: tuple[str, ...]
    num_rows: int
    folds: int | None  # None: the split of train and dev
    finalists: tuple[Confirmed, ...]
    baseline: Confirmed | None  # the linear one
    majority: Confirmed  # what always answers with the most frequent class
    to_leader: tuple[Compared, ...]  # the other finalists with the leader, in their order
    to_baseline: tuple[Compared, ...]  # every finalist with the linear one, in their order
    to_majority: tuple[Compared, ...]  # and with the majority class
    curse: Curse | None
    opening: Opening | None  # of the test split; None: sealed
    failed: tuple[str, ...]  # finalists without a run, and runs that failed, in words
    variance: VarianceSplit | None = None

    @property
    def leader(self) -> Confirmed:
        return self.finalists[0]

    def as_json(self) -> dict[str, object]:
        return {**asdict(self), "most_wins": MOST_WINS}


def confirmation_of(
    searched: History,
    history: History,
    validation: Validation,
    finalists: Sequence[Finalist],
    baseline: Array | None,
) -> Confirmation:
    """What the ledger `history` of the sweep that trained the finalists of `searched`, and their
    weights, tell. `baseline`: (P, C, C) counts of the linear baseline of `searched`. Raises
    ValueError where no run has ended.
    """
    sweep = searched.spec.name
    runs: dict[str, list[Trial]] = {finalist.name: [] for finalist in finalists}
    failed = []
    for trial in history.trials.values():
        name = str(trial.params.get(CHOICE))
        if trial.state == "complete":
            runs[name].append(trial)
        elif trial.state == "failed":
            failed.append(f"{name}: trial {trial.number} failed: {trial.reason}")
    there = [finalist for finalist in finalists if runs[finalist.name]]
    if not there:
        raise ValueError(
            f"sweep {history.spec.name!r} has no run that ended yet; go on with: mmm-search confirm"
            f" {sweep}"
        )
    counts = [
        np.stack([validation.of_trial(trial) for trial in runs[finalist.name]])
        for finalist in there
    ]
    counts.append(validation.of_majority()[None])
    if baseline is not None and baseline.shape == counts[0].shape[1:]:
        counts.append(baseline[None])
    metric = history.spec.metric
    sampled = sample(counts, validation.units, metric)
    found = [
        (_confirmed(finalist, runs[finalist.name], one, validation), one)
        for finalist, one in zip(there, sampled, strict=False)
    ]
    found.sort(key=lambda pair: (-pair[0].mean, pair[0].name))
    ordered = [one for one, _ in found]
    passed_over: list[float] = []
    if validation.units.names:
        others = itertools.combinations([one for _, one in found[1:]], 2)
        passed_over = [p_seeds(validation.units, *pair) for pair in others]
    named = [
        Finalist(MAJORITY, {"architecture": "majority"}, None, None, 1),
        Finalist(BASELINE, {"architecture": "linear"}, None, None, 1),
    ]
    baselines = [
        (_confirmed(finalist, [], one, validation), one)
        for finalist, one in zip(named, sampled[len(there) :], strict=False)
    ]
    to_majority, *to_linear = (
        _compared([(pair, other) for pair in found], validation.units) for other in baselines
    )
    return Confirmation(
        sweep,
        history.spec.name,
        metric,
        LEVEL,
        validation.units.words,
        validation.units.limits,
        len(validation.rows),
        history.spec.folds,
        tuple(ordered),
        baselines[1][0] if to_linear else None,
        baselines[0][0],
        _compared([(pair, found[0]) for pair in found[1:]], validation.units, passed_over),
        to_linear[0] if to_linear else (),
        to_majority,
        _curse(ordered, searched) if searched.spec.folds == history.spec.folds else None,
        opening_of(history),
        tuple(failed),
        variance_split({name: some for name, some in runs.items() if some}, metric),
    )


def _confirmed(
    finalist: Finalist, trials: Sequence[Trial], one: Sampled, validation: Validation
) -> Confirmed:
    interval = mean_interval(validation.units, one)
    return Confirmed(
        finalist.name,
        finalist.architecture,
        finalist.trial,
        finalist.score,
        finalist.of_trials,
        finalist.is_default,
        tuple(int(trial.settings["seed"] or 0) for trial in trials),
        tuple(one.scores.tolist()),
        one.mean,
        one.deviation,
        None if interval is None else interval.low,
        None if interval is None else interval.high,
        tuple(
            best[1] for trial in trials if (best := trial.best(validation.spec.metric)) is not None
        ),
    )


_Of = tuple[Confirmed, Sampled]


def _compared(
    pairs: Sequence[tuple[_Of, _Of]], units: Units, passed_over: Sequence[float] = ()
) -> tuple[Compared, ...]:
    """Each first with its second, corrected for how many pairs there are."""
    found = [difference(units, first, second) for (_, first), (_, second) in pairs]
    p_values = iter(corrected([one for one in found if one is not None], passed_over))
    num_pairs = len(pairs) + len(passed_over)
    compared = []
    for ((first, _), (second, _)), one in zip(pairs, found, strict=True):
        p = None if one is None else next(p_values)
        verdict = verdict_of(one, p)
        compared.append(
            Compared(
                first.name,
                second.name,
                first.mean - second.mean,
                None if one is None else one.interval.low,
                None if one is None else one.interval.high,
                None if one is None else one.p_units,
                p,
                None if one is None else one.wins,
                verdict,
                seeds_to_decide(one, num_pairs) if one is not None and verdict == "tie" else None,
            )
        )
    return tuple(compared)


def _curse(ordered: Sequence[Confirmed], searched: History) -> Curse | None:
    """Of the trial that the search ranked first; None where one seed tells nothing of noise."""
    scored = [one for one in ordered if one.search_score is not None]
    several = [one for one in ordered if len(one.searched_as) > 1]
    if not scored or not several:
        return None
    winner = max(scored, key=lambda one: one.search_score or 0.0)
    squares = sum(float(np.var(one.searched_as)) * len(one.searched_as) for one in several)
    noise = math.sqrt(squares / sum(len(one.searched_as) - 1 for one in several))
    metric = searched.spec.metric
    num_trials = sum(trial.best(metric) is not None for trial in searched.trials.values())
    assert winner.search_score is not None
    return Curse(
        winner.name,
        winner.search_score,
        float(np.mean(winner.searched_as)),
        noise,
        num_trials,
        noise * expected_best_of(num_trials),
    )
