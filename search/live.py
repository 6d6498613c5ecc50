"""What a sweep shows while it runs: a live table in a terminal, plain lines elsewhere."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import IO, Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mmm.console import plain, progress_of, say
from search.engine.controller import Controller
from search.ledger.durations import duration
from search.ledger.history import History
from search.ledger.trial import Trial, Trials
from search.results.leaderboard import counts, leaderboard_table

_REFRESH_PER_S = 1
_ROWS = 12
_RUNNING = 6  # trials named


class View:
    """Follows a controller. Where it is live a table that refreshes itself, elsewhere a line
    whenever a trial ends.
    """

    def __init__(self, console: Console, name: str, *, is_live: bool) -> None:
        self.console, self.name, self.is_live = progress_of(console), name, is_live
        self.controller: Controller | None = None
        self._doing = ""
        self._told: set[int] = set()
        self._live = Live(
            get_renderable=self.picture,
            console=self.console,
            refresh_per_second=_REFRESH_PER_S,
            transient=True,
        )

    def __enter__(self) -> Self:
        if self.is_live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_live:
            self._live.stop()

    def follow(self, controller: Controller) -> None:
        self.controller = controller
        # A resumed sweep has told of these before.
        self._told = {n for n, trial in controller.trials.items() if trial.state != "running"}

    def doing(self, what: str) -> None:
        """Say what is done before the first trial, or with "" that it is over."""
        self._doing = what

    def picture(self) -> Group | str:
        """What a terminal shows now."""
        if self.controller is None:
            return f"sweep {self.name}: starting"
        # The driver's thread adds trials while this one reads: a copy of the dictionary is taken in
        # one step.
        history = replace(self.controller.ledger.history, trials=Trials(self.controller.trials))
        metric = self.controller.spec.metric
        running = [trial for trial in history.trials.values() if trial.state == "running"]
        lines = [*head_lines(self.controller, history), *([self._doing] if self._doing else [])]
        parts: list[Text | Table] = [plain(line) for line in lines]
        if any(trial.epochs for trial in history.trials.values()):
            parts.append(leaderboard_table(history, metric, _ROWS, None, self.console.width))
        if running:
            names = [
                f"#{trial.number} {trial.settings['architecture']} {_where(trial)}"
                for trial in running[:_RUNNING]
            ]
            more = f"; and {len(running) - _RUNNING} more" if len(running) > _RUNNING else ""
            parts.append(plain(f"running: {'; '.join(names)}{more}"))
        return Group(*parts)

    def changed(self) -> None:
        """Called by the controller after each change."""
        if (
            self.is_live
            or self.controller is None
            or self.controller.ledger.history.num_ended == len(self._told)
        ):
            return
        metric = self.controller.spec.metric
        for trial in list(self.controller.trials.values()):
            if trial.state != "running" and trial.number not in self._told:
                self._told.add(trial.number)
                best = trial.best(metric)
                score = "no score"
                if best:
                    over = f", mean of {trial.num_folds} folds," if trial.num_folds > 1 else ""
                    score = f"{metric} {best[1]:.4f}{over} at epoch {best[0]}"
                elif scores := trial.scores(metric):
                    score = f"{metric} {max(scores.values()):.4f} in the first fold"
                say(
                    self.console,
                    f"trial {trial.number} {trial.state} ({trial.reason}):"
                    f" {trial.settings.get('architecture')}, {score};"
                    f" {best_so_far(self.controller)}; {budget_line(self.controller)}",
                )


def head_lines(controller: Controller, history: History) -> list[str]:
    """Trials by state; the best score and the workers; the budgets and when the first of them
    ends.
    """
    spec, watch = controller.spec, controller.stopwatch
    states = ", ".join(f"{number} {state}" for state, number in counts(history).items() if number)
    efficiency = watch.efficiency()
    workers = f"{spec.workers} workers"
    workers += "" if efficiency is None else f" at efficiency {efficiency:.2f}"
    took = duration(watch.session_s())
    return [
        f"sweep {spec.name}: {states or 'starting workers'}, {workers}, {took}",
        *([best_so_far(controller)] if history.best else []),
        f"budget: {budget_line(controller)}",
    ]


def _where(trial: Trial) -> str:
    if trial.num_folds == 1:
        return f"epoch {trial.epoch}"
    epochs = trial.epochs if trial.fold == 1 else trial.later_folds.get(trial.fold, [])
    return f"fold {trial.fold} epoch {epochs[-1].epoch if epochs else 0}"


def best_so_far(controller: Controller) -> str:
    best = controller.ledger.history.best
    if best is None:
        return "no score yet"
    architecture = controller.trials[best[1]].settings["architecture"]
    return f"best {controller.spec.metric} {best[0]:.4f} (trial {best[1]}, {architecture})"


def budget_line(controller: Controller) -> str:
    """`31 of 120 trials, 12m of 2h; ends about 14:05 (in 22m)`."""
    line = ", ".join(budget.text for budget in controller.verdicts.budgets())
    if controller.verdicts.used_up is not None:
        return f"{line}; stopping: {controller.verdicts.used_up.why}"
    left = controller.verdicts.seconds_left()
    if left is None:
        return line
    end = time.localtime(controller.stopwatch.clock() + left)
    day = "" if left < 12 * 3600 else "%a "
    return f"{line}; ends about {time.strftime(f'{day}%H:%M', end)} (in {duration(left)})"


class _Voice:
    """A stream that falls silent where it cannot be written to any more, instead of ending the
    sweep.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream, self._is_terminal = stream, stream.isatty()

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except OSError:
            self._fall_silent()
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._fall_silent()

    def isatty(self) -> bool:
        # A closed one is none any more, and what was begun on it has to be ended.
        return self._is_terminal

    def _fall_silent(self) -> None:
        # What is buffered goes there too: Python would fail on it at its end.
        with contextlib.suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def lasting(console: Console) -> Iterator[None]:
    """Let a console be silent where it would raise an OSError."""
    stream = console.file
    console.file = _Voice(stream)  # type: ignore[assignment]
    try:
        yield
    finally:
        # A console without a file of its own follows what is put in the place of these.
        its_own = stream not in (sys.stdout, sys.stderr)
        console.file = stream if its_own else None  # type: ignore[assignment]
