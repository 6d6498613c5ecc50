"""ASHA's decision, held against cases worked out by hand."""

import copy
from dataclasses import replace

import pytest

from search.engine.asha import decide
from search.ledger.spec import SweepSpec
from search.ledger.trial import Trial
from tests.sweep_parts import METRIC, trial_with


def at_rung(*scores: float) -> dict[int, Trial]:
    """Trials 0, 1, ... that stand at epoch 3 with these scores."""
    return {number: trial_with(number, {3: score}) for number, score in enumerate(scores)}


def stops(trials: dict[int, Trial], number: int, factor: int = 3, epoch: int = 3) -> bool:
    return decide(trials, number, epoch, METRIC, factor).stop


def test_the_first_to_arrive_goes_on() -> None:
    decision = decide(at_rung(0.0), 0, 3, METRIC, 3)
    assert (decision.stop, decision.reason) == (False, "rank 1 of 1 at epoch 3, best 1 go on")


def test_the_second_goes_on_only_when_it_is_better() -> None:
    assert stops(at_rung(0.5, 0.4), 1)
    assert not stops(at_rung(0.5, 0.6), 1)


@pytest.mark.parametrize(
    ("arrived", "factor", "go_on"),
    [(1, 3, 1), (3, 3, 1), (4, 3, 2), (6, 3, 2), (7, 3, 3), (4, 4, 1), (5, 4, 2), (5, 2, 3)],
)
def test_the_best_of_factor_rounded_up_go_on(arrived: int, factor: int, go_on: int) -> None:
    trials = at_rung(*(number / 10 for number in range(arrived)))
    assert [stops(trials, number, factor) for number in range(arrived)] == [True] * (
        arrived - go_on
    ) + [False] * go_on


def test_the_reason_says_rank_number_and_epoch() -> None:
    assert (
        decide(at_rung(0.4, 0.1, 0.2, 0.3), 2, 3, METRIC, 3).reason
        == "rank 3 of 4 at epoch 3, best 2 go on"
    )


def test_of_equal_scores_the_lower_number_goes_on() -> None:
    trials = at_rung(0.5, 0.5, 0.5)
    assert [stops(trials, number) for number in trials] == [False, True, True]


def test_only_trials_that_reached_the_rung_count() -> None:
    trials = at_rung(0.1) | {1: trial_with(1, {1: 0.9, 2: 0.9}), 2: trial_with(2, {})}
    assert decide(trials, 0, 3, METRIC, 3).reason == "rank 1 of 1 at epoch 3, best 1 go on"


def test_trials_that_ended_or_went_further_count_with_their_best_up_to_the_rung() -> None:
    trials = {
        0: trial_with(0, {1: 0.3, 2: 0.6, 3: 0.2}),
        1: trial_with(1, {3: 0.5, 4: 0.9}, "complete"),
        2: trial_with(2, {3: 0.1}, "pruned"),
        3: trial_with(3, {3: 0.7, 4: 0.7}, "failed"),
    }
    assert decide(trials, 0, 3, METRIC, 3).reason == "rank 2 of 4 at epoch 3, best 2 go on"
    assert decide(trials, 1, 3, METRIC, 3).reason == "rank 3 of 4 at epoch 3, best 2 go on"


def test_the_best_score_so_far_goes_on_whatever_is_expected_of_it() -> None:
    trials = at_rung(0.30, 0.31, 0.29, 0.28, 0.3175, 0.27, 0.26, 0.25, 0.24)
    expected = {number: 0.5 - number / 100 for number in trials} | {4: 0.435}
    decision = decide(trials, 4, 3, METRIC, 3, expected)
    assert not decision.stop
    assert (
        decision.reason
        == "rank 7 of 9 at epoch 3 by the macro_f1 expected at the end (0.4350), best 3 go on, "
        "and so does the best macro_f1 so far at epoch 3 (0.3175)"
    )
    # The second best has to be expected to end well.
    assert decide(trials, 1, 3, METRIC, 9, expected).reason.startswith("rank 2 of 9")
    assert decide(trials, 1, 3, METRIC, 9, expected).stop
    # Who is among those that go on anyway is told no more than that.
    assert decide(trials, 0, 3, METRIC, 3, expected).reason.endswith(
        "expected at the end (0.5000), best 3 go on"
    )


