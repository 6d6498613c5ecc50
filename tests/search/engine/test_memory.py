"""Trials that run out of memory, without Ray: each is tried again with less, at last fails, and
meanwhile nothing begins that would take its memory again.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from search.engine.controller import Controller
from search.engine.memory import next_attempt
from search.ledger.events import read_events, read_history
from search.ledger.records import LostNode, OutOfMemory
from search.messages import as_json, orders_of
from search.worker.slices import Slices
from tests.conftest import Corpus
from tests.search.cluster.loss_parts import trained_again
from tests.search.engine.test_controller import Sweep, told
from tests.sweep_parts import small_spec, train_serially


def test_a_trial_is_tried_with_fewer_beside_it_then_alone_then_in_halves_and_then_not() -> None:
    settings = {"architecture": "mlp_mixer", "batch_size": 8}
    attempts, attempt = [], None
    while (attempt := next_attempt(attempt, 3, settings)) is not None:
        attempts.append(attempt)
    assert attempts == ["fewer", "alone", "half"]
    assert next_attempt(None, 0, settings) == "alone"  # none was beside it
    for change in ({"batch_size": 1}, {"architecture": "linear"}):  # nothing to halve
        assert next_attempt("alone", 0, {**settings, **change}) is None


def begin(controller: Controller) -> list[int]:
    return [order.number for order in controller.next_orders()]


def die(controller: Controller, number: int) -> None:
    controller.lose([number], "low on memory", "Traceback", "memory")


def end(controller: Controller, number: int) -> None:
    controller.fail(number, f"ended {number}", "")


def test_beside_a_trial_that_is_tried_again_none_begins_until_it_is_through(
    corpus: Corpus, tmp_path: Path
) -> None:
    sweep = Sweep(tmp_path / "s", small_spec(corpus, trials=9, workers=3, max_equal_failures=0))
    lines: list[str] = []
    controller = sweep.controller(packs=1)
    controller.tell = lines.append
    assert [begin(controller) for _ in range(3)] == [[0], [1], [2]]
    die(controller, 1)
    assert begin(controller) == [1]  # with the two that were there
    assert begin(controller) == []
    end(controller, 0)
    assert begin(controller) == []
    die(controller, 1)
    assert begin(controller) == []  # it waits until it is alone
    end(controller, 2)
    assert begin(controller) == [1]
    assert begin(controller) == []
    die(controller, 1)
    (order,) = controller.next_orders()
    assert (order.number, order.batch_parts, order.settings["batch_size"]) == (1, 2, 6)
    (again,) = orders_of(as_json([order]))
    assert again.batch_parts == 2
    die(controller, 1)
    trial = controller.trials[1]
    assert (trial.state, trial.is_lost, trial.dead_workers) == ("failed", True, 0)
    assert trial.reason == "out of memory even alone, each batch in two halves: low on memory"
    assert [begin(controller) for _ in range(3)] == [[3], [4], [5]]  # as many as before
    assert read_history(sweep.folder / "ledger.sqlite").trials[1] == trial
    assert lines == [
        "trial 1: out of memory; it goes on with no new trial beside it (low on memory)",
        "trial 1: out of memory; it goes on alone (low on memory)",
        "trial 1: out of memory; it goes on alone, each batch in two halves (low on memory)",
    ]
    assert controller.warnings == lines


def test_two_trials_that_ran_out_of_memory_are_tried_one_after_the_other_in_any_session(
    corpus: Corpus, tmp_path: Path
) -> None:
    sweep = Sweep(tmp_path / "s", small_spec(corpus, trials=9, workers=2, max_equal_failures=0))
    controller = sweep.controller(packs=2)
    assert begin(controller) == [0, 1]
    controller.lose([0, 1], "low on memory", "", "memory")  # nobody knows whose: alone
    assert [begin(controller) for _ in range(2)] == [[0], [1]]
    die(controller, 0)
    die(controller, 1)
    controller = sweep.controller(packs=2)
    assert begin(controller) == [0]
    assert begin(controller) == []
    assert controller.next_orders([0]) == []
    end(controller, 0)
    assert begin(controller) == [1]


def no_memory(*_: Any, **__: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_a_trial_without_memory_on_its_gpu_keeps_its_checkpoint_and_ends_as_if_undisturbed(
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    monkeypatch.setattr("search.worker.slices.SLICE_S", 0.0)
    monkeypatch.setattr("search.worker.trial.CHECKPOINT_SHARE", 1e9)
    spec = small_spec(corpus, trials=2, epochs=7)
    expected = told(Sweep(tmp_path / "undisturbed", spec).run())
    sweep = Sweep(tmp_path / "s", spec)
    controller = sweep.controller()
    orders = controller.next_orders()
    slices, seat = Slices(orders), [orders[0].number]
    controller.hear(seat, slices.next())
    with monkeypatch.context() as patch:
        patch.setattr(slices.members[0].run.optimizer, "step", no_memory)
        ended, orders = controller.hear(seat, slices.next())
        slices.leave(ended)
    assert (ended, seat, [order.number for order in orders]) == ([0], [0], [0])
    assert controller.trials[0].memory_attempt == "alone"
    slices.join(orders)  # the same worker
    (report,) = slices.next()
    assert [epoch.epoch for epoch in report.epochs] == [2]
    controller.hear(seat, [report])
    controller = sweep.controller()
    for _ in train_serially(controller):
        pass
    assert told(sweep.history) == expected
    events = read_events(sweep.folder / "ledger.sqlite")
    record_property("lost", f"no memory once: {trained_again(events)}")


def test_what_even_halves_do_not_fit_fails_for_memory_and_is_no_lost_trial(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = Sweep(tmp_path / "s", small_spec(corpus, trials=1))
    controller = sweep.controller()
    monkeypatch.setattr("mmm.training.adamw.AdamW.step", no_memory)
    for _ in train_serially(controller):
        pass
    trial = sweep.history.trials[0]
    assert (trial.state, trial.is_lost) == ("failed", False)
    assert trial.reason == (
        "out of memory even alone, each batch in two halves: OutOfMemoryError: CUDA out of memory."
        " Tried to allocate 2.00 GiB"
    )
    notes = [event.body for event in read_events(sweep.folder / "ledger.sqlite")]
    attempts = [note.attempt for note in notes if isinstance(note, OutOfMemory)]
    assert attempts == ["alone", "half"]


def test_a_node_that_dies_is_no_fault_of_its_trials_however_often(
    corpus: Corpus, tmp_path: Path
) -> None:
    sweep = Sweep(tmp_path / "s", small_spec(corpus, trials=6, workers=1))
    controller = sweep.controller(packs=2)
    for count in range(1, 9):
        assert begin(controller) == [0, 1]  # together as before
        controller.lose([0, 1], "its node has died", "", "node")
        assert [controller.trials[number].lost_nodes for number in (0, 1)] == [count, count]
    assert {trial.state for trial in controller.trials.values()} == {"running"}
    assert [trial.dead_workers for trial in controller.trials.values()] == [0, 0]
    notes = [event.body for event in read_events(sweep.folder / "ledger.sqlite")]
    assert notes.count(LostNode(0, "its node has died")) == 8
