"""What a sweep may use and a trial may cost, over sessions and kills; points a person enqueues;
settings that come again.
"""

import itertools
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmm.models import ARCHITECTURES
from search.engine.budgets import broken_constraint, budgets, seconds_left, used_up
from search.ledger.durations import duration, parse_duration
from search.ledger.events import Entry
from search.ledger.records import Close, End, EndState, Event, Suggestion
from search.ledger.spec import SweepSpec
from search.plan.checks import check
from search.results.export import export_trial
from search.results.kept import best_trial
from search.results.page.cost import pareto_front
from search.results.report import write_report
from search.space.enqueue import as_params, read_points
from search.space.settings import SettingsCheck, trial_config
from search.suggest.searcher import Searcher
from search.worker.slices import Slices
from spaces import SPACES, Space
from tests.conftest import Corpus
from tests.search.engine.test_controller import Sweep, fixed, told
from tests.sweep_parts import (
    METRIC,
    call_here,
    epoch_entry,
    events_of,
    history_of,
    small_spec,
    suggest_small,
    train_serially,
)

SPEC = SweepSpec("s", "quick", "manifest.csv", "features", trials=40, epochs=9, workers=2)


def trial_events(
    number: int, scores: Mapping[int, float], state: EndState | None = "complete"
) -> list[Entry]:
    entries: list[Entry] = [(number, Suggestion({}, {}, {}))]
    entries += [(number, epoch_entry(*pair)) for pair in scores.items()]
    return entries if state is None else [*entries, (number, End(state, ""))]


def test_every_budget_is_counted_from_the_history() -> None:
    spec = replace(
        SPEC,
        time_budget_s=7200.0,
        compute_budget_s=1.0,
        gpu_hours=0.001,
        gpus_per_trial=0.5,
        target=0.8,
        patience=3,
    )
    history = history_of(
        SPEC,
        *trial_events(0, {1: 0.5, 2: 0.6}),
        *trial_events(1, {1: 0.4}, "pruned"),
        *trial_events(2, {1: 0.1}, None),
    )
    found = {budget.option: budget for budget in budgets(spec, history, 720.0)}
    assert {option: round(budget.share, 6) for option, budget in found.items()} == {
        "--trials": 0.05,
        "--time-budget": 0.1,
        "--compute-budget": 0.4,
        "--gpu-hours": round(0.4 * 0.5 / 3.6, 6),
        "--target": 0.75,
        "--patience": round(1 / 3, 6),
    }
    assert [budget.text for budget in found.values()] == [
        "2 of 40 trials",
        "12m of 2h",
        "0s of 1s of training",
        "0.00 of 0.001 GPU hours",
        "score 0.6000 of 0.8",
        "1 of 3 trials since the best",
    ]
    assert [budget.option for budget in budgets(SPEC, history, 720.0)] == ["--trials"]


@pytest.mark.parametrize(
    ("name", "value", "larger", "why"),
    [
        ("time_budget_s", 60.0, 61.0, "time budget"),
        ("compute_budget_s", 0.3, 0.4, "compute budget"),
        ("gpu_hours", 2e-5, 1e-4, "GPU hours"),
        ("target", 0.6, 0.61, "target reached"),
        ("patience", 2, 3, "no improvement for 2 trials"),
    ],
)
def test_a_budget_that_is_used_up_says_why_the_session_ends(
    name: str, value: float, larger: float, why: str
) -> None:
    spec = replace(SPEC, gpus_per_trial=0.25, trials=3)
    history = history_of(
        SPEC, *trial_events(0, {1: 0.6}), *trial_events(1, {1: 0.4}), *trial_events(2, {1: 0.6})
    )
    found = used_up(budgets(replace(spec, **{name: value}), history, 60.0))
    assert found is not None
    assert (found.why, found.option) == (why, f"--{name.removesuffix('_s').replace('_', '-')}")
    # Nor does that of trials, which is used up here, stop those that run.
    assert used_up(budgets(replace(spec, **{name: larger}), history, 60.0)) is None


def test_a_failed_trial_is_not_the_best_and_counts_as_one_without_improvement() -> None:
    history = history_of(SPEC, *trial_events(0, {1: 0.5}), *trial_events(1, {1: 0.9}, None))
    assert (history.best, history.ended_since_best) == ((0.9, 1), 0)
    history.apply(Event(9, 9.0, 1, End("failed", "")))
    assert (history.best, history.ended_since_best) == ((0.5, 0), 1)


