"""Units, intervals and verdicts on cases that can be checked by hand."""

import math

import numpy as np
import pytest

from benchmarks.confirm_coverage import OWN, compared
from mmm.metrics import OBJECTIVES, classification_metrics, value_of
from search.confirm.scores import counts_of, left_out_scores, scores_of
from search.confirm.statistics import (
    Difference,
    Interval,
    Sampled,
    Spread,
    corrected,
    difference,
    expected_best_of,
    holm,
    mean_interval,
    probability_of_winning,
    sample,
    seeds_to_decide,
    spread_of,
)
from search.confirm.units import Units, choose_units
from search.confirm.verdicts import verdict_of

_CLASSES = ("a", "b", "c")


def _units(rows: int) -> Units:
    """Each row its own."""
    return choose_units({"dialogue": [f"d{row}" for row in range(rows)]})


def _counts(truth: list[int], *runs: list[int], units: Units, classes: int = 2) -> np.ndarray:
    return counts_of(np.array(truth), np.array(runs), units.cells, units.num_cells, classes)


def _made(resampled: list[list[float]]) -> Sampled:
    values = np.array(resampled)
    nothing = np.zeros((values.shape[1], 1))
    return Sampled(nothing[:, :, None, None], values[0], (nothing,), values, "accuracy")


def _difference(value: float, low: float, high: float, wins: float) -> Difference:
    return Difference(value, Interval(low, high), 0.01, 0.01, wins, Spread(1, 1, 9), (5, 5))