def test_of_equally_good_trials_so_far_the_lower_number_is_the_best() -> None:
    trials = at_rung(0.1, 0.5, 0.5)
    expected = {0: 0.9, 1: 0.2, 2: 0.3}
    assert [decide(trials, number, 3, METRIC, 3, expected).stop for number in trials] == [
        False,
        False,
        True,
    ]


def test_the_best_so_far_is_that_of_all_at_the_rung_and_not_of_the_rivals_alone() -> None:
    trials = at_rung(0.5, 0.4, 0.1)
    assert decide(trials, 1, 3, METRIC, 3, {1: 0.2, 2: 0.3}).stop
    # What has not reached the rung, or was better only after it, does not count.
    trials[0] = trial_with(0, {1: 0.9})
    assert not decide(trials, 1, 3, METRIC, 3, {1: 0.2, 2: 0.3}).stop
    trials[0] = trial_with(0, {3: 0.3, 4: 0.9}, "complete")
    assert not decide(trials, 1, 3, METRIC, 3, {0: 0.9, 1: 0.2, 2: 0.3}).stop
    # The best up to the rung counts, not the score at it.
    trials[1] = trial_with(1, {2: 0.4, 3: 0.2})
    assert not decide(trials, 1, 3, METRIC, 3, {0: 0.9, 1: 0.2, 2: 0.3}).stop


@pytest.mark.parametrize("expected", [None, {0: 0.9, 1: 0.5, 2: 0.6}])
def test_a_failed_trial_does_not_win_so_the_best_of_the_others_goes_on(
    expected: dict[int, float] | None,
) -> None:
    trials = at_rung(0.9, 0.5, 0.4)
    trials[0].state = "failed"
    decision = decide(trials, 1, 3, METRIC, 3, expected)
    assert not decision.stop
    assert decision.reason.endswith(
        "best 1 go on, and so does the best macro_f1 so far at epoch 3 (0.5000)"
    )
    assert decide(trials, 2, 3, METRIC, 3, expected).stop


def test_another_metric_decides_by_that_metric() -> None:
    trials = at_rung(0.5, 0.4)
    for trial, accuracy in zip(trials.values(), (0.1, 0.2), strict=True):
        metrics = {**trial.epochs[0].metrics, "accuracy": accuracy}
        trial.epochs[0] = replace(trial.epochs[0], metrics=metrics)
    assert not decide(trials, 1, 3, "accuracy", 3).stop
    assert decide(trials, 1, 3, METRIC, 3).stop


def test_deciding_changes_nothing_and_asking_twice_gives_the_same() -> None:
    trials = at_rung(0.4, 0.1, 0.2)
    before = copy.deepcopy(trials)
    assert decide(trials, 1, 3, METRIC, 3) == decide(trials, 1, 3, METRIC, 3)
    assert trials == before


@pytest.mark.parametrize(
    ("epochs", "first_rung", "factor", "rungs"),
    [
        (27, 3, 3, [3, 9]),
        (28, 3, 3, [3, 9, 27]),
        (9, 1, 2, [1, 2, 4, 8]),
        (3, 3, 3, []),
        (4, 3, 3, [3]),
    ],
)
def test_rungs_grow_by_the_factor_and_the_last_epoch_is_none(
    epochs: int, first_rung: int, factor: int, rungs: list[int]
) -> None:
    spec = SweepSpec(
        "s",
        "quick",
        "m",
        "f",
        trials=1,
        epochs=epochs,
        workers=1,
        first_rung=first_rung,
        factor=factor,
    )
    assert spec.rungs == rungs
