"""Packs in a sweep: which trials a worker is given together, that each is still its own, and when
there are none.
"""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.tune.schedulers import TrialScheduler

from mmm.training.config import make_config
from mmm.training.pack import pack_shape
from search.cluster.actor import TrialActor
from search.cluster.tune import SeatScheduler, SeatSearcher
from search.cluster.watch import Silence
from search.engine.controller import MAX_DEAD_WORKERS, Controller
from search.engine.pack_sizes import PackSizes
from search.ledger.events import create_sweep, open_sweep, read_history
from search.ledger.history import History
from search.ledger.records import PackMeasured
from search.ledger.spec import SweepSpec, parse_packs
from search.messages import orders_of
from search.serial import train
from search.space.sampling import draws, fixing
from search.worker.slices import Slices
from spaces import SPACES
from tests.conftest import Corpus
from tests.sweep_parts import METRIC, SMALL_SPACE, order_of, small_spec


def shape_of(settings: Any) -> Any:
    return pack_shape(make_config({**settings}))


def sweep(folder: Path, spec: SweepSpec) -> tuple[History, list[list[int]]]:
    with create_sweep(folder, spec) as ledger:
        controller = Controller(ledger, spec, SMALL_SPACE, "cpu", lambda: None)
        controller.open_session("mmm-search run")
        together = [[report.number for report in reports] for reports in train(controller)]
        controller.close_session("done")
    return read_history(folder / "ledger.sqlite"), together


