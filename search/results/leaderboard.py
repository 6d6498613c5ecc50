"""The leaderboard: trials best first, as rows for the terminal, the report and
`leaderboard.csv`.
"""

import csv
import io
import statistics
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from rich.table import Table

from mmm.console import plain
from mmm.files import write_text
from mmm.metrics import value_of
from mmm.training.config import ParamValue
from search.ledger.history import History
from search.ledger.records import Baseline
from search.ledger.trial import Trial
from search.results.baseline import TRIAL, baseline_of

_IN_OTHER_COLUMNS = ("architecture", "context")


def short_settings(trial: Trial) -> str:
    """What the space chose for this trial: `lr=0.0012 dropout=0.3 ...`."""
    chosen = {name: value for name, value in trial.params.items() if name not in _IN_OTHER_COLUMNS}
    return " ".join(
        f"{name}={value:.2g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in chosen.items()
    )


def epoch_seconds(trial: Trial) -> float:
    """Seconds of a mean epoch of a trial that has some, as they would be alone."""
    epochs = trial.all_epochs
    return float(sum(entry.alone_seconds for entry in epochs)) / len(epochs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of the leaderboard; None is what a trial without a score does not have."""

    rank: int | None = None
    trial: int
    state: str
    score: float | None = None
    best_epoch: int | None = None
    last_score: float | None = None
    epochs: int | None = None
    architecture: str
    context: ParamValue = None
    settings: str
    training_s: float | None = None
    reason: str = ""
    num_parameters: int | None = None
    epoch_s: float | None = None
    # Counts from 1: each time that the data were changed while the sweep went on it is one more.
    data: int
    fold_sd: float | None = None  # standard deviation of the score over folds


def leaderboard(history: History, metric: str, rows_wanted: int | None = None) -> list[Row]:
    """A row a trial with a score, best first; then those without one. `rows_wanted`: only the first
    so many with one.
    """
    rows = []
    for rank, trial in enumerate(history.ranked(metric)[:rows_wanted], start=1):
        best = trial.best(metric)
        assert best is not None
        rows.append(
            replace(
                _bare_row(history, trial),
                rank=rank,
                score=round(best[1], 6),
                best_epoch=best[0],
                last_score=round(value_of(trial.metrics(trial.epoch), metric), 6),
                fold_sd=_fold_sd(trial, metric, best[0]),
            )
        )
    if rows_wanted is None:
        rows += [_bare_row(history, t) for t in history.trials.values() if t.best(metric) is None]
    return rows


def _fold_sd(trial: Trial, metric: str, epoch: int) -> float | None:
    if trial.num_folds == 1:
        return None
    return round(statistics.stdev(trial.fold_scores(metric, trial.num_folds)[epoch]), 6)


def _bare_row(history: History, trial: Trial) -> Row:
    """What a trial without a score has, too: over folds most have been trained."""
    trained = {}
    if trial.epochs:
        trained = {
            "epochs": trial.epoch,
            "context": trial.settings["context"],
            "training_s": round(trial.alone_seconds, 2),
            "epoch_s": round(epoch_seconds(trial), 4),
        }
    return Row(
        **trained,  # type: ignore[arg-type]
        trial=trial.number,
        state=trial.state,
        architecture=trial.architecture,
        settings=short_settings(trial),
        reason=trial.reason,
        num_parameters=trial.num_parameters,
        data=history.data_of(trial.number),
    )


def write_leaderboard(path: Path, history: History, metric: str) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(
        text, [column.name for column in fields(Row)], lineterminator="\n", restval=""
    )
    writer.writeheader()
    writer.writerows(map(asdict, leaderboard(history, metric)))
    # Last, so that the rows of trials stay where they were.
    if (baseline := baseline_of(history)) is not None:
        settings = baseline.settings
        writer.writerow(
            {
                "trial": TRIAL,
                "state": "baseline",
                "score": round(value_of(baseline.metrics, metric), 6),
                "architecture": "linear",
                "context": settings["context"],
                "settings": f"c={settings['c']:g} class_weight={settings['class_weight']}",
                "training_s": round(baseline.seconds, 2),
                "data": 1 + len(history.data_changes),
            }
        )
    write_text(path, text.getvalue())


_WIDE = 110  # columns


def counts(history: History) -> dict[str, int]:
    """Trials by state."""
    states = [trial.state for trial in history.trials.values()]
    return {state: states.count(state) for state in ("running", "complete", "pruned", "failed")}


def leaderboard_table(
    history: History, metric: str, rows: int, title: str | None, width: int
) -> Table:
    """The first rows of the leaderboard, without the settings where the terminal is narrower than
    they need.
    """
    is_wide, has_changed, baseline = (
        width >= _WIDE,
        bool(history.data_changes),
        baseline_of(history),
    )
    table = Table(title=title, title_justify="left")
    for name in (
        "#",
        "trial",
        "state",
        metric,
        "at",
        "epochs",
        "architecture",
        "K",
        *(["settings"] if is_wide else []),
        "s",
        *(["data"] if has_changed else []),
    ):
        is_text = name in ("state", "architecture", "settings")
        table.add_column(name, justify="left" if is_text else "right", no_wrap=name != "settings")
    for row in leaderboard(history, metric, rows):
        score = row.score or 0.0
        cells = [
            str(row.rank),
            str(row.trial),
            row.state,
            f"{score:.4f}",
            str(row.best_epoch),
            str(row.epochs),
            row.architecture,
            str(row.context),
            *([row.settings] if is_wide else []),
            f"{row.training_s:.1f}",
            *([str(row.data)] if has_changed else []),
        ]
        if baseline is not None and score < value_of(baseline.metrics, metric):
            table.add_row(*map(plain, _baseline_row(baseline, metric, is_wide)), style="dim")
            baseline = None
        table.add_row(*map(plain, cells))
    if baseline is not None:
        table.add_row(*map(plain, _baseline_row(baseline, metric, is_wide)), style="dim")
    return table


def _baseline_row(baseline: Baseline, metric: str, is_wide: bool) -> list[str]:
    """What every trial has to beat, in the place where it would stand among them."""
    settings = (
        [f"C={baseline.settings['c']:g} class_weight={baseline.settings['class_weight']}"]
        if is_wide
        else []
    )
    return [
        "",
        "",
        "baseline",
        f"{value_of(baseline.metrics, metric):.4f}",
        "",
        "",
        "linear",
        str(baseline.settings["context"]),
        *settings,
        f"{baseline.seconds:.1f}",
    ]
