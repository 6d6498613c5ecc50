"""A sweep in short, as one typed record: what `mmm-search status --json` and `report --json` print
and the appendix is made of. docs/results.md has its fields.
"""

from dataclasses import asdict, dataclass

from mmm.metrics import value_of
from mmm.training.config import Params
from search.ledger.history import History
from search.results.baseline import baseline_of
from search.results.expected_best import expected_best
from search.results.leaderboard import Row, counts, leaderboard
from search.results.page.forest import Confirmed
from search.results.page.tables import Cause, failures
from search.results.page.words import changes, verdict_words


@dataclass(frozen=True)
class Winner:
    """The best trial of the search."""

    trial: int
    architecture: str
    score: float
    epoch: int
    num_parameters: int | None
    settings: Params


@dataclass(frozen=True)
class ExpectedBest:
    """What the best of so many trials of this sweep would score, in the mean."""

    trials: int
    score: float


@dataclass(frozen=True)
class Summary:
    """Seconds are `_s`; scores are of validation and higher is better."""

    sweep: str
    metric: str
    score_name: str
    session: str  # why the last one ended, or that it has not
    trials_wanted: int
    trials: dict[str, int]  # by state
    verdict: tuple[str, ...]  # sentences, the most important first
    best: Winner | None
    baseline: float | None  # the linear baseline's score
    confirmed: Confirmed | None
    expected_best: tuple[ExpectedBest, ...]
    trained_s: float  # of all workers together
    used_s: float  # by sessions, as the clock has it
    failures: tuple[Cause, ...]
    changes: tuple[str, ...]  # of data and space while the sweep went on
    leaderboard: tuple[Row, ...]

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def summary(history: History, confirmed: Confirmed | None, rows: int | None = None) -> Summary:
    """Of a sweep, finished or not; with the first `rows` of its leaderboard, or all trials."""
    spec, baseline = history.spec, baseline_of(history)
    return Summary(
        sweep=spec.name,
        metric=spec.metric,
        score_name=spec.score_name,
        session=session_words(history),
        trials_wanted=spec.trials,
        trials=counts(history),
        verdict=tuple(verdict_words(history, confirmed)),
        best=_winner(history),
        baseline=None if baseline is None else value_of(baseline.metrics, spec.metric),
        confirmed=confirmed,
        expected_best=_expected(history),
        trained_s=round(history.trained_s, 3),
        used_s=round(history.used_s, 3),
        failures=tuple(failures(history)),
        changes=tuple(changes(history)),
        leaderboard=tuple(leaderboard(history, spec.metric, rows)),
    )


def session_words(history: History) -> str:
    return history.last_close.why if history.last_close else "running, or killed"


def _winner(history: History) -> Winner | None:
    if history.best is None:
        return None
    score, number = history.best
    trial = history.trials[number]
    best = trial.best(history.spec.metric)
    assert best is not None
    return Winner(
        number, trial.architecture, score, best[0], trial.num_parameters, dict(trial.settings)
    )


def _expected(history: History) -> tuple[ExpectedBest, ...]:
    """After 1, 2, 5, 10, 20, 50, ... and all trials with a score."""
    metric = history.spec.metric
    scores = [
        best[1]
        for trial in history.trials.values()
        if trial.state != "failed" and (best := trial.best(metric))
    ]
    many = [step * 10**power for power in range(6) for step in (1, 2, 5)]
    wanted = [number for number in many if number < len(scores)]
    if scores:
        wanted.append(len(scores))
    return tuple(ExpectedBest(number, expected_best(scores, number)) for number in wanted)
