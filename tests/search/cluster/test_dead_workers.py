"""What the controller makes of workers that died, without Ray: trials go on from their checkpoints,
and not for ever.
"""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.trial import TrialState

from search.cluster.deaths import cause_of_death
from search.engine.controller import MAX_DEAD_WORKERS, MAX_NEVER_RAN, Controller
from search.ledger.events import read_events, read_history
from search.ledger.records import DeadWorker
from search.messages import as_json, orders_of, reports_of
from search.results.leaderboard import write_leaderboard
from search.suggest.searcher import Searcher
from search.worker.slices import Slices
from tests.conftest import Corpus
from tests.search.cluster.loss_parts import trained_again
from tests.search.engine.test_controller import Sweep, told
from tests.sweep_parts import METRIC, SMALL_SPACE, small_spec, train_serially

KILLED = """Failure # 1 (occurred at 2026-11-26_18-45-24)
The actor died unexpectedly before finishing this task.
	class_name: with_resources.<locals>.ResourceTrainable
	pid: 6625
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR \
Worker exit detail: Worker unexpectedly exits with a connection error code 2. End of file. \
Some common causes include: (1) the process was killed by the OOM killer.
"""


def one_epoch_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with its checkpoint."""
    monkeypatch.setattr("search.worker.slices.SLICE_S", 0.0)
    monkeypatch.setattr("search.worker.trial.CHECKPOINT_SHARE", 1e9)


def train_one_report(controller: Controller) -> int:
    """A worker that dies after its first report; which trial it had."""
    (order,) = controller.next_orders()
    (report,) = reports_of(as_json(Slices(orders_of(as_json([order]))).next()))
    assert not controller.report(report)
    return order.number


def test_a_trial_whose_worker_died_goes_on_from_its_checkpoint_and_ends_as_if_undisturbed(
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    one_epoch_a_report(monkeypatch)
    spec = small_spec(corpus, trials=3, epochs=7)
    expected = told(Sweep(tmp_path / "undisturbed", spec).run())
    sweep = Sweep(tmp_path / "s", spec)
    controller = sweep.controller()
    for count in range(1, MAX_DEAD_WORKERS):
        assert train_one_report(controller) == 0
        controller.lose([0], "killed", "")
        assert controller.trials[0].dead_workers == count
    for _ in train_serially(controller):
        pass
    assert told(sweep.history) == expected
    events = [event for event in read_events(sweep.folder / "ledger.sqlite") if event.trial == 0]
    epochs = [event.body.epoch for event in events if event.kind == "epoch"]
    assert epochs == list(range(1, 8))  # none was trained twice
    deaths = sweep.history.trials[0].dead_workers
    record_property("lost", f"{trained_again(events)} after {deaths} deaths")
    notes = [
        event.body for event in read_events(sweep.folder / "ledger.sqlite") if event.kind == "note"
    ]
    assert notes == [DeadWorker(0, "killed")] * (MAX_DEAD_WORKERS - 1)
    assert len(controller.dead_workers) == MAX_DEAD_WORKERS - 1


def test_a_trial_fails_when_the_third_worker_that_it_was_alone_in_has_died_in_any_session(
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    one_epoch_a_report(monkeypatch)
    sweep = Sweep(tmp_path / "s", small_spec(corpus, trials=3, epochs=7, first_rung=6))
    for count in range(1, MAX_DEAD_WORKERS + 1):
        controller = sweep.controller(
            packs=1 if count == 1 else 2
        )  # resumed, and then alone though packs are wanted
        assert train_one_report(controller) == 0
        assert controller.trials[0].state == "running"
        controller.lose([0], f"killed {count}", KILLED)
    trial = controller.trials[0]
    assert (trial.state, trial.is_lost, trial.dead_workers, len(trial.epochs)) == (
        "failed",
        True,
        3,
        3,
    )
    assert trial.reason == "3 workers that trained it alone have died, the last one: killed 3"
    found = read_history(sweep.folder / "ledger.sqlite")
    assert found.trials[0] == trial
    assert found.best is None  # what failed does not win
    write_leaderboard(tmp_path / "leaderboard.csv", found, METRIC)
    with open(tmp_path / "leaderboard.csv", encoding="utf-8", newline="") as file:
        row = next(csv.DictReader(file))
    assert (row["trial"], row["state"], row["epochs"], row["reason"]) == (
        "0",
        "failed",
        "3",
        trial.reason,
    )
    # Nobody takes it for bad: the study of this session and a new one's know a failure without
    # scores.
    for searcher in (controller.orders.searcher, Searcher(SMALL_SPACE, METRIC, 1, found.trials)):
        frozen, *_ = searcher.study.trials
        assert (frozen.state, frozen.value) == (TrialState.FAIL, None)
    record_property(
        "lost",
        f"failed after {trial.dead_workers} deaths with {len(trial.epochs)} reported epochs",
    )


def test_a_worker_that_dies_while_the_sweep_is_interrupted_counts_for_nothing(
    corpus: Corpus, tmp_path: Path
) -> None:
    sweep = Sweep(tmp_path / "s", small_spec(corpus, trials=2))
    controller = sweep.controller()
    (order,) = controller.next_orders()
    controller.verdicts.interrupt()
    for _ in range(MAX_DEAD_WORKERS):
        controller.lose([order.number], "killed", "")
    assert (controller.trials[0].state, controller.trials[0].dead_workers) == ("running", 0)


@pytest.mark.parametrize(("most", "num_deaths", "num_failed"), [(0, 24, 8), (5, 15, 5)])
def test_where_every_worker_dies_the_sweep_ends_all_the_same(
    corpus: Corpus, tmp_path: Path, most: int, num_deaths: int, num_failed: int
) -> None:
    sweep = Sweep(tmp_path / "s", small_spec(corpus, trials=8, max_equal_failures=most))
    controller = sweep.controller()
    deaths = 0
    while orders := controller.next_orders():
        deaths += 1
        controller.lose(
            [order.number for order in orders],
            f"pid {4000 + deaths} on 10.0.0.{deaths} was killed",
            "",
        )
    assert (deaths, [trial.state for trial in controller.trials.values()]) == (
        num_deaths,
        ["failed"] * num_failed,
    )
    assert (controller.verdicts.broken_off is not None) == (most > 0)


def test_workers_that_never_began_are_no_fault_of_a_trial_and_end_a_sweep_where_none_begins(
    corpus: Corpus, tmp_path: Path
) -> None:
    sweep = Sweep(tmp_path / "s", small_spec(corpus, trials=2))
    controller = sweep.controller()
    for _ in range(MAX_NEVER_RAN - 1):
        assert [order.number for order in controller.next_orders()] == [0]
        controller.give_back([0], "cancelled")
    for _ in train_serially(controller):
        pass
    assert {trial.state for trial in controller.trials.values()} <= {"complete", "pruned"}
    assert [trial.dead_workers for trial in sweep.history.trials.values()] == [0, 0]
    assert controller.dead_workers == []
    controller = sweep.controller(trials=3)
    while orders := controller.next_orders():
        controller.give_back([orders[0].number], "cancelled")
    assert controller.verdicts.broken_off == (
        f"{MAX_NEVER_RAN} workers one after the other were not started: cancelled"
    )
    assert sweep.history.trials[2].state == "running"  # another session trains it


def test_the_cause_of_death_is_a_sentence_without_rays_advice() -> None:
    assert (
        cause_of_death(KILLED)
        == "Worker unexpectedly exits with a connection error code 2. End of file."
    )
    memory = (
        "Failure # 1\n1 worker(s) were killed due to the node running low on memory.\nSee"
        " https://docs.example/x\nTo disable it, ..."
    )
    assert (
        cause_of_death(memory) == "1 worker(s) were killed due to the node running low on memory."
    )
    assert (
        cause_of_death("Failure # 1\nTraceback\nModuleNotFoundError: No module named 'mmm'\n")
        == "ModuleNotFoundError: No module named 'mmm'"
    )
    assert cause_of_death("") == "no trace was left"