def test_the_coarsest_grouping_with_ten_groups_is_drawn_and_what_lies_within_it_is_not() -> None:
    rows = range(40)
    found = choose_units(
        {
            "speaker": [f"s{row // 10}" for row in rows],
            "dialogue": [f"d{row // 4}" for row in rows],
            "audio": [f"a{row}" for row in rows],
        }
    )
    assert found.names == ("dialogue",)
    assert found.words == "10 dialogues"
    assert found.limits == ("4 speakers, fewer than 10: others may differ",)
    assert found.cells.tolist() == [row // 4 for row in rows]  # d0 to d9, in their order


def test_groupings_that_cross_are_drawn_both() -> None:
    rows = range(60)
    found = choose_units(
        {
            "dialogue": [f"d{row % 10}" for row in rows],
            "audio": [f"a{row % 12}" for row in rows],
        }
    )
    assert found.names == ("dialogue", "audio")
    assert found.words == "10 dialogues x 12 audio files"
    assert found.num_cells == len({(row % 10, row % 12) for row in rows})


def test_fewer_than_ten_groups_of_any_cannot_be_told() -> None:
    units = choose_units({"dialogue": ["a", "b"] * 20, "audio": [f"f{i % 9}" for i in range(40)]})
    assert units.names == ()
    counts = _counts([0, 1] * 20, [0, 1] * 20, [0, 0] * 20, units=units)
    one, other = sample([counts[:1], counts[1:]], units, "accuracy", resamples=10)
    assert mean_interval(units, one) is None
    assert difference(units, one, other) is None
    assert verdict_of(None, None) == "cannot be told"


def test_no_interval_of_a_score_goes_beyond_what_scores_can_be() -> None:
    units = _units(40)
    for wrong in (1, 39):  # almost all right, almost all wrong
        answers = [1] * wrong + [0] * (40 - wrong)
        (one,) = sample([_counts([0] * 40, answers, units=units)], units, "accuracy", resamples=200)
        found = mean_interval(units, one)
        assert found is not None
        assert 0 <= found.low < one.mean < found.high <= 1


def test_equal_answers_differ_by_nothing_however_their_means_are_rounded() -> None:
    units = _units(40)
    answers = [0] * 37 + [1] * 3
    counts = _counts([0] * 40, *[answers] * 7, units=units)
    one, other = sample([counts[:6], counts[6:]], units, "macro_f1", resamples=50)
    found = difference(units, one, other)
    assert found is not None
    assert (found.value, found.p_units, found.p_seeds, found.wins) == (0.0, 1.0, 1.0, 0.5)


def test_a_grouping_that_nobody_knows_is_not_drawn_and_is_told() -> None:
    units = choose_units({"speaker": [""] * 20, "dialogue": [f"d{i}" for i in range(20)]})
    assert units.names == ("dialogue",)
    assert units.limits == ("speakers are not known",)


@pytest.mark.parametrize("metric", OBJECTIVES)
def test_scores_of_matrices_are_those_of_the_metrics(metric: str) -> None:
    rng = np.random.default_rng(3)
    truth, said = rng.integers(3, size=(2, 50))
    matrix = np.zeros((3, 3))
    np.add.at(matrix, (truth, said), 1)
    expected = value_of(classification_metrics(truth, said, _CLASSES), metric)
    assert scores_of(matrix, metric) == pytest.approx(expected)


@pytest.mark.parametrize("metric", OBJECTIVES)
def test_a_score_without_a_group_is_that_of_the_other_rows(metric: str) -> None:
    rng = np.random.default_rng(4)
    truth, said = rng.integers(3, size=(2, 60))
    units = choose_units({"dialogue": [f"d{row % 12}" for row in range(60)]})
    counts = counts_of(truth, said[None], units.cells, 12, 3)
    others = units.cells != 5
    expected = value_of(classification_metrics(truth[others], said[others], _CLASSES), metric)
    assert left_out_scores(counts, metric)[0, 5] == pytest.approx(expected)


def test_the_variance_of_an_accuracy_is_the_textbooks() -> None:
    units = _units(20)
    counts = _counts([0] * 20, [0] * 15 + [1] * 5, units=units)
    (one,) = sample([counts], units, "accuracy", resamples=10)
    spread = spread_of(units, one)
    assert spread.rows == pytest.approx(0.75 * 0.25 / 19)
    assert spread.seeds == 0
    assert spread.freedom == pytest.approx(19)


def test_seeds_that_answer_the_same_add_nothing_and_others_do() -> None:
    units = _units(20)
    same = [0] * 15 + [1] * 5
    alike = _counts([0] * 20, same, same, same, units=units)
    apart = _counts([0] * 20, same, [0] * 20, [0] * 10 + [1] * 10, units=units)
    first, second = sample([alike, apart], units, "accuracy", resamples=10)
    assert spread_of(units, first).seeds == 0
    assert spread_of(units, second).seeds == pytest.approx(np.var([0.75, 1, 0.5], ddof=1) / 3)


def test_sign_flips_count_every_exchange_of_ten_units() -> None:
    units = _units(10)
    right, wrong = [0] * 10, [1] * 10
    first, second = sample(
        [_counts([0] * 10, right, units=units), _counts([0] * 10, wrong, units=units)],
        units,
        "accuracy",
        resamples=50,
    )
    found = difference(units, first, second)
    assert found is not None
    assert found.value == 1
    assert found.p_units == 2 / 2**10  # all as they are, or all exchanged
    assert found.wins == 1


def test_a_system_and_itself_tie() -> None:
    units = _units(30)
    said = [0] * 20 + [1] * 10
    one, other = sample([_counts([0] * 30, said, units=units)] * 2, units, "accuracy", resamples=50)
    found = difference(units, one, other)
    assert found is not None
    assert (found.value, found.interval) == (0, Interval(0, 0))
    assert found.p_units == found.p_seeds == 1
    assert found.wins == 0.5
    assert verdict_of(found, 1) == "tie"


def test_an_interval_is_about_as_wide_as_students_t_says() -> None:
    units = _units(200)
    (one,) = sample(
        [_counts([0, 1] * 100, [0, 1] * 70 + [1, 0] * 30, units=units)], units, "accuracy"
    )
    found = mean_interval(units, one)
    assert found is not None
    half = 1.972 * math.sqrt(0.7 * 0.3 / 199)
    assert found.low == pytest.approx(0.7 - half, abs=0.01)
    assert found.high == pytest.approx(0.7 + half, abs=0.01)


def test_the_probability_of_winning_counts_pairs_of_runs_and_halves_of_draws() -> None:
    assert probability_of_winning(_made([[3, 1]]), _made([[2, 1]])) == (2 + 0.5) / 4


def test_holm_is_holms() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.6]) == [1, 1]


