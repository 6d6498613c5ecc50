"""How the encoders and the systems of a sweep fared with each other: the best score of each pair,
and of how many trials it is the best.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from rich.table import Table

from mmm.console import plain
from search.ledger.history import History
from search.ledger.trial import Trial

NO_TRIAL = "–"
NO_SCORE = "no score"


@dataclass(frozen=True)
class Cross:
    """A row an encoder, a column a system, the last of each for all of them; cells such as
    `0.7056 (12)`.
    """

    kind: str  # speech or text
    systems: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]  # the encoder first

    @property
    def columns(self) -> tuple[str, ...]:
        return self.kind, *self.systems, "all"

    @property
    def title(self) -> str:
        return (
            f"best score of each {self.kind} encoder with each system, and number of trials"
            f" ({NO_TRIAL}: no trial)"
        )


def crosses(history: History, metric: str) -> list[Cross]:
    """A table for speech and one for text, each where the sweep chose among several encoders."""
    spec = history.spec
    found = []
    for kind, there in (("speech", spec.speech_encoders), ("text", spec.text_encoders)):
        names = list(there or {})
        used = {str(t.settings[kind]) for t in history.trials.values() if t.settings.get(kind)}
        names += sorted(used - set(names))
        if len(names) > 1:
            found.append(_cross(history, metric, kind, names))
    return found


def _cross(history: History, metric: str, kind: str, encoders: list[str]) -> Cross:
    trials = list(history.trials.values())
    systems = tuple(
        dict.fromkeys(
            trial.architecture for trial in sorted(trials, key=lambda trial: trial.number)
        )
    )

    def row(encoder: str | None) -> Iterator[str]:
        own = [t for t in trials if encoder is None or t.settings.get(kind) == encoder]
        for system in systems:
            yield _cell([trial for trial in own if trial.architecture == system], metric)
        yield _cell(own, metric)

    rows = [(encoder, *row(encoder)) for encoder in encoders]
    return Cross(kind, systems, (*rows, ("all", *row(None))))


def _cell(trials: list[Trial], metric: str) -> str:
    if not trials:
        return NO_TRIAL
    scores = [best[1] for trial in trials if (best := trial.best(metric))]
    return f"{max(scores):.4f} ({len(trials)})" if scores else f"{NO_SCORE} ({len(trials)})"


def cross_table(cross: Cross) -> Table:
    """For a terminal, below its title."""
    table = Table()
    for name in cross.columns:
        justify: Literal["left", "right"] = "left" if name == cross.kind else "right"
        table.add_column(plain(name), justify=justify, overflow="fold")
    for row in cross.rows:
        table.add_row(*map(plain, row))
    return table
