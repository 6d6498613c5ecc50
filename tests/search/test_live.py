"""What a sweep shows while it runs, by a controller that is told made-up reports at made-up
times.
"""

import io
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from search.engine.controller import Controller
from search.ledger.events import Ledger, create_sweep
from search.live import View, budget_line
from search.messages import Report
from tests.conftest import Corpus
from tests.sweep_parts import SMALL_SPACE, epoch_entry, small_spec

NOON = time.mktime((2026, 1, 5, 12, 0, 0, 0, 0, -1))


class Told:
    """A sweep of seven trials at 12:00: each two epochs of 30 s, with a view on it."""

    def __init__(self, ledger: Ledger, width: int, *, is_terminal: bool, **changes: Any) -> None:
        spec = replace(ledger.history.spec, **changes)
        self.now = NOON
        self.console = Console(
            file=io.StringIO(), width=width, force_terminal=is_terminal, color_system=None
        )
        self.view = View(self.console, spec.name, is_live=is_terminal)
        self.controller = Controller(
            ledger, spec, SMALL_SPACE, "cpu", self.view.changed, clock=lambda: self.now
        )
        self.controller.open_session("mmm-search run")

    def order(self) -> int:
        return self.controller.next_orders()[0].number

    def train(self, number: int, epoch: int, score: float) -> None:
        self.now += 30.0
        entry = replace(epoch_entry(epoch, score), seconds=30.0, alone_seconds=30.0, ended=self.now)
        self.controller.report(Report(number, [entry], is_last=epoch == 2))

    @property
    def picture(self) -> list[str]:
        with self.console.capture() as shown:
            self.console.print(self.view.picture())
        return shown.get().splitlines()

    @property
    def printed(self) -> list[str]:
        assert isinstance(self.console.file, io.StringIO)
        return self.console.file.getvalue().splitlines()


@pytest.fixture
def ledger(corpus: Corpus, tmp_path: Path) -> Iterator[Ledger]:
    spec = small_spec(corpus, trials=7, epochs=2, workers=2, time_budget_s=3600.0)
    with create_sweep(tmp_path / "small", spec) as opened:
        yield opened


@pytest.mark.parametrize("width", [80, 140])
def test_a_terminal_shows_states_best_workers_budgets_and_end_within_its_width(
    ledger: Ledger, width: int
) -> None:
    sweep = Told(ledger, width, is_terminal=True)
    assert sweep.picture == ["sweep small: starting"]
    sweep.view.follow(sweep.controller)
    assert sweep.picture == [
        "sweep small: starting workers, 2 workers, 0s",
        "budget: 0 of 7 trials, 0s of 1h",
    ]
    for number in range(3):
        assert sweep.order() == number
        sweep.train(number, 1, 0.1 * number)
        if number < 2:
            sweep.train(number, 2, 0.3)
    lines = sweep.picture
    best = sweep.controller.trials[0].settings["architecture"]
    running = sweep.controller.trials[2].settings["architecture"]
    assert lines[:3] == [
        "sweep small: 1 running, 2 complete, 2 workers at efficiency 0.50, 2m30s",
        f"best macro_f1 0.3000 (trial 0, {best})",
        "budget: 2 of 7 trials, 2m30s of 1h; ends about 12:08 (in 6m15s)",
    ]
    assert lines[-1] == f"running: #2 {running} epoch 1"
    table = lines[3:-1]
    assert len({len(line) for line in table}) == 1
    assert all(len(line) <= width for line in lines)
    assert ("settings" in table[1]) == (width == 140)


def test_many_workers_do_not_push_the_table_off_the_screen(ledger: Ledger) -> None:
    sweep = Told(ledger, 80, is_terminal=True, trials=64)
    sweep.view.follow(sweep.controller)
    for _ in range(40):
        sweep.order()
    shown = " ".join(sweep.picture)
    assert shown.endswith(
        "#5 " + sweep.controller.trials[5].settings["architecture"] + " epoch 0; and 34 more"
    )


def test_elsewhere_each_end_is_one_plain_line(ledger: Ledger) -> None:
    sweep = Told(ledger, 80, is_terminal=False, patience=5)
    sweep.view.follow(sweep.controller)
    with sweep.view:
        for number in range(2):
            sweep.order()
            sweep.train(number, 1, 0.2)
            sweep.train(number, 2, 0.1)
        sweep.controller.fail(sweep.order(), "no reason", "")
    names = [trial.settings["architecture"] for trial in sweep.controller.trials.values()]
    best = f"best macro_f1 0.2000 (trial 0, {names[0]})"
    assert sweep.printed == [
        (
            f"trial 0 complete (all 2 epochs): {names[0]}, macro_f1 0.2000 at epoch 1; {best}; 1 of"
            " 7 trials, 1m of 1h, 0 of 5 trials since the best; ends about 12:07 (in 6m)"
        ),
        (
            f"trial 1 complete (all 2 epochs): {names[1]}, macro_f1 0.2000 at epoch 1; {best}; 2 of"
            " 7 trials, 2m of 1h, 1 of 5 trials since the best; ends about 12:07 (in 5m)"
        ),
        (
            f"trial 2 failed (no reason): {names[2]}, no score; {best}; 3 of 7 trials, 2m of 1h, 2"
            " of 5 trials since the best; ends about 12:04 (in 2m40s)"
        ),
    ]


@pytest.mark.parametrize("is_terminal", [False, True])
def test_markup_in_settings_and_reasons_is_shown_and_does_nothing(
    ledger: Ledger, is_terminal: bool
) -> None:
    sweep = Told(ledger, 200, is_terminal=is_terminal)
    sweep.view.follow(sweep.controller)
    sweep.order()
    sweep.controller.trials[0].params["[/note]"] = "[/red]\x1b[31m"
    sweep.train(0, 1, 0.2)
    sweep.train(0, 2, 0.2)
    sweep.controller.fail(sweep.order(), "[/red]\x1b[31m", "")
    assert r"[/note]=[/red]\x1b[31m" in "\n".join(sweep.picture)
    if not is_terminal:
        assert sweep.printed[1].startswith(r"trial 1 failed ([/red]\x1b[31m): ")
    assert "\x1b[31m" not in "\n".join([*sweep.picture, *sweep.printed])


def test_a_far_end_has_its_day(ledger: Ledger) -> None:
    sweep = Told(ledger, 80, is_terminal=False, time_budget_s=36 * 3600.0)
    sweep.order()
    sweep.train(0, 1, 0.1)
    assert (
        budget_line(sweep.controller)
        == "0 of 7 trials, 30s of 36h; ends about Wed 00:00 (in 35h59m)"
    )


def test_a_used_up_budget_is_seen_to_stop_what_runs(ledger: Ledger) -> None:
    sweep = Told(ledger, 80, is_terminal=False, time_budget_s=20.0)
    sweep.order()
    sweep.train(0, 1, 0.1)
    assert budget_line(sweep.controller) == "0 of 7 trials, 30s of 20s; stopping: time budget"