def test_a_p_is_the_larger_of_two_and_what_was_passed_over_counts() -> None:
    first, second = (
        Difference(0.1, Interval(0, 1), units, seeds, 1, Spread(1, 1, 9), (5, 5))
        for units, seeds in ((0.01, 0.001), (0.002, 0.02))
    )
    assert corrected([first, second]) == pytest.approx([0.01, 0.02])
    assert corrected([first, second], [0.03]) == pytest.approx([0.01, 0.04])


def test_the_best_of_several_is_what_order_statistics_say() -> None:
    assert expected_best_of(1) == pytest.approx(0, abs=1e-6)
    assert expected_best_of(2) == pytest.approx(1 / math.sqrt(math.pi), abs=1e-4)
    assert expected_best_of(3) == pytest.approx(1.5 / math.sqrt(math.pi), abs=1e-4)
    assert expected_best_of(40) == pytest.approx(2.1608, abs=1e-3)


def test_a_tie_says_how_many_seeds_would_decide_it_or_that_none_would() -> None:
    def apart(rows: float, seeds: float) -> Difference:
        return Difference(
            0.02, Interval(-0.01, 0.05), 0.2, 0.2, 0.8, Spread(rows, seeds, 9), (5, 5)
        )

    # 1.96^2 (0 + 0.001 / S) = 0.02^2 where S seeds have a fifth of five times the variance.
    assert seeds_to_decide(apart(0, 0.0002)) == math.ceil(1.959964**2 * 0.001 / 0.02**2)
    assert seeds_to_decide(apart(0.0002, 0.0001)) is None
    assert seeds_to_decide(apart(0, 0.0000001)) is None  # it is not for want of seeds


def test_a_class_in_few_groups_widens_as_much_as_leaving_one_out_says() -> None:
    """Of 12 dialogues two have the second class, half of which is found."""
    truth, said = [0] * 20 + [1] * 4, [0] * 20 + [1] * 2 + [0] * 2
    units = choose_units({"dialogue": [f"d{row // 2:02}" for row in range(24)]})
    (one,) = sample([_counts(truth, said, units=units)], units, "unweighted_recall", resamples=10)
    # Without one or the other of the two, all or none is found.
    assert spread_of(units, one).rows == pytest.approx(11 / 12 * (0.25**2 + 0.25**2))


@pytest.mark.slow
@pytest.mark.parametrize("own", [0, OWN])
def test_intervals_hold_the_truth_and_equal_systems_tie_nearly_always(own: float) -> None:
    found = compared(10, 5, 0.0, 50, resamples=200, own=own)
    assert found.in_mean >= 0.88
    assert found.in_difference >= 0.88
    assert found.better + found.worse <= 0.1


@pytest.mark.parametrize(
    ("found", "p", "verdict"),
    [
        (_difference(0.05, 0.01, 0.09, 0.9), 0.01, "better"),
        (_difference(-0.05, -0.09, -0.01, 0.1), 0.01, "worse"),
        (_difference(0.05, 0.01, 0.09, 0.9), 0.06, "tie"),  # p says nothing
        (_difference(0.05, -0.01, 0.09, 0.9), 0.01, "tie"),  # the interval holds 0
        (_difference(0.05, 0.01, 0.09, 0.7), 0.01, "tie"),  # a run beats another too seldom
    ],
)
def test_better_needs_interval_p_and_probability(found: Difference, p: float, verdict: str) -> None:
    assert verdict_of(found, p) == verdict
