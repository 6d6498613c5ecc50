"""The leaderboard of the page: its rows, and what a trial unfolds to."""

import json
from dataclasses import dataclass

from mmm.metrics import value_of
from search.ledger.history import History
from search.ledger.trial import Trial
from search.results.baseline import baseline_of
from search.results.leaderboard import Row
from search.results.page.paths import without_folders
from search.results.page.plots import colour, in_script, system_of

_COLUMNS = (
    "rank",
    "trial",
    "state",
    "score",
    "best_epoch",
    "last_score",
    "fold_sd",
    "epochs",
    "architecture",
    "context",
    "settings",
    "training_s",
    "data",
    "reason",
)
_TEXTS = ("state", "architecture", "settings", "reason")
_SCORES = ("score", "last_score", "fold_sd")


@dataclass(frozen=True)
class Board:
    """A table; the columns in `texts` are not numbers, `trials` are the rows' numbers."""

    columns: list[str]
    texts: list[int]
    rows: list[list[str]]
    states: list[str]
    trials: list[int]


def board(history: History, rows: list[Row]) -> Board:
    left_out = {
        *(() if history.data_changes else ("data",)),
        *(() if history.spec.folds else ("fold_sd",)),
    }
    columns = [name for name in _COLUMNS if name not in left_out]
    return Board(
        [name.replace("_", " ") for name in columns],
        [place for place, name in enumerate(columns) if name in _TEXTS],
        [[_cell(name, getattr(row, name)) for name in columns] for row in rows],
        [row.state for row in rows],
        [row.trial for row in rows],
    )


def _cell(column: str, value: object) -> str:
    if value is None:
        return ""
    if column in _SCORES and isinstance(value, float):
        return f"{value:.4f}"
    return without_folders(str(value))


def details(history: History) -> str:
    """What each trial unfolds to, as JSON for a script block: settings that all share once, of each
    trial the others, its curve (of each fold), its best epoch, and why it ended.
    """
    spec, trials = history.spec, history.trials
    settings = {number: _shown(trial) for number, trial in trials.items()}
    names = list(dict.fromkeys(name for one in settings.values() for name in one))
    baseline = baseline_of(history)
    found = {
        "metric": spec.metric,
        "epochs": spec.epochs,
        "rungs": spec.rungs,
        "baseline": None if baseline is None else round(value_of(baseline.metrics, spec.metric), 4),
        "names": names,
        "trials": {
            number: {
                "settings": [settings[number].get(name) for name in names],
                "curves": [
                    [round(entry.metrics[spec.metric], 4) for entry in fold] for fold in trial.folds
                ],
                "best": best[0] if (best := trial.best(spec.metric)) else None,
                "colour": colour(system_of(trial)),
                "reasons": _reasons(trial),
            }
            for number, trial in trials.items()
        },
    }
    return in_script(json.dumps(found, separators=(",", ":")))


def _shown(trial: Trial) -> dict[str, str | None]:
    """Settings as text, those that the space chose marked by their place: first."""
    ordered = {**trial.params, **trial.settings}
    return {
        name: f"{value:.5g}" if isinstance(value, float) else without_folders(str(value))
        for name, value in ordered.items()
    }


def _reasons(trial: Trial) -> list[str]:
    """Sentences on how it came to be and to end."""
    found = [f"{trial.state}: {without_folders(trial.reason)}" if trial.reason else trial.state]
    if trial.queued is not None:
        found.append(f"it was a given point ({without_folders(trial.queued)}), not a suggestion")
    if trial.copied_from is not None:
        found.append(f"its epochs are those of trial {trial.copied_from}, with the same settings")
    if trial.dead_workers:
        found.append(f"workers that died with it: {trial.dead_workers}")
    if trial.num_parameters:
        found.append(f"{trial.num_parameters:,} parameters")
    if trial.precision:
        found.append(f"trained in {trial.precision}")
    return found
