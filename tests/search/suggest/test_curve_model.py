"""What a sweep lets us expect of its trials, as a function of its history."""

import numpy as np
import pytest

from search.engine.asha import decide, rivals
from search.ledger.trial import Trial
from search.space.sampling import Draw, parameters_of
from search.suggest.curve_model import NUM_FIRST, Belief, _best_and_others, _levels
from tests.search.suggest.test_acquisition import SPACE, ended, suggest_two
from tests.sweep_parts import METRIC, epoch_entry

RUNGS = (3, 9, 27)


def trial(number: int, epochs: int, *, state: str = "pruned") -> Trial:
    """`deep` learns slowly and ends best; what is stopped at 3 has not shown it."""
    draw = Draw(np.random.default_rng(number))
    suggest_two(draw)  # type: ignore[arg-type]
    is_deep = draw.params["kind"] == "deep"
    made = ended(number, draw.params, 0.0, state=state)
    noise = np.random.default_rng(number).normal(0, 0.01, epochs)
    final, pace = (0.6, 9.0) if is_deep else (0.5, 2.0)
    made.epochs = [
        epoch_entry(epoch, final * (1 - 2 ** (-epoch / pace)) + noise[epoch - 1])
        for epoch in range(1, epochs + 1)
    ]
    return made


def sweep(count: int) -> dict[int, Trial]:
    trials = {
        number: trial(number, 27 if number % 2 else 3, state="complete" if number % 2 else "pruned")
        for number in range(count)
    }
    for number, one in trials.items():
        one.end_order = number
    return trials


def test_nothing_is_expected_of_the_first_trials() -> None:
    trials = sweep(NUM_FIRST - 1)
    assert Belief(parameters_of(SPACE), METRIC, RUNGS).expected(trials, [0, 1]) is None


def test_what_learns_slowly_and_ends_best_goes_on_where_its_score_alone_would_stop_it() -> None:
    trials = sweep(40)
    slow = next(
        number
        for number, one in trials.items()
        if one.params["kind"] == "deep" and len(one.epochs) == 3
    )
    numbers = rivals(list(trials), slow)
    found = Belief(parameters_of(SPACE), METRIC, RUNGS).expected(trials, numbers)
    assert found is not None
    expected = dict(zip(numbers, found.tolist(), strict=True))
    assert expected[slow] == pytest.approx(0.52, abs=0.06)  # 0.6 (1 - 2^-3) at the last epoch
    assert decide(trials, slow, 3, METRIC, 2).stop
    decision = decide(trials, slow, 3, METRIC, 2, expected)
    assert not decision.stop
    assert f"by the {METRIC} expected at the end ({expected[slow]:.4f})" in decision.reason


@pytest.mark.slow
def test_a_belief_that_lived_through_a_history_is_a_fresh_one() -> None:
    lived = Belief(parameters_of(SPACE), METRIC, RUNGS)
    whole = sweep(60)
    trials: dict[int, Trial] = {}
    for number, one in whole.items():
        # Running at first, then at its first rung, then ended.
        trials[number] = trial(number, 0, state="running")
        lived.process(trials)
        trials[number] = trial(number, 3, state="running")
        lived.process(trials)
        trials[number] = one
        found, fresh = (
            lived.expected(trials, list(trials)),
            Belief(parameters_of(SPACE), METRIC, RUNGS).expected(trials, list(trials)),
        )
        assert (found is None) == (fresh is None) == (number < NUM_FIRST - 1)
        if found is not None:
            assert found == pytest.approx(fresh, abs=1e-8)


def test_failed_trials_count_as_the_worst() -> None:
    trials = sweep(30)
    for one in trials.values():
        if one.params["kind"] == "deep":
            one.state, one.epochs = "failed", []
    process = Belief(parameters_of(SPACE), METRIC, RUNGS).process(trials)
    assert process is not None
    belief = Belief(parameters_of(SPACE), METRIC, RUNGS)
    rows = np.array(
        [belief.encoding({"kind": kind, "rate": 1e-2, "blocks": 2}) for kind in ("plain", "deep")]
    )
    plain, deep = process.expected_of_settings(rows)[0]
    assert plain > deep + 0.1


@pytest.mark.parametrize("num_epochs", [0, 3])
def test_of_a_lost_trial_its_scores_count_and_its_end_does_not(num_epochs: int) -> None:
    trials = sweep(30)
    trials[11] = trial(11, num_epochs, state="running")
    running = Belief(parameters_of(SPACE), METRIC, RUNGS).expected(trials, list(trials))
    trials[11].state, trials[11].is_lost, trials[11].end_order = "failed", True, 30
    lost = Belief(parameters_of(SPACE), METRIC, RUNGS).expected(trials, list(trials))
    trials[11].is_lost = False
    failed = Belief(parameters_of(SPACE), METRIC, RUNGS).expected(trials, list(trials))
    assert running is not None
    assert lost is not None
    assert failed is not None
    assert lost.tolist() == running.tolist()
    assert failed[11] < lost[11] - 0.05


def test_the_process_is_started_anew_and_fitted_ever_more_rarely() -> None:
    assert [_levels(count) for count in (0, 7, 8, 11, 12, 17)] == [
        (0, 0),
        (0, 0),
        (8, 8),
        (8, 8),
        (12, 12),
        (17, 17),
    ]
    starts = {_levels(count) for count in range(10_001)}
    assert len(starts) < 80
    assert len({fit for _, fit in starts}) < 25
    assert all(count - _levels(count)[0] < 160 for count in range(1000, 10_001, 7))


def test_of_many_the_best_half_and_some_of_all_others_are_shown() -> None:
    scores = np.random.default_rng(0).random(1000).tolist()
    shown = _best_and_others(scores, 100)
    assert len(shown) == 100 == len(set(shown))
    best = set(np.argsort(-np.array(scores))[:50].tolist())
    assert best <= set(shown)
    assert max(shown) > 900 and min(shown) < 100


def test_of_very_many_that_go_on_some_are_shown_and_their_next_rungs_come_in() -> None:
    trials = sweep(40)
    for number in range(40, 640):
        trials[number] = trial(number, 3, state="running")
    belief = Belief(parameters_of(SPACE), METRIC, RUNGS)
    process = belief.process(trials)
    assert process is not None
    assert len(set(process.seen.trials)) == 40 + 400
    left_out = next(number for number in range(40, 640) if number not in process.seen.trials)
    trials[left_out] = trial(left_out, 9, state="running")
    assert belief.process(trials) is process
    assert len(set(process.seen.trials)) == 40 + 401
    expected = belief.expected(trials, list(trials))
    assert expected is not None
    assert np.isfinite(expected).all()


def test_rivals_are_all_that_reached_the_rung_or_many_of_them() -> None:
    assert len(rivals(range(300), 5)) == 300
    many = rivals(range(1000), 501)
    assert 501 in many
    assert 300 < len(many) <= 401
