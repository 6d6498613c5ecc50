"""The best of so many trials, against all choices of them."""

import itertools

import numpy as np
import pytest

from search.results.expected_best import by_system, expected_best
from search.results.importance import Expected
from tests.search.results.test_importance import SPEC, history


def test_it_is_the_mean_of_the_best_over_all_choices() -> None:
    scores = [0.3, 0.9, 0.5, 0.5, 0.1, 0.7]
    for number in range(1, 7):
        choices = itertools.combinations(scores, number)
        assert expected_best(scores, number) == pytest.approx(
            np.mean([max(one) for one in choices])
        )
    with pytest.raises(ValueError, match="best of 7 of 6"):
        expected_best(scores, 7)


def test_many_trials_are_no_matter_for_its_numbers() -> None:
    scores = np.random.default_rng(0).normal(size=3000).tolist()
    assert expected_best(scores, 3000) == pytest.approx(max(scores))
    assert expected_best(scores, 1) == pytest.approx(np.mean(scores))


def test_of_each_system_by_what_its_trials_come_to_with_a_band_around_it() -> None:
    found = by_system(Expected(history()))
    assert {one.system for one in found} == {"vanilla_concat", "mlp_mixer"}
    for one in found:
        assert one.num_trials == SPEC.trials // 2
        assert 0 < one.num_stopped < one.num_trials
        assert (one.numbers[0], one.numbers[-1]) == (1, one.num_trials)
        assert (np.diff(one.scores) > 0).all()  # more trials find more
        assert (one.low[:-1] < one.scores[:-1]).all()
        assert (one.scores[:-1] < one.high[:-1]).all()
