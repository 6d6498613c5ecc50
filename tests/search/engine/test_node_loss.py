"""What a node's death changes in a search: nothing, where reports come in the same order."""

from collections.abc import Set
from pathlib import Path
from typing import Any

import pytest

from search.engine.controller import Controller
from search.ledger.records import Checkpoint
from search.ledger.spec import SweepSpec
from search.messages import Order, Report
from search.space.load import load_space
from search.suggest.curve_model import NUM_FIRST
from tests.conftest import Corpus
from tests.search.engine.test_controller import Sweep
from tests.sweep_parts import epoch_entry, small_spec

NUM_TRIALS = NUM_FIRST + 8


def spec_of(corpus: Corpus) -> SweepSpec:
    return small_spec(corpus, trials=NUM_TRIALS, epochs=6, first_rung=2, workers=2, packs=1)


class Worker:
    """Trains by formula, an epoch a report."""

    def __init__(self, controller: Controller, *, saves: bool) -> None:
        self.controller, self.saves = controller, saves
        self.seat: list[int] = []
        self.settings: dict[str, Any] = {}
        self.epoch = 0
        self.take(controller.next_orders())

    def take(self, orders: list[Order]) -> None:
        for order in orders:
            self.seat = [order.number]
            self.settings = dict(order.settings)
            self.epoch = max((saved.epoch for saved in order.checkpoints), default=0)

    def report(self) -> None:
        self.epoch += 1
        (number,) = self.seat
        level = 0.5 - abs(float(self.settings["lr"]) - 1e-3) * 50 + 0.02 * self.settings["context"]
        saved = Checkpoint(self.epoch, "0" * 64, f"{number}-{self.epoch}") if self.saves else None
        is_last = self.epoch == self.controller.spec.epochs
        report = Report(
            number,
            [epoch_entry(self.epoch, level * (1 - 0.5**self.epoch))],
            checkpoint=saved,
            is_last=is_last,
        )
        self.take(self.controller.hear(self.seat, [report])[1])


def searched(
    corpus: Corpus, folder: Path, dies_at: Set[tuple[int, int]], *, saves: bool
) -> list[tuple[Any, ...]]:
    """Settings and ends of all trials of a sweep on two workers that report in turn. `dies_at`:
    trials and the epochs after which their nodes die.
    """
    sweep = Sweep(folder, spec_of(corpus), load_space("quick"))
    controller = sweep.controller()
    workers = [Worker(controller, saves=saves) for _ in range(2)]
    waiting = set(dies_at)
    while any(worker.seat for worker in workers):
        for place, worker in enumerate(workers):
            if not worker.seat:
                continue
            worker.report()
            if worker.seat and (worker.seat[0], worker.epoch) in waiting:
                number, epoch = worker.seat[0], worker.epoch
                waiting.remove((number, epoch))
                controller.lose([number], "its node died", "", "node")
                workers[place] = worker = Worker(controller, saves=saves)
                assert worker.seat == [number]
                while worker.epoch < epoch:  # what was lost is trained again
                    worker.report()
    assert not waiting
    controller.close_session("done")
    trials = sweep.history.trials.values()
    assert [trial.lost_nodes for trial in trials if trial.lost_nodes] == [1] * len(dies_at)
    return [(dict(trial.settings), trial.state, trial.reason) for trial in trials]


@pytest.mark.parametrize("saves", [True, False], ids=["with checkpoints", "trained again"])
def test_after_nodes_that_died_the_searcher_suggests_what_it_would_have_without(
    corpus: Corpus, tmp_path: Path, *, saves: bool
) -> None:
    undisturbed = searched(corpus, tmp_path / "whole", set(), saves=saves)
    assert len(undisturbed) == NUM_TRIALS
    ends = [state for _, state, _ in undisturbed]
    assert set(ends) == {"complete", "pruned"}
    # In their first epochs, or behind a rung, before and after the model begins to suggest.
    dies_at = {(number, 3 if end == "complete" else 1) for number, end in enumerate(ends)}
    assert searched(corpus, tmp_path / "lost", dies_at, saves=saves) == undisturbed