@pytest.fixture(scope="module")
def packed(
    corpus: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> tuple[History, list[list[int]]]:
    """A sweep in packs of up to four. Not to be changed by a test."""
    return sweep(
        tmp_path_factory.mktemp("runs") / "packed",
        small_spec(corpus, trials=14, epochs=7, first_rung=2, packs=4),
    )


def test_trials_of_a_pack_have_one_shape_and_settings_of_their_own(
    packed: tuple[History, list[list[int]]],
) -> None:
    history, together = packed
    assert max(len(numbers) for numbers in together) == 4
    for numbers in together:
        assert len({shape_of(history.trials[number].settings) for number in numbers}) == 1
        assert len({history.trials[number].settings["lr"] for number in numbers}) == len(numbers)


def test_each_trial_of_a_pack_is_decided_on_and_ends_as_its_own(
    packed: tuple[History, list[list[int]]],
) -> None:
    history, _ = packed
    assert list(history.trials) == list(range(14))
    assert {trial.state for trial in history.trials.values()} == {"complete", "pruned"}
    for trial in history.trials.values():
        assert [entry.epoch for entry in trial.epochs] == list(range(1, len(trial.epochs) + 1))
        assert len(trial.epochs) in ((7,) if trial.state == "complete" else (2, 6))


def test_a_trial_scores_in_a_pack_what_it_scores_alone(
    corpus: Corpus, packed: tuple[History, list[list[int]]], tmp_path: Path
) -> None:
    history, _ = packed
    for trial in list(history.trials.values())[:6]:
        order = order_of(history.spec, tmp_path, trial.number, trial.settings)
        (report,) = Slices([order]).next()
        assert report.failure is None
        assert report.epochs
        for alone, found in zip(report.epochs, trial.epochs, strict=False):
            assert alone.train_loss == pytest.approx(found.train_loss, abs=1e-6)
            assert alone.metrics["loss"] == pytest.approx(found.metrics["loss"], abs=1e-5)
            assert alone.metrics[METRIC] == found.metrics[METRIC]


def test_queued_points_of_one_shape_are_packed_and_each_is_tried_once(
    corpus: Corpus, tmp_path: Path
) -> None:
    points = [
        {
            "architecture": ("vanilla_concat", "three_way_concat")[place % 2],
            "context": 1 + place // 2 % 2,
            "lr": 0.001 * (place + 1),
        }
        for place in range(12)
    ]
    history, together = sweep(
        tmp_path / "s",
        small_spec(corpus, trials=12, epochs=2, first_rung=2, packs=4, enqueue=points),
    )
    tried = {trial.queued: trial.params for trial in history.trials.values()}
    assert tried == {f"enqueued {place}": point for place, point in enumerate(points)}
    assert max(len(numbers) for numbers in together) == 3  # there are three of each shape


def test_a_killed_sweep_of_packs_goes_on_with_what_was_running(
    corpus: Corpus, tmp_path: Path
) -> None:
    spec = small_spec(corpus, trials=8, epochs=7, first_rung=6, packs=4)
    folder = tmp_path / "killed"
    with create_sweep(folder, spec) as ledger:
        controller = Controller(ledger, spec, SMALL_SPACE, "cpu", lambda: None)
        controller.open_session("mmm-search run")
        Slices(controller.next_orders()).next()  # of which the driver is told nothing any more
    with open_sweep(folder) as ledger:
        controller = Controller(ledger, spec, SMALL_SPACE, "cpu", lambda: None)
        assert len(controller.orders.unfinished) == 4
        controller.open_session("mmm-search resume")
        first = [report.number for report in next(train(controller))]
        assert sorted(first) == [0, 1, 2, 3]


def test_one_failing_trial_leaves_its_pack_and_the_others_go_on(
    corpus: Corpus, tmp_path: Path
) -> None:
    spec = small_spec(corpus, trials=4)
    settings = make_config(
        {"architecture": "vanilla_concat", "epochs": 3, "batch_size": 6, "width": 8}
    ).params()
    orders = [
        order_of(spec, tmp_path, number, {**settings, "lr": lr})
        for number, lr in enumerate((1e-3, 1e38, 1e-2))
    ]
    orders.append(replace(orders[0], number=3, device="cuda:7"))
    slices = Slices(orders)
    failed: dict[int, str] = {}
    finished: list[int] = []
    while slices.members:
        reports = slices.next()
        failed |= {
            report.number: report.failure.reason for report in reports if report.failure is not None
        }
        ended = [
            report.number for report in reports if report.failure is not None or report.is_last
        ]
        finished += [report.number for report in reports if report.is_last]
        slices.leave(ended)
    assert sorted(finished) == [0, 2]
    assert "loss is nan" in failed[1]
    assert "this machine has" in failed[3]


def test_trials_of_a_pack_that_goes_wrong_go_on_alone_from_their_checkpoints(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = small_spec(corpus, trials=4, epochs=7, first_rung=2, factor=2, packs=4, seed=3)

    def no_memory() -> None:
        raise RuntimeError("out of memory")

    with create_sweep(tmp_path / "s", spec) as ledger:
        controller = Controller(ledger, spec, SMALL_SPACE, "cpu", lambda: None)
        orders = controller.next_orders()
        slices = Slices(orders)
        reports, ended = slices.next(), []
        ended = [report.number for report in reports if controller.report(report)]
        slices.leave(ended)
        going = [number for number in range(4) if number not in ended]
        assert len(going) > 1
        monkeypatch.setattr(slices.members[going[1]].run.optimizer, "step", no_memory)
        reports = slices.next()
        assert all(controller.report(report) for report in reports)
        slices.leave(going)
        assert [controller.trials[number].state for number in going] == ["running"] * len(going)
        (order,) = controller.next_orders()
        assert (order.number, order.checkpoints[0].epoch) == (going[0], 2)
        assert Path(order.checkpoints[0].path).is_file()
        (report,) = Slices([order]).next()
        assert report.epochs[0].epoch == 3


def test_members_of_a_pack_whose_worker_died_go_on_alone_and_from_then_on_deaths_count(
    corpus: Corpus, tmp_path: Path
) -> None:
    spec = small_spec(corpus, trials=6, epochs=7, first_rung=6, packs=2)
    with create_sweep(tmp_path / "s", spec) as ledger:
        controller = Controller(ledger, spec, SMALL_SPACE, "cpu", lambda: None)
        numbers = [order.number for order in controller.next_orders()]
        assert len(numbers) == 2
        controller.lose(numbers, "killed", "")
        assert [controller.trials[number].dead_workers for number in numbers] == [0, 0]
        for _ in range(MAX_DEAD_WORKERS):
            assert [controller.trials[number].state for number in numbers] == ["running", "running"]
            for number in numbers:
                (order,) = controller.next_orders()
                assert order.number == number
                assert controller.next_orders([number]) == []
                controller.lose([number], "killed", "")
        assert [controller.trials[number].state for number in numbers] == ["failed", "failed"]
        # Nor does it try such a pack again.
        assert controller.orders.packs.size(controller.trials[numbers[0]].settings, 4) == 1


def test_a_damaged_checkpoint_falls_back_to_the_one_before_it_with_a_warning(
    corpus: Corpus, tmp_path: Path
) -> None:
    spec = small_spec(corpus, trials=1, epochs=9, first_rung=2, factor=2)
    folder = tmp_path / "s"
    with create_sweep(folder, spec) as ledger:
        controller = Controller(ledger, spec, SMALL_SPACE, "cpu", lambda: None)
        reports = train(controller)
        for _ in range(3):
            next(reports)
        reports.close()
        trial = controller.trials[0]
        assert trial.checkpoint is not None
        assert trial.earlier_checkpoint is not None
        assert trial.checkpoint.epoch > trial.earlier_checkpoint.epoch
        path = Path(trial.checkpoint.path)
        path.write_bytes(path.read_bytes()[:-9])
    with open_sweep(folder) as ledger:
        controller = Controller(ledger, spec, SMALL_SPACE, "cpu", lambda: None)
        list(train(controller))
        assert controller.trials[0].state == "complete"
        assert "damaged" in controller.warnings[0]
        assert controller.warnings[0].endswith("went on from the checkpoint before it")
    undisturbed, _ = sweep(tmp_path / "undisturbed", spec)
    found = read_history(folder / "ledger.sqlite").trials[0]
    assert found.scores(METRIC) == undisturbed.trials[0].scores(METRIC)


@pytest.mark.parametrize("name", ["quick", "full"])
def test_companions_differ_from_their_trial_in_what_changes_no_shape(name: str) -> None:
    space = SPACES[name]
    for draw in draws(space, [None] * 20, np.random.default_rng(3)):
        fixed = fixing(space, draw.params, shape_of)
        assert fixed is not None
        free = draw.params.keys() - fixed.keys()
        assert free == {"lr", "dropout"} | (
            {"weight_decay", "label_smoothing", "balance"} if name == "full" else set()
        )
        for companion in draws(space, [None] * 5, np.random.default_rng(4), fixed):
            assert shape_of(companion.settings) == shape_of(draw.settings)


def test_a_space_that_varies_shapes_alone_has_no_companions() -> None:
    space = replace(
        SMALL_SPACE,
        suggest=lambda trial: {
            "architecture": "vanilla_concat",
            "context": trial.suggest_int("context", 1, 5),
        },
    )
    assert fixing(space, {"context": 2}, shape_of) is None


def test_sizes_are_measured_once_for_each_shape_and_a_short_sweep_keeps_its_variety(
    corpus: Corpus,
) -> None:
    sizes = PackSizes(small_spec(corpus, workers=2, trials=100))
    settings = {"architecture": "vanilla_concat", "batch_size": 32}
    assert (
        sizes.size(settings, 90),
        sizes.to_measure(settings, 90),
        sizes.to_measure(settings, 90),
    ) == (1, 16, 1)
    sizes.not_measured(settings)  # whose worker died
    assert sizes.to_measure(settings, 20) == 6
    sizes.measured(settings, 16)
    assert sizes.to_measure(settings, 90) == 1
    assert [sizes.size(settings, left) for left in (90, 60, 20, 4, 0)] == [16, 16, 6, 2, 1]
    assert sizes.size({**settings, "batch_size": 64}, 90) == 1
    assert sizes.to_measure({**settings, "batch_size": 64}, 3) == 1  # too few are left for a pack
    sizes.failed(settings)
    assert sizes.size(settings, 90) == 1


def test_a_size_that_is_asked_for_leaves_work_for_the_other_workers(corpus: Corpus) -> None:
    sizes = PackSizes(small_spec(corpus, workers=4, trials=20, packs=16))
    assert [
        sizes.size({"architecture": "vanilla_concat", "batch_size": 32}, left)
        for left in (100, 19, 3)
    ] == [16, 5, 1]


@pytest.mark.parametrize(
    "changes",
    [{"workers": 1}, {"packs": 1}, {"max_memory_mb": 1000.0}, {"max_ms_per_utterance": 1.0}],
    ids=str,
)
def test_no_packs_where_they_are_off_or_would_change_what_was_asked_for(
    corpus: Corpus, changes: dict[str, Any]
) -> None:
    sizes = PackSizes(small_spec(corpus, **{"workers": 2, "trials": 100, **changes}))
    settings = {"architecture": "vanilla_concat", "batch_size": 32}
    assert sizes.to_measure(settings, 90) == 1
    sizes.measured(settings, 16)
    assert sizes.size(settings, 90) == 1


def test_the_option_is_read_and_refused() -> None:
    assert [parse_packs(text) for text in ("auto", "off", "1", "12")] == [None, 1, 1, 12]
    for wrong in ("0", "-2", "many", "1.5", ""):
        with pytest.raises(ValueError, match="expected auto, off or a number of trials"):
            parse_packs(wrong)


def test_a_worker_measures_packs_and_says_what_they_are_worth(
    corpus: Corpus, tmp_path: Path
) -> None:
    spec = small_spec(corpus, workers=2, trials=40, epochs=7, first_rung=2)
    with create_sweep(tmp_path / "s", spec) as ledger:
        controller = Controller(ledger, spec, SMALL_SPACE, "cpu", lambda: None)
        reports = train(controller)
        next(reports)
        next(reports)
        notes = [event.body for event in _notes(ledger.folder)]
    (note,) = [note for note in notes if isinstance(note, PackMeasured)]
    assert note.architecture == controller.trials[0].settings["architecture"]
    assert note.size in (1, 4, 10)  # of 39 to come, two workers
    assert all(seconds > 0 for seconds in note.seconds.values())
    assert note.seconds.keys() >= {"1", "4"}


class Seat:
    """What Ray Tune hands to a scheduler: a trial of its own, and the handle of the actor that
    trains in it.
    """

    def __init__(self, trial_id: str, config: dict[str, Any]) -> None:
        self.trial_id, self.actor = trial_id, TrialActor(config)
        self.temporary_state = self
        self.ray_actor = self
        self.change = self

    def remote(self, *arguments: Any) -> None:
        TrialActor.change(self.actor, *json.loads(json.dumps(arguments)))


@pytest.mark.parametrize("changes", [{"compute_budget_s": 1e-6}, {"target": 1e-6}], ids=str)
def test_a_budget_that_is_used_up_by_one_of_a_pack_loses_none_of_the_others(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    monkeypatch.setattr("search.worker.slices.SLICE_S", 0.0)  # an epoch a report
    spec = small_spec(corpus, trials=6, epochs=7, first_rung=6, packs=4, **changes)
    folder = tmp_path / "s"
    with create_sweep(folder, spec) as ledger:
        controller = Controller(ledger, spec, SMALL_SPACE, "cpu", lambda: None)
        seats: dict[str, list[int]] = {}
        searcher, scheduler = (
            SeatSearcher(controller, 1, seats),
            SeatScheduler(controller, seats, Silence()),
        )
        config = searcher.suggest("seat")
        assert isinstance(config, dict)
        seat = Seat("seat", json.loads(json.dumps(config)))
        assert scheduler.on_trial_result(None, seat, seat.actor.step()) == TrialScheduler.STOP
        seat.actor.cleanup()
        assert searcher.suggest("another") == SeatSearcher.FINISHED
        running = [
            number for number, trial in controller.trials.items() if trial.state == "running"
        ]
        assert len(running) == 4
    later = replace(spec, compute_budget_s=None, target=None)
    with open_sweep(folder) as ledger:
        controller = Controller(ledger, later, SMALL_SPACE, "cpu", lambda: None)
        controller.open_session("mmm-search resume")
        list(train(controller))
        assert {trial.state for trial in controller.trials.values()} <= {"complete", "pruned"}
        assert len(controller.trials) == 6


def test_while_a_worker_lives_the_search_is_not_over(corpus: Corpus, tmp_path: Path) -> None:
    spec = small_spec(corpus, trials=2, epochs=7, first_rung=6, packs=2)
    with create_sweep(tmp_path / "s", spec) as ledger:
        controller = Controller(ledger, spec, SMALL_SPACE, "cpu", lambda: None)
        seats: dict[str, list[int]] = {}
        searcher, scheduler = (
            SeatSearcher(controller, 1, seats),
            SeatScheduler(controller, seats, Silence()),
        )
        config = searcher.suggest("one")
        assert isinstance(config, dict)
        assert len(orders_of(config["orders"])) == 2
        assert searcher.suggest("two") is None  # not FINISHED, which Ray Tune would remember
        scheduler.on_trial_error(None, SimpleNamespace(trial_id="one", error_file=None))
        again = searcher.suggest("two")
        assert isinstance(again, dict)
        assert [order.number for order in orders_of(again["orders"])] == [0]


def test_a_worker_that_has_lost_a_trial_is_given_up_and_what_it_had_goes_to_others(
    corpus: Corpus, tmp_path: Path
) -> None:
    spec = small_spec(corpus, trials=2, epochs=7, first_rung=6, packs=2)
    with create_sweep(tmp_path / "s", spec) as ledger:
        controller = Controller(ledger, spec, SMALL_SPACE, "cpu", lambda: None)
        seats: dict[str, list[int]] = {}
        searcher, scheduler = (
            SeatSearcher(controller, 1, seats),
            SeatScheduler(controller, seats, Silence()),
        )
        config = searcher.suggest("one")
        assert isinstance(config, dict)
        seat = Seat("one", json.loads(json.dumps(config)))
        TrialActor.change(seat.actor, [1], "[]")  # something that went wrong in it
        result = seat.actor.step()
        assert scheduler.on_trial_result(None, seat, result) == TrialScheduler.STOP
        seat.actor.cleanup()
        for number in (0, 1):
            again = searcher.suggest(f"another {number}")
            assert isinstance(again, dict)
            (order,) = orders_of(again["orders"])
            assert order.number == number
            assert bool(order.checkpoints) == (number == 0)  # of which there was a report
        assert controller.dead_workers == ["trial 1 was not in its report"]
        assert [trial.state for trial in controller.trials.values()] == ["running", "running"]


def test_a_pack_that_goes_wrong_in_a_later_epoch_of_a_slice_saves_no_weights_of_half_an_epoch(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = small_spec(corpus, trials=2, epochs=7, first_rung=6, packs=2)
    with create_sweep(tmp_path / "s", spec) as ledger:
        controller = Controller(ledger, spec, SMALL_SPACE, "cpu", lambda: None)
        slices = Slices(controller.next_orders())
        optimizer = slices.members[1].run.optimizer
        step, num_steps = optimizer.step, 0
        steps_an_epoch = -(-len(slices.members[1].run.train) // 6)

        def no_memory_later() -> None:
            nonlocal num_steps
            num_steps += 1
            if num_steps > steps_an_epoch + 1:
                raise RuntimeError("out of memory")
            step()

        monkeypatch.setattr(optimizer, "step", no_memory_later)
        reports = slices.next()
        assert [len(report.epochs) for report in reports] == [1, 1]
        assert [report.checkpoint for report in reports] == [None, None]
        assert all(report.failure.is_together for report in reports)


def _notes(folder: Path) -> list[Any]:
    from search.ledger.events import read_events

    return [event for event in read_events(folder / "ledger.sqlite") if event.kind == "note"]


def test_packs_give_at_most_an_eighth_of_a_sweeps_trials_to_one_shape(
    corpus: Corpus, tmp_path: Path
) -> None:
    spec = small_spec(corpus, trials=64, workers=2)
    with create_sweep(tmp_path / "sweep", spec) as ledger:
        controller = Controller(ledger, spec, SMALL_SPACE, "cpu", lambda: None)
        (first,) = controller.next_orders()
        for architecture in ("vanilla_concat", "three_way_concat"):
            controller.orders.packs.measured({**first.settings, "architecture": architecture}, 16)
        seat = [first.number]
        for _ in range(20):  # as often as a trial leaves
            seat = [seat[0], *(order.number for order in controller.next_orders(seat))][:2]
        shapes = [shape_of(trial.settings) for trial in controller.trials.values()]
        assert 2 <= shapes.count(shape_of(first.settings)) <= 64 / 8
