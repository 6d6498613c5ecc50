"""What a sweep shows while it runs: a live table in a terminal, plain lines elsewhere."""

import time
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from search.conductor import Conductor
from search.leaderboard import leaderboard
from search.ledger import History

_REFRESH_PER_S = 4
_ROWS = 12
_WIDE = 110  # columns


def counts(history: History) -> dict[str, int]:
    """Trials by state."""
    states = [trial.state for trial in history.trials.values()]
    return {state: states.count(state) for state in ("running", "complete", "pruned", "failed")}


def leaderboard_table(history: History, metric: str, rows: int, title: str, width: int) -> Table:
    """The first rows of the leaderboard, without the settings where the terminal is narrower than they need."""
    is_wide = width >= _WIDE
    table = Table(title=title, title_justify="left")
    for name in ("#", "trial", "state", metric, "at", "epochs", "architecture", "K", *(["settings"] if is_wide else []), "s"):
        is_text = name in ("state", "architecture", "settings")
        table.add_column(name, justify="left" if is_text else "right", no_wrap=name != "settings")
    for row in leaderboard(history, metric)[:rows]:
        if "rank" in row:
            cells = [str(row["rank"]), str(row["trial"]), row["state"], f"{row['score']:.4f}", str(row["best_epoch"])]
            cells += [str(row["epochs"]), row["architecture"], str(row["context"]), *([row["settings"]] if is_wide else [])]
            table.add_row(*cells, f"{row['training_s']:.1f}")
    return table


def duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}h{minutes % 60:02d}m" if minutes >= 60 else f"{minutes}m{rest:02d}s"


class View:
    """Follows a conductor. In a terminal a table that refreshes itself, elsewhere a line whenever a trial ends."""

    def __init__(self, console: Console, name: str) -> None:
        self.console, self.name = console, name
        self.conductor: Conductor | None = None
        self._told: set[int] = set()
        self._live = Live(get_renderable=self._table, console=console, refresh_per_second=_REFRESH_PER_S, transient=True)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self._live.stop()

    def follow(self, conductor: Conductor) -> None:
        self.conductor = conductor
        # A resumed sweep has told of these before.
        self._told = {trial.number for trial in conductor.trials.values() if trial.state != "running"}

    def _line(self) -> str:
        if self.conductor is None:
            return f"sweep {self.name}: starting"
        spec, history = self.conductor.spec, self.conductor.ledger.history
        count = counts(history)
        states = ", ".join(f"{number} {state}" for state, number in count.items() if number)
        parts = [f"sweep {self.name}: {len(history.trials)}/{spec.trials} trials ({states or 'starting workers'})"]
        efficiency = self.conductor.efficiency()
        if efficiency is not None:
            parts.append(f"efficiency {efficiency:.2f}")
        parts.append(f"{spec.workers} workers, {duration(time.time() - self.conductor.session_started)}")
        return ", ".join(parts)

    def _table(self) -> Table | str:
        if self.conductor is None or not self.conductor.trials:
            return self._line()
        # The driver's thread adds trials while this one reads: a copy of the dictionary is taken in one step.
        history = self.conductor.ledger.history
        frozen = History(history.spec, history.started, dict(history.trials), None)
        table = leaderboard_table(frozen, self.conductor.spec.metric, _ROWS, self._line(), self.console.width)
        running = [trial for trial in frozen.trials.values() if trial.state == "running"]
        table.caption = "running: " + "; ".join(
            f"#{trial.number} {trial.settings['architecture']} epoch {trial.epochs[-1]['epoch'] if trial.epochs else 0}"
            for trial in running
        )
        table.caption_justify = "left"
        return table

    def changed(self) -> None:
        """Called by the conductor after each change."""
        if self.console.is_terminal or self.conductor is None:
            return
        metric = self.conductor.spec.metric
        for trial in list(self.conductor.trials.values()):
            if trial.state != "running" and trial.number not in self._told:
                self._told.add(trial.number)
                best = trial.best(metric)
                score = f"{metric} {best[1]:.4f} at epoch {best[0]}" if best else "no score"
                self.console.print(f"trial {trial.number} {trial.state} ({trial.reason}): {trial.settings.get('architecture')}, {score}; "
                                   f"{len(self._told)} of {self.conductor.spec.trials} done", highlight=False, soft_wrap=True)  # fmt: skip
