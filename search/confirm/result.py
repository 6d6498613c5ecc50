"""What a confirmation finds: every finalist's mean over seeds, every two of them compared, and how
much of the search's score was luck.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from mmm.metrics import LEVEL
from search.confirm.answers import Validation
from search.confirm.finalists import Finalist
from search.confirm.scores import Array
from search.confirm.statistics import (
    Sampled,
    difference,
    expected_best_of,
    holm,
    mean_interval,
    sample,
    seeds_to_decide,
)
from search.confirm.verdicts import MOST_WINS, Verdict, verdict_of
from search.ledger.history import History, Trial
from search.space.fixed import CHOICE

BASELINE = "linear baseline"


@dataclass(frozen=True)
class Confirmed:
    """A finalist, or the linear baseline, on the validation rows."""

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


@dataclass(frozen=True)
class Compared:
    """Two of them: `first` minus `second`. None: cannot be told."""

    first: str
    second: str
    difference: float
    low: float | None
    high: float | None
    p_units: float | None  # by sign flips of the units
    p: float | None  # the larger of that and of what counts seeds too, corrected for all pairs
    wins: float | None  # probability that a run of `first` beats one of `second`
    verdict: Verdict  # of `first`
    seeds_to_decide: int | None  # of a tie; None: no number of seeds would do

    def turned(self) -> "Compared":
        """The same, seen from the second."""
        turned: Mapping[Verdict, Verdict] = {"better": "worse", "worse": "better"}
        return Compared(
            self.second,
            self.first,
            -self.difference,
            None if self.high is None else -self.high,
            None if self.low is None else -self.low,
            self.p_units,
            self.p,
            None if self.wins is None else 1 - self.wins,
            turned.get(self.verdict, self.verdict),
            self.seeds_to_decide,
        )


@dataclass(frozen=True)
class Curse:
    """How far the search's own score of its winner was above what its settings give."""

    finalist: str
    search_score: float
    mean: float
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
    finalists: tuple[Confirmed, ...]
    baseline: Confirmed | None
    compared: tuple[Compared, ...]  # every two, and each with the baseline
    curse: Curse | None
    failed: tuple[str, ...]  # finalists without a run, and runs that failed, in words

    @property
    def leader(self) -> Confirmed:
        return self.finalists[0]

    def between(self, first: str, second: str) -> Compared:
        """How the first stands to the second."""
        for one in self.compared:
            if (one.first, one.second) == (first, second):
                return one
            if (one.second, one.first) == (first, second):
                return one.turned()
        raise KeyError((first, second))

    def as_json(self) -> dict[str, object]:
        return {**asdict(self), "most_wins": MOST_WINS}


def confirmation_of(
    sweep: str,
    history: History,
    validation: Validation,
    finalists: Sequence[Finalist],
    baseline: Array | None,
    num_trials: int,
) -> Confirmation:
    """What the ledger `history` of the sweep that trained the finalists, and their weights, tell.
    `baseline`: (P, C, C) counts of the linear baseline of `sweep`, which had `num_trials` trials
    with a score. Raises ValueError where no run has ended.
    """
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
    if baseline is not None and baseline.shape == counts[0].shape[1:]:
        counts.append(baseline[None])
    metric = history.spec.metric
    sampled = sample(counts, validation.units, metric)
    named = [finalist.name for finalist in there]
    confirmed = [
        _confirmed(finalist, runs[finalist.name], one, validation)
        for finalist, one in zip(there, sampled, strict=False)
    ]
    of_baseline = None
    if len(sampled) > len(there):
        named.append(BASELINE)
        alone = Finalist(BASELINE, {"architecture": "linear"}, None, None, 1)
        of_baseline = _confirmed(alone, [], sampled[-1], validation)
    ordered = sorted(confirmed, key=lambda one: (-one.mean, one.name))
    return Confirmation(
        sweep,
        history.spec.name,
        metric,
        LEVEL,
        validation.units.words,
        validation.units.limits,
        len(validation.rows),
        tuple(ordered),
        of_baseline,
        _compared(named, sampled, validation),
        _curse(ordered, num_trials),
        tuple(failed),
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
    )


def _compared(
    named: Sequence[str], sampled: Sequence[Sampled], validation: Validation
) -> tuple[Compared, ...]:
    """Every two, corrected for all of them: the leader is not known before one looks."""
    pairs = list(itertools.combinations(range(len(named)), 2))
    found = [
        difference(validation.units, sampled[first], sampled[second]) for first, second in pairs
    ]
    p_values: list[float | None] = [None] * len(pairs)
    if all(one is not None for one in found):
        p_values = [*holm([one.p for one in found if one is not None])]
    compared = []
    for (first, second), one, p in zip(pairs, found, p_values, strict=True):
        verdict = verdict_of(one, p)
        compared.append(
            Compared(
                named[first],
                named[second],
                sampled[first].mean - sampled[second].mean,
                None if one is None else one.interval.low,
                None if one is None else one.interval.high,
                None if one is None else one.p_units,
                p,
                None if one is None else one.wins,
                verdict,
                seeds_to_decide(one) if one is not None and verdict == "tie" else None,
            )
        )
    return tuple(compared)


def _curse(ordered: Sequence[Confirmed], num_trials: int) -> Curse | None:
    """Of the trial that the search ranked first; None where one seed tells nothing of noise."""
    scored = [one for one in ordered if one.search_score is not None]
    several = [one for one in ordered if one.deviation is not None]
    if not scored or not several:
        return None
    winner = max(scored, key=lambda one: one.search_score or 0.0)
    freedom = sum(len(one.scores) - 1 for one in several)
    squares = sum((one.deviation or 0.0) ** 2 * (len(one.scores) - 1) for one in several)
    noise = math.sqrt(squares / freedom)
    assert winner.search_score is not None
    return Curse(
        winner.name,
        winner.search_score,
        winner.mean,
        noise,
        num_trials,
        noise * expected_best_of(num_trials),
    )
