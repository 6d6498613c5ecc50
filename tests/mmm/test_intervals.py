"""Bootstrap intervals are those of resampling whole dialogues and computing the metrics anew."""

import numpy as np
import pytest

from mmm.metrics import bootstrap_intervals, classification_metrics

CLASSES = ("a", "b", "c", "d")  # d never occurs


def made(num_dialogues: int, turns: int, seed: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Dialogues that are right throughout or wrong throughout, so that their turns say the same
    thing many times.
    """
    random = np.random.default_rng(seed)
    true = random.integers(0, 3, num_dialogues * turns)
    right = np.repeat(random.random(num_dialogues) < 0.7, turns)
    return (
        true,
        np.where(right, true, (true + 1) % 3),
        [f"d{place // turns}" for place in range(len(true))],
    )


def test_they_are_what_resampling_dialogues_one_by_one_gives() -> None:
    true, predicted, dialogues = made(30, 5, 1)
    names = np.array(dialogues)
    random = np.random.default_rng(7)
    drawn = []
    for _ in range(300):
        rows = np.concatenate(
            [np.flatnonzero(names == f"d{pick}") for pick in random.integers(0, 30, 30)]
        )
        drawn.append(classification_metrics(true[rows], predicted[rows], CLASSES))
    for name, found in bootstrap_intervals(true, predicted, dialogues, len(CLASSES)).items():
        expected = np.quantile([metrics[name] for metrics in drawn], [0.025, 0.975])
        np.testing.assert_allclose(found, expected, atol=0.04)
        assert found[0] < classification_metrics(true, predicted, CLASSES)[name] < found[1]


def test_turns_of_one_dialogue_do_not_count_as_independent() -> None:
    true, predicted, dialogues = made(30, 10, 2)
    clustered = bootstrap_intervals(true, predicted, dialogues, len(CLASSES))
    independent = bootstrap_intervals(
        true, predicted, [str(place) for place in range(len(true))], len(CLASSES)
    )
    widths = [high - low for low, high in (clustered["accuracy"], independent["accuracy"])]
    assert widths[0] > 2 * widths[1]


def test_the_same_rows_give_the_same_intervals() -> None:
    data = made(12, 3, 3)
    assert bootstrap_intervals(*data, len(CLASSES)) == bootstrap_intervals(*data, len(CLASSES))


def test_a_perfect_prediction_of_all_classes_has_no_width() -> None:
    true = np.tile(np.arange(4), 10)
    found = bootstrap_intervals(true, true, [str(place // 4) for place in range(40)], 4)
    assert all(interval == pytest.approx((1.0, 1.0)) for interval in found.values())
