"""What a sweep shows while it runs: a live table in a terminal, plain lines elsewhere."""

import time
from dataclasses import replace
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mmm.terminal import plain
from search.baseline import Baseline, baseline_of
from search.conductor import Conductor
from search.config import duration
from search.history import History
from search.leaderboard import leaderboard

_REFRESH_PER_S = 1
_ROWS = 12
_RUNNING = 6  # trials named
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
        if "rank" in row:
            cells = [
                str(row["rank"]),
                str(row["trial"]),
                row["state"],
                f"{row['score']:.4f}",
                str(row["best_epoch"]),
            ]
            cells += [
                str(row["epochs"]),
                row["architecture"],
                str(row["context"]),
                *([row["settings"]] if is_wide else []),
            ]
            cells += [f"{row['training_s']:.1f}", *([str(row["data"])] if has_changed else [])]
            if baseline is not None and row["score"] < baseline.metrics[metric]:
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
        f"{baseline.metrics[metric]:.4f}",
        "",
        "",
        "linear",
        str(baseline.settings["context"]),
        *settings,
        f"{baseline.seconds:.1f}",
    ]


class View:
    """Follows a conductor. In a terminal a table that refreshes itself, elsewhere a line whenever a
    trial ends.
    """

    def __init__(self, console: Console, name: str) -> None:
        self.console, self.name = console, name
        self.conductor: Conductor | None = None
        self._doing = ""
        self._told: set[int] = set()
        self._live = Live(
            get_renderable=self.picture,
            console=console,
            refresh_per_second=_REFRESH_PER_S,
            transient=True,
        )

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
        self._told = {
            trial.number for trial in conductor.trials.values() if trial.state != "running"
        }

    def doing(self, what: str) -> None:
        """Say what is done before the first trial, or with "" that it is over."""
        self._doing = what

    def picture(self) -> Group | str:
        """What a terminal shows now."""
        if self.conductor is None:
            return f"sweep {self.name}: starting"
        # The driver's thread adds trials while this one reads: a copy of the dictionary is taken in
        # one step.
        history = replace(self.conductor.ledger.history, trials=dict(self.conductor.trials))
        metric = self.conductor.spec.metric
        running = [trial for trial in history.trials.values() if trial.state == "running"]
        parts: list[Text | Table] = [
            plain(line)
            for line in (
                *head_lines(self.conductor, history),
                *([self._doing] if self._doing else []),
            )
        ]
        if any(trial.epochs for trial in history.trials.values()):
            parts.append(leaderboard_table(history, metric, _ROWS, None, self.console.width))
        if running:
            names = [
                f"#{trial.number} {trial.settings['architecture']} epoch"
                f" {trial.epochs[-1]['epoch'] if trial.epochs else 0}"
                for trial in running[:_RUNNING]
            ]
            more = f"; and {len(running) - _RUNNING} more" if len(running) > _RUNNING else ""
            parts.append(plain(f"running: {'; '.join(names)}{more}"))
        return Group(*parts)

    def changed(self) -> None:
        """Called by the conductor after each change."""
        if (
            self.console.is_terminal
            or self.conductor is None
            or self.conductor.ledger.history.num_ended == len(self._told)
        ):
            return
        metric = self.conductor.spec.metric
        for trial in list(self.conductor.trials.values()):
            if trial.state != "running" and trial.number not in self._told:
                self._told.add(trial.number)
                best = trial.best(metric)
                score = f"{metric} {best[1]:.4f} at epoch {best[0]}" if best else "no score"
                line = (
                    f"trial {trial.number} {trial.state} ({trial.reason}):"
                    f" {trial.settings.get('architecture')}, {score}; "
                )
                line += f"{best_so_far(self.conductor)}; {budget_line(self.conductor)}"
                self.console.print(plain(line), highlight=False, soft_wrap=True)


def head_lines(conductor: Conductor, history: History) -> list[str]:
    """Trials by state; the best score and the workers; the budgets and when the first of them
    ends.
    """
    states = ", ".join(f"{number} {state}" for state, number in counts(history).items() if number)
    efficiency = conductor.efficiency()
    workers = f"{conductor.spec.workers} workers" + (
        "" if efficiency is None else f" at efficiency {efficiency:.2f}"
    )
    return [
        (
            f"sweep {conductor.spec.name}: {states or 'starting workers'}, {workers}, "
            f"{duration(conductor.clock() - conductor.session_started)}"
        ),
        *([best_so_far(conductor)] if history.best else []),
        f"budget: {budget_line(conductor)}",
    ]


def best_so_far(conductor: Conductor) -> str:
    best = conductor.ledger.history.best
    if best is None:
        return "no score yet"
    architecture = conductor.trials[best[1]].settings["architecture"]
    return f"best {conductor.spec.metric} {best[0]:.4f} (trial {best[1]}, {architecture})"


def budget_line(conductor: Conductor) -> str:
    """`31 of 120 trials, 12m of 2h; ends about 14:05 (in 22m)`."""
    line = ", ".join(budget.text for budget in conductor.budgets())
    if conductor.used_up is not None:
        return f"{line}; stopping: {conductor.used_up.why}"
    left = conductor.seconds_left()
    if left is None:
        return line
    end = time.localtime(conductor.clock() + left)
    day = "" if left < 12 * 3600 else "%a "
    return f"{line}; ends about {time.strftime(f'{day}%H:%M', end)} (in {duration(left)})"
