"""Training ahead of what was told: never past a decision, nothing lost, nothing told twice."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmm.training.config import make_config
from search.ledger.files import best_file
from search.messages import Cut, Order, Report
from search.worker.slices import Slices
from search.worker.training_thread import Ahead
from tests.conftest import Corpus
from tests.sweep_parts import SMALL, order_of, small_spec

RUNGS = [3, 9]
EPOCHS = 12


@pytest.fixture(autouse=True)
def an_epoch_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.worker.slices.SLICE_S", 0.0)


@pytest.fixture
def ahead(corpus: Corpus, tmp_path: Path) -> Iterator[Ahead]:
    found = Ahead([order(corpus, tmp_path, 0)])
    yield found
    found.stop()


def order(corpus: Corpus, sweep: Path, number: int, **changes: Any) -> Order:
    settings = make_config(
        {"architecture": "vanilla_concat", "epochs": EPOCHS, "lr": 1e-3 * (1 + number), **SMALL}
    ).params()
    return order_of(small_spec(corpus), sweep, number, settings, rungs=RUNGS, **changes)


def settle(ahead: Ahead) -> int:
    """Wait until nothing is trained any more; the epoch that trial 0 is at."""
    with ahead._change:
        assert ahead._change.wait_for(
            lambda: not ahead._is_training and not ahead._may_train, timeout=60
        ), "it does not stop"
        return ahead._slices.members[0].run.epoch


def epochs_of(reports: list[Report], number: int = 0) -> list[int]:
    return [entry.epoch for report in reports if report.number == number for entry in report.epochs]


def test_nothing_is_trained_before_it_is_asked_for(ahead: Ahead) -> None:
    assert settle(ahead) == 0


def test_it_trains_on_up_to_the_rung_and_waits_there_until_asked_again(ahead: Ahead) -> None:
    told = epochs_of(ahead.next())
    assert settle(ahead) == RUNGS[0]
    while told[-1] < RUNGS[0]:
        told += epochs_of(ahead.next())
        assert settle(ahead) == RUNGS[0]
    assert told == [1, 2, 3]
    told += epochs_of(ahead.next())
    assert settle(ahead) == RUNGS[1]


def test_every_epoch_is_told_once_and_as_it_is_without_a_thread(
    ahead: Ahead, corpus: Corpus, tmp_path: Path
) -> None:
    told: list[Report] = []
    while not told or not told[-1].is_last:
        told += ahead.next()
        settle(ahead)  # a driver that takes its time
    alone: list[Report] = []
    slices = Slices([order(corpus, tmp_path / "alone", 0)])
    while not alone or not alone[-1].is_last:
        alone += slices.next()
    assert epochs_of(told) == list(range(1, EPOCHS + 1))
    assert len(told) < len(alone)  # what was ready together was told together
    entries, expected = (
        [entry for report in one for entry in report.epochs] for one in (told, alone)
    )
    for entry, other in zip(entries, expected, strict=True):
        assert entry.train_loss == other.train_loss
        assert entry.metrics == other.metrics
    best = best_file(tmp_path, 0).read_bytes()
    assert best == best_file(tmp_path / "alone", 0).read_bytes()


def test_a_checkpoint_is_of_the_last_epoch_that_is_told_with_it(
    ahead: Ahead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "search.worker.trial.CHECKPOINT_SHARE", math.inf
    )  # one is due after each slice
    for wait in (settle, lambda _: None, settle):
        (report,) = ahead.next()
        assert report.checkpoint.epoch == report.epochs[-1].epoch
        assert Path(report.checkpoint.path).is_file()
        wait(ahead)


def test_a_trial_that_joins_is_in_the_next_report_and_one_that_leaves_is_not(
    ahead: Ahead, corpus: Corpus, tmp_path: Path
) -> None:
    ahead.next()
    settle(ahead)  # slices of trial 0 wait to be told
    ahead.change([], [order(corpus, tmp_path, 1), order(corpus, tmp_path, 2, device="cuda:7")])
    assert sorted(report.number for report in ahead.next()) == [0, 1, 2]
    failure = next(report.failure for report in ahead.next() if report.number == 2)
    assert "cuda" in failure.reason
    ahead.change([2], [])
    reports = ahead.next()
    assert [report.number for report in reports] == [0, 1]
    assert epochs_of(reports, 1)[0] == 1
    settle(ahead)
    ahead.change([0], [])
    assert {report.number for report in ahead.next()} == {1}


def test_a_trial_fails_where_its_checkpoint_cannot_be_written_while_it_is_trained_on(
    ahead: Ahead, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("search.worker.trial.write_bytes", full)
    (report,) = ahead.next()
    assert "No space left" in report.failure.reason
    ahead.change([0], [])
    assert ahead.next() == []


def test_what_ends_the_thread_is_told_to_who_waits(
    ahead: Ahead, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> list[Cut]:
        raise SystemExit("gone")

    monkeypatch.setattr(Slices, "train", broken)
    with pytest.raises(SystemExit, match="gone"):
        ahead.next()


def test_stopping_ends_the_thread(ahead: Ahead) -> None:
    ahead.next()
    ahead.stop()
    assert not ahead._thread.is_alive()
