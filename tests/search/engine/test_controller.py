"""The controller with a real ledger and real training, without Ray: what is ordered, stopped,
resumed, kept and written down.
"""

import itertools
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch

from mmm.training.fit import Diverged, fit
from search.engine.controller import Controller
from search.ledger.events import create_sweep, open_sweep, read_events, read_history
from search.ledger.files import best_weights, trial_folder
from search.ledger.history import History
from search.ledger.records import ClockMoved, RungDecision
from search.ledger.spec import SweepSpec
from search.messages import Report
from search.results.export import export_trial
from search.worker.slices import Slices
from search.worker.trial import _save_costs
from spaces import Space
from tests.conftest import Corpus
from tests.sweep_parts import (
    METRIC,
    SMALL,
    SMALL_SPACE,
    epoch_entry,
    order_of,
    small_spec,
    suggest_small,
    train_serially,
)

BLAST = {
    "lr": 1.0,
    "weight_decay": 200.0,
}  # weights grow 199-fold a step: finite at first, not for long


class Sweep:
    """A sweep's folder, opened by one controller after another."""

    def __init__(self, folder: Path, spec: SweepSpec, space: Space = SMALL_SPACE) -> None:
        self.folder, self.spec, self.space = folder, spec, space
        self._open = ExitStack()

    def controller(self, **changes: Any) -> Controller:
        """A new session, as `run` and `resume` open it; one that was open is left as a killed
        driver leaves it.
        """
        self._open.close()
        parts = {name: changes.pop(name) for name in ("count_parameters",) if name in changes}
        self.spec = replace(self.spec, **changes)
        is_new = not (self.folder / "ledger.sqlite").is_file()
        ledger = self._open.enter_context(
            create_sweep(self.folder, self.spec) if is_new else open_sweep(self.folder)
        )
        controller = Controller(ledger, self.spec, self.space, "cpu", lambda: None, **parts)
        controller.open_session("mmm-search run")
        return controller

    def run(self, **changes: Any) -> History:
        """A whole session."""
        controller = self.controller(**changes)
        for _ in train_serially(controller):
            pass
        controller.close_session("done")
        return self.history

    @property
    def history(self) -> History:
        return read_history(self.folder / "ledger.sqlite")

    def kinds(self, number: int) -> list[str]:
        """What the ledger says of a trial, repeats as one."""
        return [
            kind
            for kind, _ in itertools.groupby(
                e.kind for e in read_events(self.folder / "ledger.sqlite") if e.trial == number
            )
        ]


def told(history: History) -> dict[int, tuple[Any, ...]]:
    """What is to be the same in two sweeps: all but clocks and paths."""
    return {
        trial.number: (
            trial.state,
            trial.reason,
            trial.params,
            trial.settings,
            [(entry.epoch, entry.train_loss, entry.metrics) for entry in trial.epochs],
        )
        for trial in history.trials.values()
    }


def fixed(**settings: Any) -> Space:
    """A space of one point."""
    return Space(lambda trial: {"architecture": "vanilla_concat", **SMALL, **settings})


def by_number(settings_of: Mapping[int, Mapping[str, Any]]) -> Space:
    """The small space, in which some trials have other settings."""
    return Space(lambda trial: {**suggest_small(trial), **settings_of.get(trial.number, {})})