def test_the_end_is_predicted_at_the_rate_so_far_and_by_the_first_budget() -> None:
    spec = replace(SPEC, time_budget_s=1000.0, compute_budget_s=2.0)
    history = history_of(SPEC)
    before = budgets(spec, history, 100.0)
    assert seconds_left(budgets(SPEC, history, 0.0), budgets(SPEC, history, 5.0), 5.0) is None
    now = budgets(spec, history_of(SPEC, *trial_events(0, {1: 0.5, 2: 0.6})), 110.0)
    assert seconds_left(before, now, 10.0) == pytest.approx(90.0)  # 0.2 of 2 s of training in 10 s
    assert seconds_left(before[:1], now[:1], 10.0) == pytest.approx(390.0)
    assert seconds_left(before[:2], budgets(spec, history, 950.0)[:2], 850.0) == pytest.approx(50.0)


@pytest.mark.parametrize("seconds", [45, 720, 750, 3600, 3900, 7200, 36_000])
def test_a_duration_is_written_as_it_is_read(seconds: int) -> None:
    assert parse_duration(duration(seconds)) == seconds


def test_training_stops_when_the_compute_budget_is_used_up_and_a_larger_one_goes_on(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.worker.slices.SLICE_S", 0.0)
    spec = small_spec(corpus, trials=3, epochs=5)
    sweep = Sweep(tmp_path / "s", spec)
    # Killed after two epochs: what it trained is used, and is counted again where it has to be
    # trained again.
    for _ in itertools.islice(train_serially(sweep.controller()), 2):
        pass
    used = sweep.history.trained_s
    assert used == sum(entry.seconds for entry in sweep.history.trials[0].epochs)
    controller = sweep.controller(compute_budget_s=used)
    assert controller.next_orders() == []
    controller = sweep.controller(compute_budget_s=used + 1e-6)
    assert len(list(train_serially(controller))) == 1
    controller.close_session("compute budget")
    assert controller.verdicts.used_up is not None
    assert controller.verdicts.used_up.why == "compute budget"
    assert sweep.history.trials[0].state == "running"
    assert (
        sweep.history.trained_s
        > sum(entry.seconds for entry in sweep.history.trials[0].epochs) - 1e-9
    )
    assert told(sweep.run(compute_budget_s=1000.0)) == told(
        Sweep(tmp_path / "undisturbed", spec).run()
    )


def test_a_sweep_that_reaches_its_target_stops_with_weights_of_that_score(
    corpus: Corpus, tmp_path: Path
) -> None:
    spec = small_spec(corpus, trials=8, epochs=9, first_rung=2)
    scores = [
        best[1]
        for trial in Sweep(tmp_path / "whole", spec).run().trials.values()
        if (best := trial.best(METRIC))
    ]
    target = max(scores)
    sweep = Sweep(tmp_path / "s", spec)
    history = sweep.run(target=target)
    first = next(number for number, score in enumerate(scores) if score >= target)
    assert list(history.trials) == list(range(first + 1))
    winner = best_trial(history)
    assert winner is not None
    assert winner.number == first
    assert len(export_trial(history, sweep.folder, None, tmp_path / "bundle")) == 64
    assert told(sweep.run(target=1.0)) == told(Sweep(tmp_path / "whole", spec).history)


def test_a_score_without_weights_does_not_reach_the_target(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.worker.slices.SLICE_S", 0.0)
    sweep = Sweep(tmp_path / "s", small_spec(corpus, trials=1, epochs=5, first_rung=3))
    controller = sweep.controller(target=1e-6)
    slices = Slices(controller.next_orders())
    for epoch in (1, 2, 3):
        report = slices.next()[0]
        if epoch < 3:
            report = replace(report, checkpoint=None)  # as where the last one is young
        assert controller.report(report) == (epoch == 3)
    assert best_trial(sweep.history) is None  # it runs, and so may other sessions
    sweep.controller(target=1e-6).close_session("target reached")
    history = sweep.history
    assert history.trials[0].state == "running"
    assert len(export_trial(history, sweep.folder, None, tmp_path / "bundle")) == 64


def test_a_sweep_without_improvement_stops(corpus: Corpus, tmp_path: Path) -> None:
    scores = [1, 3, 2, 3, 4, 0, 0, 0, 0]
    history = history_of(SPEC)
    ends = []
    for number, score in enumerate(scores):
        for event in events_of(*trial_events(number, {1: score / 10})):
            history.apply(event)
        ends.append(history.ended_since_best)
    assert ends == [0, 0, 1, 2, 0, 1, 2, 3, 4]
    sweep = Sweep(tmp_path / "s", small_spec(corpus, trials=30, epochs=1), fixed(lr=1e-12))
    assert len(sweep.run(patience=3).trials) < 30
    assert sweep.history.ended_since_best == 3


@pytest.mark.slow
def test_resume_with_a_used_up_budget_says_so_and_what_to_change(
    corpus: Corpus,
    empty_store: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copy(empty_store, tmp_path)
    sweep = Sweep(tmp_path / "small", small_spec(corpus, trials=3))
    for _ in itertools.islice(train_serially(sweep.controller()), 2):
        pass
    sweep._open.close()
    status, out, err = call_here(
        capsys,
        monkeypatch,
        "resume",
        "small",
        "--runs",
        tmp_path,
        "--patience",
        "9",
        "--time-budget",
        "0.001s",
    )
    assert status == 0
    assert "error" not in err
    assert "nothing was trained, for what was given is used up: time budget (" in out
    assert f"go on with more: mmm-search resume small --runs {tmp_path} --time-budget ..." in out
    close = sweep.history.last_close
    assert close is not None
    assert close == Close("time budget", close.seconds, efficiency=None, first_step_s=None)
    assert close.seconds == pytest.approx(0, abs=60)
    sweep.run(time_budget_s=1000.0)
    sweep._open.close()
    assert (
        "nothing was left to train; try more settings with: "
        in call_here(capsys, monkeypatch, "resume", "small", "--runs", tmp_path)[1]
    )


def test_a_model_that_is_too_large_fails_without_training(corpus: Corpus, tmp_path: Path) -> None:
    def suggest(trial: Any) -> dict[str, Any]:
        return {**suggest_small(trial), "width": 8 if trial.number % 2 else 64}

    spec = small_spec(corpus, trials=4, max_parameters=5000)
    sweep = Sweep(tmp_path / "s", spec, Space(suggest))
    controller = sweep.controller(count_parameters=SettingsCheck(spec))
    for _ in train_serially(controller):
        pass
    trials = sweep.history.trials
    assert [trial.state == "failed" for trial in trials.values()] == [True, False, True, False]
    count = trials[0].num_parameters
    assert trials[0].reason == f"constraint: {count:,} parameters, at most 5,000"
    assert trials[0].epochs == []
    assert controller.orders.searcher.study.trials[0].state.name == "FAIL"
    weights = list((sweep.folder / "trials" / "00001").glob("*.safetensors"))
    assert len(weights) == 1
    assert 0 < (trials[1].num_parameters or 0) <= 5000


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_parameters_are_those_of_the_model_that_is_trained(
    corpus: Corpus, architecture: str
) -> None:
    from mmm.training.run import begin

    spec = small_spec(corpus)
    count = SettingsCheck(spec)
    for more in ({}, {"classifier_hidden": 7}, {"masked": False}, {"context": 2}):
        config = trial_config({"architecture": architecture, "context": 1, **more}, spec)
        run = begin(config, corpus.features(context=config.context))
        assert count(config.params()) == sum(
            parameter.numel() for parameter in run.model.parameters()
        )


def test_a_sweep_none_of_whose_models_is_small_enough_is_refused(corpus: Corpus) -> None:
    with pytest.raises(
        ValueError,
        match=(
            r"--max-parameters 10: no model that the space was seen to make is that small; the"
            r" smallest has \d"
        ),
    ):
        check(small_spec(corpus, max_parameters=10))


@pytest.mark.parametrize(
    ("changes", "epochs", "reason"),
    [
        ({"max_ms_per_utterance": 1e-6}, 2, "ms per utterance, at most 1e-06"),
        ({"max_memory_mb": 1.0}, 1, "MB of memory, at most 1"),
    ],
)
def test_a_trial_that_costs_too_much_fails_as_soon_as_it_is_known(
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, float],
    epochs: int,
    reason: str,
) -> None:
    monkeypatch.setattr("search.worker.slices.SLICE_S", 0.0)
    trial = Sweep(tmp_path / "s", small_spec(corpus, trials=1, **changes)).run().trials[0]
    assert (trial.state, len(trial.epochs)) == ("failed", epochs)
    assert trial.reason.startswith("constraint: ")
    assert trial.reason.endswith(reason)


def test_the_least_time_and_the_most_memory_of_a_trials_epochs_count() -> None:
    spec = replace(SPEC, max_ms_per_utterance=2.5, max_memory_mb=4000.0)
    slow_start = [
        replace(epoch_entry(1, 0.5), ms_per_utterance=9.0, memory_mb=3000.0),
        replace(epoch_entry(2, 0.5), ms_per_utterance=2.0, memory_mb=4000.0),
    ]
    assert broken_constraint(spec, None, slow_start) is None
    assert broken_constraint(spec, None, [epoch_entry(1, 0.5)]) is None
    assert broken_constraint(spec, None, slow_start[:1]) is None
    assert (
        broken_constraint(replace(spec, epochs=1), None, slow_start[:1])
        == "constraint: 9.0 ms per utterance, at most 2.5"
    )
    assert (
        broken_constraint(spec, None, slow_start[:1] * 2)
        == "constraint: 9.0 ms per utterance, at most 2.5"
    )
    assert (
        broken_constraint(
            spec, None, [*slow_start, replace(epoch_entry(3, 0.5), memory_mb=4120.372)]
        )
        == "constraint: 4,120.37 MB of memory, at most 4,000"
    )


def test_the_front_has_what_nothing_cheaper_or_equally_cheap_matches() -> None:
    points = [
        (3.0, 0.9, 0),
        (1.0, 0.5, 1),
        (2.0, 0.5, 2),
        (2.0, 0.7, 3),
        (2.0, 0.7, 4),
        (1.0, 0.4, 5),
        (9.0, 0.9, 6),
    ]
    assert pareto_front(points) == [(1.0, 0.5, 1), (2.0, 0.7, 3), (3.0, 0.9, 0)]
    assert pareto_front([]) == []


def test_the_report_sets_score_against_the_cost_that_all_trials_have(
    corpus: Corpus, tmp_path: Path
) -> None:
    spec = small_spec(corpus, trials=3)
    sweep = Sweep(tmp_path / "s", spec)
    for _ in train_serially(sweep.controller(count_parameters=SettingsCheck(spec))):
        pass
    history = sweep.history
    costs = ["milliseconds per utterance", "parameters", "seconds per epoch"]
    for cost in costs:
        write_report(tmp_path / "report.html", history)
        text = (tmp_path / "report.html").read_text()
        assert f"<figcaption>Score against {cost}; " in text
        assert f'<td class="number">{history.best[1] if history.best else None}</td>' in text
        # Without what was measured, the next cost is taken.
        if cost == costs[0]:
            for trial in history.trials.values():
                trial.epochs = [replace(entry, ms_per_utterance=None) for entry in trial.epochs]
        else:
            history.trials[1].num_parameters = None


POINTS = [
    {"architecture": "vanilla_concat", "context": context, "lr": 1e-2} for context in (3, 1, 2)
]
KNOWN = Space(suggest_small, ({"architecture": "three_way_concat", "context": 1, "lr": 2e-3},))


@pytest.mark.parametrize("num_reports", [None, 1, 2])
def test_enqueued_points_run_first_and_those_of_a_resume_next(
    corpus: Corpus, tmp_path: Path, num_reports: int | None
) -> None:
    sweep = Sweep(tmp_path / "s", small_spec(corpus, trials=3, enqueue=POINTS[:2]), KNOWN)
    for _ in itertools.islice(train_serially(sweep.controller()), num_reports):
        pass
    history = sweep.run(trials=6, enqueue=POINTS)
    done = 3 if num_reports is None else num_reports
    expected = [
        *POINTS[:2],
        *([KNOWN.known_good[0], POINTS[2]] if done == 3 else [POINTS[2], KNOWN.known_good[0]]),
    ]
    assert [trial.params for trial in history.trials.values()][:4] == expected
    assert [trial.queued for trial in history.trials.values()][4:] == [None, None]


def test_a_queue_goes_on_after_a_space_that_fails(corpus: Corpus, tmp_path: Path) -> None:
    def suggest(trial: Any) -> dict[str, Any]:
        settings = suggest_small(trial)
        if settings["context"] == 3:
            raise RuntimeError("no")
        return settings

    sweep = Sweep(tmp_path / "s", small_spec(corpus, trials=2, enqueue=POINTS[:2]), Space(suggest))
    trials = sweep.run().trials
    assert [(trial.params["context"], trial.state) for trial in trials.values()] == [
        (3, "failed"),
        (1, "complete"),
    ]


def complete(settings: Mapping[str, Any]) -> dict[str, Any]:
    return trial_config(settings, SPEC).params()


@pytest.mark.parametrize("space", ["quick", "full"])
def test_a_trials_settings_are_enqueued_as_the_parameters_they_came_from(space: str) -> None:
    searcher = Searcher(SPACES[space], METRIC, 3, {})
    for number in range(12):
        params, _, settings = searcher.suggest(number)
        written = json.loads(json.dumps({**complete(settings), "epochs": 100, "seed": 77}))
        assert as_params(SPACES[space], "p", params, complete) == params
        assert as_params(SPACES[space], "p", written, complete) == params


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"classifier_hidden": 3},
            "p: not in the space: classifier_hidden=3 (the space makes 512)",
        ),
        ({"lr": 5.0}, "p: lr=5.0 is not in the space (FloatDistribution"),
        ({"lr": None}, "p: "),
        ({"learning_rate": 1}, "p: not in the space: learning_rate=1 (the space has none)"),
        (
            {"class_weight": "none", "weighted_sampling": False, "balance": "inverse"},
            "p: not in the space: class_weight='none' (the",
        ),
        ({"architecture": "mixer"}, "p: the space fails on it: ValueError: 'mixer' not in"),
    ],
)
def test_a_point_outside_the_space_is_refused_with_its_key(
    changes: dict[str, Any], message: str
) -> None:
    point = {**complete(SPACES["full"].suggest(_Fixed(SPACES["full"].known_good[0]))), **changes}
    with pytest.raises(ValueError) as refused:
        as_params(SPACES["full"], "p", point, complete)
    assert str(refused.value).startswith(message)


