"""A sweep as data analysts take it: trials and learning curves as pandas tables, Optuna's study,
the report. All of it comes from the ledger, and nothing is trained or locked.
"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from search.ledger.history import History
from search.ledger.trial import Trial
from search.results.leaderboard import leaderboard, write_leaderboard
from search.results.page.forest import read_confirmed

if TYPE_CHECKING:
    import optuna


class OpenedSweep:
    """A sweep's ledger as it was when it was opened. Everything that `History` has beside `trials`
    and `best` is here by the same name: `ranked`, `spec`, `baseline`.
    """

    def __init__(self, folder: Path, history: History) -> None:
        self.folder, self.history = folder, history

    def __repr__(self) -> str:
        return f"<sweep {self.history.spec.name!r}: {len(self.history.trials)} trials>"

    def __getattr__(self, name: str) -> Any:
        if name in ("folder", "history"):  # of a copy that is not made yet
            raise AttributeError(name)
        return getattr(self.history, name)

    @property
    def trials(self) -> pd.DataFrame:
        """A row a trial, best first, then those without a score; the index is the trial's number.

        What became of it (`state`, `score` by the sweep's metric, `best_epoch`, `trained_epochs`,
        `training_s` in seconds, `num_parameters`, `reason`, ...), then its settings, a column each,
        by the names that `mmm train` has for them.
        """
        rows = []
        for row in leaderboard(self.history, self.history.spec.metric):
            facts = asdict(row)
            facts["trained_epochs"] = facts.pop("epochs")
            for name in ("settings", "architecture", "context"):  # in the columns of the settings
                del facts[name]
            trial = self.history.trials[row.trial]
            rows.append({**facts, "queued": trial.queued, **trial.settings})
        return pd.DataFrame(rows, columns=None if rows else ["trial"]).set_index("trial")

    @property
    def curves(self) -> pd.DataFrame:
        """A row an epoch of each trial and fold: `trial`, `fold`, `epoch`, `train_loss` (nats),
        `seconds`, and every validation metric that is one number.
        """
        rows = [
            {
                "trial": trial.number,
                "fold": entry.fold,
                "epoch": entry.epoch,
                "train_loss": entry.train_loss,
                "seconds": entry.seconds,
                **entry.metrics,
            }
            for trial in self.history.trials.values()
            for entry in trial.all_epochs
        ]
        return pd.DataFrame(rows, columns=None if rows else ["trial", "fold", "epoch"])

    @property
    def best(self) -> Trial | None:
        """The trial with the best score of those that may win; None before there is one."""
        return None if self.history.best is None else self.history.trials[self.history.best[1]]

    @property
    def finalists(self) -> pd.DataFrame | None:
        """What `mmm-search confirm` found, a row a finalist, the best mean first: `label`, `mean`,
        `low` and `high` of its interval, `scores` of each seed, `search_score`, `verdict`. None
        where the sweep was not confirmed. Raises ValueError where confirm.json is damaged.
        """
        found = read_confirmed(self.folder)
        return None if found is None else pd.DataFrame([asdict(one) for one in found.finalists])

    @property
    def study(self) -> "optuna.Study":
        """All trials as an Optuna study in memory, for its plots and importances."""
        from search.results.optuna_study import study_of

        return study_of(self.history)

    def report(self, out: str | Path | None = None) -> Path:
        """Write report.html and leaderboard.csv, into the sweep's own folder or into `out`, and
        return the path of the report.
        """
        from search.results.report import write_report

        into = self.folder if out is None else Path(out)
        into.mkdir(parents=True, exist_ok=True)
        write_leaderboard(into / "leaderboard.csv", self.history, self.history.spec.metric)
        write_report(into / "report.html", self.history, read_confirmed(self.folder))
        return into / "report.html"