@pytest.fixture(scope="module")
def whole(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """A small sweep from its start to its end. Not to be changed by a test."""
    sweep = Sweep(
        tmp_path_factory.mktemp("runs") / "small",
        small_spec(corpus, trials=8, epochs=7, first_rung=2),
    )
    sweep.run()
    return sweep


def test_a_whole_sweep_trains_every_trial_to_its_end_or_to_the_rung_that_stopped_it(
    whole: Sweep,
) -> None:
    history = whole.history
    assert whole.spec.rungs == [2, 6]
    assert list(history.trials) == list(range(8))
    assert {trial.state for trial in history.trials.values()} == {"complete", "pruned"}
    for trial in history.trials.values():
        epochs = [entry.epoch for entry in trial.epochs]
        assert epochs == list(range(1, len(epochs) + 1))
        if trial.state == "complete":
            assert (len(epochs), trial.reason) == (7, "all 7 epochs")
        else:
            assert len(epochs) in whole.spec.rungs
    assert history.last_close is not None
    assert history.last_close.why == "done"


def test_a_stopped_trial_ends_pruned_with_the_decisions_reason(whole: Sweep) -> None:
    pruned = [trial for trial in whole.history.trials.values() if trial.state == "pruned"]
    assert pruned
    decisions = {
        event.trial: event.body
        for event in read_events(whole.folder / "ledger.sqlite")
        if event.kind == "decision"
    }
    for trial in pruned:
        assert decisions[trial.number] == RungDecision(trial.epoch, "stop", trial.reason)
        assert trial.reason.startswith("rank ")


def test_the_ledger_tells_a_trials_story_in_order(whole: Sweep) -> None:
    first = whole.history.trials[0]
    stopped = next(
        trial
        for trial in whole.history.trials.values()
        if trial.state == "pruned" and len(trial.epochs) == 2
    )
    assert first.state == "complete"  # the first to arrive at a rung goes on
    for number, story in (
        (0, ["epoch", "decision", "epoch", "decision", "epoch", "end"]),
        (stopped.number, ["epoch", "decision", "end"]),
    ):
        kinds = whole.kinds(number)
        assert [
            kind for kind, _ in itertools.groupby(kind for kind in kinds if kind != "checkpoint")
        ] == ["suggest", *story]
        # What a decision may end has to be on the disk before.
        assert all(
            before == "checkpoint"
            for before, kind in itertools.pairwise(kinds)
            if kind == "decision"
        )


def report_epochs(
    controller: Controller, number: int, scores: Sequence[float], *, decides: bool = True
) -> bool:
    """Report the next epochs of a trial as a worker would; without `decides` the driver dies after
    writing them down.
    """
    first = len(controller.trials[number].epochs) + 1
    entries = [epoch_entry(epoch, score) for epoch, score in enumerate(scores, start=first)]
    if not decides:
        controller.ledger.append(*((number, entry) for entry in entries))
        return False
    is_last = entries[-1].epoch == controller.spec.epochs
    return controller.report(Report(number, entries, is_last=is_last))


@pytest.mark.parametrize("is_killed", [False, True])
def test_the_best_trial_so_far_goes_on_at_a_rung_although_little_is_expected_of_it(
    corpus: Corpus, tmp_path: Path, is_killed: bool
) -> None:
    # One system learns fast and gets no further, the other starts lower and ends best.
    fast, slow = (
        ("vanilla_concat", [0.26, 0.30], [0.30] * 5),
        ("three_way_concat", [0.10, 0.20], [0.6] * 5),
    )
    points = tuple(
        {"architecture": name, "context": 1 + number % 3, "lr": 1e-3 * (number + 2)}
        for number, (name, _, _) in enumerate([slow, fast] * 6)
    )
    sweep = Sweep(
        tmp_path / "s",
        small_spec(corpus, trials=14, epochs=7, first_rung=2),
        Space(suggest_small, points),
    )
    controller = sweep.controller(factor=7)
    for name, before, after in [slow, fast] * 5:
        (order,) = controller.next_orders()
        assert order.settings["architecture"] == name
        if not report_epochs(controller, order.number, before) and not report_epochs(
            controller, order.number, after[:4]
        ):
            report_epochs(controller, order.number, after[4:])
    _, fast_one = (controller.next_orders()[0] for _ in range(2))
    assert not report_epochs(controller, fast_one.number, [0.2, 0.3175], decides=not is_killed)
    if is_killed:
        controller = sweep.controller()
        orders = [controller.next_orders()[0] for _ in range(2)]
        assert [order.number for order in orders] == [10, 11]
    trial = sweep.history.trials[11]
    assert (trial.state, trial.decided) == ("running", 2)
    decision = [
        event.body
        for event in read_events(sweep.folder / "ledger.sqlite")
        if event.kind == "decision"
    ][-1]
    assert decision.action == "continue"
    assert re.fullmatch(
        r"rank [3-9] of 11 at epoch 2 by the macro_f1 expected at the end \(0\.\d+\), best 2 go"
        r" on, "
        r"and so does the best macro_f1 so far at epoch 2 \(0\.3175\)",
        decision.reason,
    )


def test_the_same_sweep_again_gives_the_same_trials(whole: Sweep, tmp_path: Path) -> None:
    assert told(Sweep(tmp_path / "again", replace(whole.spec, name="again")).run()) == told(
        whole.history
    )


@pytest.mark.parametrize("num_reports", [1, 2, 6, 9, 13])
def test_a_sweep_killed_after_any_report_goes_on_as_if_undisturbed(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_reports: int
) -> None:
    # Each epoch is a report of its own, so that some were reported after the last checkpoint.
    monkeypatch.setattr("search.worker.slices.SLICE_S", 0.0)
    spec = small_spec(corpus, trials=5, epochs=7)
    expected = told(Sweep(tmp_path / "undisturbed", spec).run())
    sweep = Sweep(tmp_path / "killed", spec)
    for _ in itertools.islice(train_serially(sweep.controller()), num_reports):
        pass
    before = sweep.history
    found = sweep.run()
    assert told(found) == expected
    counts = Counter(
        (event.trial, event.body.epoch)
        for event in read_events(sweep.folder / "ledger.sqlite")
        if event.kind == "epoch"
    )
    again = {key for key, count in counts.items() if count > 1}
    # Nothing that was finished is trained again, and of the interrupted trial no more than what has
    # no checkpoint.
    running = [trial for trial in before.trials.values() if trial.state == "running"]
    allowed = {
        (trial.number, entry.epoch)
        for trial in running
        for entry in trial.epochs
        if entry.epoch > (trial.checkpoint.epoch if trial.checkpoint else 0)
    }
    assert again == allowed


def test_two_kills_of_one_trial_still_give_the_undisturbed_epochs(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.worker.slices.SLICE_S", 0.0)
    spec = small_spec(corpus, trials=2, epochs=7)
    sweep = Sweep(tmp_path / "killed", spec)
    for num_reports in (4, 2):
        for _ in itertools.islice(train_serially(sweep.controller()), num_reports):
            pass
    assert told(sweep.run()) == told(Sweep(tmp_path / "undisturbed", spec).run())


def test_a_checkpoint_written_but_never_recorded_does_not_fail_the_trial(
    corpus: Corpus, tmp_path: Path
) -> None:
    # The driver dies while a worker is between writing a checkpoint and the driver's recording it.
    spec = small_spec(corpus, trials=1, epochs=7, first_rung=2)
    sweep = Sweep(tmp_path / "killed", spec)
    controller = sweep.controller()
    slices = Slices(controller.next_orders())
    assert not controller.report(slices.next()[0])
    assert slices.next()[0].checkpoint.epoch == 6  # never reported
    assert told(sweep.run()) == told(Sweep(tmp_path / "undisturbed", spec).run())


def test_a_trials_first_checkpoint_waits_until_it_is_a_hundredth_of_the_training(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.worker.slices.SLICE_S", 0.0)  # an epoch a report
    sweep = Sweep(tmp_path / "s", small_spec(corpus, trials=2, epochs=7, first_rung=5))
    controller = sweep.controller()
    first, second = (controller.next_orders()[0] for _ in range(2))
    second = replace(second, settings=first.settings)
    slices = Slices([first])
    assert slices.next()[0].checkpoint.epoch == 1  # nothing is known of its cost
    monkeypatch.setattr("search.worker.trial._save_costs", dict.fromkeys(_save_costs, 3600.0))
    slices = Slices([second])
    saved = [report.checkpoint for report in (slices.next()[0] for _ in range(5))]
    # At the rung, where the driver may end it, the best weights have to be on the disk.
    assert [checkpoint and checkpoint.epoch for checkpoint in saved] == [None] * 4 + [5]


def test_a_driver_killed_before_it_decided_at_a_rung_decides_when_it_goes_on(
    corpus: Corpus, tmp_path: Path
) -> None:
    spec = small_spec(corpus, trials=6, epochs=7, first_rung=2)
    expected = Sweep(tmp_path / "undisturbed", spec).run()
    number = next(trial.number for trial in expected.trials.values() if trial.state == "pruned")
    sweep = Sweep(tmp_path / "killed", spec)
    controller = sweep.controller()
    for _ in train_serially(controller):
        if number in controller.trials:
            break
    controller = sweep.controller()
    (order,) = controller.next_orders()
    assert order.number == number
    report = Slices([order]).next()[0]
    controller.ledger.append(
        *((number, entry) for entry in report.epochs),
        (number, report.checkpoint),
    )
    assert told(sweep.run()) == told(expected)


def test_a_driver_killed_before_it_recorded_a_trials_end_ends_it_when_it_goes_on(
    corpus: Corpus, tmp_path: Path
) -> None:
    spec = small_spec(corpus, trials=2, epochs=2)
    sweep = Sweep(tmp_path / "killed", spec)
    controller = sweep.controller()
    report = Slices(controller.next_orders()).next()[0]
    controller.ledger.append(
        *((0, entry) for entry in report.epochs),
    )
    assert told(sweep.run()) == told(Sweep(tmp_path / "undisturbed", spec).run())


def test_a_damaged_checkpoint_fails_its_trial_and_not_the_sweep(
    corpus: Corpus, tmp_path: Path
) -> None:
    sweep = Sweep(tmp_path / "s", small_spec(corpus, trials=2))
    next(train_serially(sweep.controller()))
    checkpoint = sweep.history.trials[0].checkpoint
    assert checkpoint is not None
    path = Path(checkpoint.path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    trials = sweep.run().trials
    assert trials[0].state == "failed"
    assert trials[1].state in ("complete", "pruned")
    assert "damaged: its checksum is not the one that was recorded" in trials[0].reason


def test_a_diverging_trial_fails_with_its_scores_and_the_sweep_goes_on(
    corpus: Corpus, tmp_path: Path
) -> None:
    sweep = Sweep(
        tmp_path / "s", small_spec(corpus, trials=3, epochs=9, first_rung=8), by_number({1: BLAST})
    )
    trials = sweep.run().trials
    assert [trial.state for trial in trials.values()] == [
        "complete",
        "failed",
        "complete",
    ] or trials[2].state == "pruned"
    assert " loss is " in trials[1].reason
    assert "epoch" in trials[1].reason
    end = next(
        e.body
        for e in read_events(sweep.folder / "ledger.sqlite")
        if e.kind == "end" and e.trial == 1
    )
    assert "mmm.training.fit.Diverged" in end.traceback
    with pytest.raises(Diverged):
        list(
            fit(Slices([order_of(sweep.spec, sweep.folder, 1, trials[1].settings)]).members[1].run)
        )
    # It lived for some epochs, and the sampler is to learn where it was.
    assert trials[1].epochs


def test_settings_that_no_model_can_be_built_with_fail_their_trial_only(
    corpus: Corpus, tmp_path: Path
) -> None:
    odd = {
        "architecture": "cross_attention",
        "width": None,
        "heads": 3,
    }  # the text features are 32 wide
    trials = Sweep(tmp_path / "s", small_spec(corpus, trials=3), by_number({1: odd})).run().trials
    assert [trials[number].state == "failed" for number in range(3)] == [False, True, False]
    assert trials[1].reason.startswith("ValueError: ")
    assert "heads" in trials[1].reason


def test_invalid_settings_are_a_failed_trial_and_the_next_one_runs(
    corpus: Corpus, tmp_path: Path
) -> None:
    sweep = Sweep(tmp_path / "s", small_spec(corpus, trials=3), by_number({1: {"dropout": 2.0}}))
    trials = sweep.run().trials
    assert [trials[number].state == "failed" for number in range(3)] == [False, True, False]
    assert (
        trials[1].reason
        == "invalid settings: dropout=2.0 is out of range; expected at least 0 and at most 0.99"
    )
    assert (trials[1].epochs, sweep.kinds(1)) == ([], ["suggest", "end"])


def test_a_space_that_raises_on_a_rare_setting_is_a_failed_trial_and_the_next_one_runs(
    corpus: Corpus, tmp_path: Path
) -> None:
    def suggest(trial: optuna.Trial) -> dict[str, Any]:
        settings = suggest_small(trial)
        return {**settings, "dropout": {0: 0.1, 2: 0.2}[trial.number]}

    trials = Sweep(tmp_path / "s", small_spec(corpus, trials=3), Space(suggest)).run().trials
    assert [trials[number].state == "failed" for number in range(3)] == [False, True, False]
    assert trials[1].reason == "the space failed: KeyError: 1"
    assert trials[1].params.keys() == {"architecture", "context", "lr"}


def test_when_time_is_up_trials_stay_unfinished_and_a_larger_budget_finishes_them(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.worker.slices.SLICE_S", 0.0)
    spec = small_spec(corpus, trials=3, epochs=5)
    sweep = Sweep(tmp_path / "s", spec)
    controller = sweep.controller(time_budget_s=1000.0)
    reports = train_serially(controller)
    next(reports)
    controller.stopwatch.started -= 1000.0
    assert [report.number for report in reports] == [0]
    controller.close_session("time budget")
    assert controller.verdicts.used_up is not None
    assert controller.verdicts.used_up.why == "time budget"
    history = sweep.history
    assert [(t.number, t.state, len(t.epochs)) for t in history.trials.values()] == [
        (0, "running", 2)
    ]
    assert told(sweep.run(time_budget_s=2000.0)) == told(
        Sweep(tmp_path / "undisturbed", spec).run()
    )


def test_a_clock_that_is_set_forward_or_back_uses_up_no_time_budget_in_any_session(
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    monkeypatch.setattr("search.worker.slices.SLICE_S", 0.0)
    began, wall = time.monotonic(), time.time
    sweep = Sweep(tmp_path / "s", small_spec(corpus, trials=4, epochs=3))
    for hours in (0.0, 1.0, -2.0):
        controller = sweep.controller(time_budget_s=600.0)
        next(train_serially(controller))
        monkeypatch.setattr(time, "time", lambda hours=hours: wall() + hours * 3600)
        for _ in range(3):
            next(train_serially(controller), None)
        assert controller.verdicts.used_up is None
        # This session is left as a killed driver leaves it.
    monkeypatch.undo()
    history = sweep.run()
    assert history.last_close is not None
    assert history.last_close.why == "done"
    passed_s = time.monotonic() - began
    assert 0 < history.used_s <= passed_s
    record_property(
        "lost", f"{history.used_s:.1f} s of the budget used in {passed_s:.1f} s, with 3 h of jumps"
    )
    moved = [
        event.body.seconds
        for event in read_events(sweep.folder / "ledger.sqlite")
        if isinstance(event.body, ClockMoved)
    ]
    assert moved == [pytest.approx(3600, abs=5), pytest.approx(-3 * 3600, abs=5)]


def test_time_of_earlier_sessions_counts_against_the_budget(corpus: Corpus, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path / "s", small_spec(corpus, trials=2))
    sweep.run()
    used = sweep.history.used_s
    assert used > 0
    assert sweep.controller(trials=4, time_budget_s=used / 2).next_orders() == []
    assert sweep.controller(trials=4, time_budget_s=used + 1000).next_orders() != []


def test_an_interrupted_controller_orders_nothing_more(corpus: Corpus, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path / "s", small_spec(corpus, trials=3))
    controller = sweep.controller()
    reports = train_serially(controller)
    next(reports)
    controller.verdicts.is_interrupted = True
    assert len(list(reports)) == 1
    assert len(sweep.history.trials) == 1


def test_more_trials_are_added_behind_those_that_ended(corpus: Corpus, tmp_path: Path) -> None:
    expected = told(Sweep(tmp_path / "at once", small_spec(corpus, trials=5)).run())
    sweep = Sweep(tmp_path / "in two", small_spec(corpus, trials=3))
    sweep.run()
    assert told(sweep.run(trials=5)) == expected


def test_identical_settings_run_with_another_seed(corpus: Corpus, tmp_path: Path) -> None:
    trials = Sweep(tmp_path / "s", small_spec(corpus, trials=3, seed=5), fixed()).run().trials
    assert [trial.settings["seed"] for trial in trials.values()] == [5, 6, 7]
    own = Sweep(tmp_path / "own", small_spec(corpus, trials=2), fixed(seed=1024)).run().trials
    assert [trial.settings["seed"] for trial in own.values()] == [1024, 1025]


@pytest.mark.parametrize("keep", [1, 3])
def test_weights_of_the_best_trials_are_kept_and_no_others(
    corpus: Corpus, tmp_path: Path, keep: int
) -> None:
    sweep = Sweep(tmp_path / "s", small_spec(corpus, trials=10, keep=keep))
    history = sweep.run()
    kept = {trial.number for trial in history.ranked(METRIC)[:keep]}
    assert {int(path.parent.name) for path in sweep.folder.glob("trials/*/*.safetensors")} == kept
    assert all(
        (best_weights(sweep.folder, number) is not None) == (number in kept)
        for number in history.trials
    )


def test_every_kept_trial_exports_with_the_score_the_ledger_has(
    whole: Sweep, tmp_path: Path
) -> None:
    # export_trial evaluates what it wrote and refuses another score.
    for trial in whole.history.trials.values():
        assert (
            len(
                export_trial(
                    whole.history, whole.folder, trial.number, tmp_path / str(trial.number)
                )
            )
            == 64
        )


@pytest.mark.parametrize(
    ("num_reports", "written"), [(1, "checkpoint-00002.safetensors"), (8, "best.safetensors")]
)
def test_an_interrupted_trial_is_bundled_as_the_ledger_knows_it_though_its_worker_came_further(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_reports: int, written: str
) -> None:
    monkeypatch.setattr("search.worker.slices.SLICE_S", 0.0)
    monkeypatch.setattr(
        "search.worker.trial.CHECKPOINT_SHARE", 1e9
    )  # each report has its checkpoint
    spec = small_spec(corpus, trials=1, epochs=9, first_rung=9)
    sweep = Sweep(tmp_path / "s", spec, fixed(lr=3e-3))
    controller = sweep.controller()
    (order,) = controller.next_orders()
    slices = Slices([order])
    for _ in range(num_reports):
        assert not controller.report(slices.next()[0])
    slices.next()  # a report that never arrives
    assert (trial_folder(sweep.folder, 0) / written).is_file()
    controller.close_session("interrupted")
    assert len(export_trial(sweep.history, sweep.folder, 0, tmp_path / "bundle")) == 64


def test_an_ended_trial_keeps_its_best_weights_alone(whole: Sweep) -> None:
    # The last one of a worker has no successor at whose start it could be slimmed.
    for number in range(7):
        assert [path.name for path in trial_folder(whole.folder, number).iterdir()] == [
            "best.safetensors"
        ]


def test_reports_never_pass_a_rung(corpus: Corpus, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path / "s", small_spec(corpus, trials=1, epochs=7, first_rung=2))
    ends = [report.epochs[-1].epoch for report in train_serially(sweep.controller())]
    assert ends == [2, 6, 7]


def test_training_seconds_and_time_on_the_clock_give_the_efficiency(whole: Sweep) -> None:
    close = whole.history.last_close
    assert close is not None
    assert 0 < close.efficiency <= 1.05
    assert torch.get_num_threads() == 1