class _Fixed:
    """Suggests what it is given."""

    def __init__(self, point: Mapping[str, Any]) -> None:
        self.suggest_categorical = self.suggest_int = self.suggest_float = lambda name, *_, **__: (
            point[name]
        )


def test_a_point_that_could_be_made_in_several_ways_or_lacks_a_value_is_refused() -> None:
    point = dict(SPACES["full"].known_good[0])
    with pytest.raises(ValueError, match=r"the space makes it of .* and of .*; give one of these"):
        as_params(
            SPACES["full"],
            "p",
            {name: value for name, value in point.items() if name != "balance"},
            complete,
        )
    with pytest.raises(ValueError, match="p: lr is missing"):
        as_params(
            SPACES["full"],
            "p",
            {name: value for name, value in point.items() if name != "lr"},
            complete,
        )


def test_enqueued_points_are_frozen_into_the_specification(corpus: Corpus, tmp_path: Path) -> None:
    spec = small_spec(corpus)
    points = [
        dict(SPACES["quick"].known_good[2]),
        complete(SPACES["quick"].suggest(_Fixed(SPACES["quick"].known_good[0]))),
    ]
    (tmp_path / "points.json").write_text(json.dumps(points))
    (tmp_path / "point.json").write_text(json.dumps(points[0]))
    read = [*read_points(tmp_path / "points.json"), *read_points(tmp_path / "point.json")]
    assert [name.rpartition("/")[2] for name, _ in read] == [
        "points.json, point 1",
        "points.json, point 2",
        "point.json, point 1",
    ]
    assert check(replace(spec, enqueue=[{"lr": 1}]), read).spec.enqueue == [
        {"lr": 1},
        points[0],
        *[dict(SPACES["quick"].known_good[number]) for number in (0, 2)],
    ]


def test_a_repeat_is_answered_from_the_ledger(corpus: Corpus, tmp_path: Path) -> None:
    spec = small_spec(corpus, trials=4, repeats="reuse", keep=1)
    sweep = Sweep(tmp_path / "s", spec, fixed())
    history = sweep.run()
    first = history.trials[0]
    assert first.state == "complete"
    for number in (1, 2, 3):
        trial = history.trials[number]
        assert (trial.state, trial.settings, trial.copied_from) == (first.state, first.settings, 0)
        assert trial.reason == f"same settings as trial 0: {first.reason}"
        assert trial.epochs == [replace(entry, copied_from=0) for entry in first.epochs]
        assert sweep.kinds(number) == ["suggest", "epoch", "end"]
    assert history.trained_s == sum(entry.seconds for entry in first.epochs)
    assert [trial.alone_seconds > 0 for trial in history.trials.values()] == [
        True,
        False,
        False,
        False,
    ]
    assert (
        len(export_trial(history, sweep.folder, 2, tmp_path / "bundle")) == 64
    )  # those of trial 0
    again = Sweep(tmp_path / "again", replace(spec, trials=2), fixed())
    again.run()
    assert told(again.run(trials=4)) == told(history)


def test_a_repeat_of_a_running_or_failed_trial_has_another_seed(
    corpus: Corpus, tmp_path: Path
) -> None:
    sweep = Sweep(tmp_path / "s", small_spec(corpus, trials=4, repeats="reuse", seed=5), fixed())
    controller = sweep.controller()
    orders = [controller.next_orders()[0] for _ in range(2)]
    assert [order.settings["seed"] for order in orders] == [5, 6]
    controller.fail(0, "no reason", "")
    (order,) = controller.next_orders()
    assert order.settings["seed"] == 7
