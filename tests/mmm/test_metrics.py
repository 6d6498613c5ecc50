"""Metrics against scikit-learn's own functions, absent classes included."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from mmm.metrics import OBJECTIVES, classification_metrics, scalar_metrics

CLASSES = ("neutral", "happy", "surprise", "angry", "sad")


def drawn(seed: int, num_true: int, num_predicted: int) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Labels of the first `num_true` classes, predictions of the last `num_predicted`."""
    generator = np.random.default_rng(seed)
    return generator.integers(0, num_true, 60), generator.integers(5 - num_predicted, 5, 60)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("num_true", "num_predicted"), [(5, 5), (3, 5), (5, 3), (3, 2), (1, 5), (1, 1)]
)
@pytest.mark.filterwarnings(
    "ignore:.*single label:UserWarning", "ignore:y_pred contains classes:UserWarning"
)
def test_metrics_are_scikit_learns(seed: int, num_true: int, num_predicted: int) -> None:
    true, predicted = drawn(seed, num_true, num_predicted)
    found = classification_metrics(true, predicted, CLASSES)
    labels = list(range(5))
    for name, function, average in (
        ("weighted_precision", sklearn_metrics.precision_score, "weighted"),
        ("weighted_recall", sklearn_metrics.recall_score, "weighted"),
        ("weighted_f1", sklearn_metrics.f1_score, "weighted"),
        ("macro_f1", sklearn_metrics.f1_score, "macro"),
    ):
        expected = function(true, predicted, labels=labels, average=average, zero_division=0)
        assert found[name] == pytest.approx(expected, abs=1e-12), name
    assert found["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(true, predicted))
    assert found["unweighted_recall"] == pytest.approx(
        sklearn_metrics.balanced_accuracy_score(true, predicted)
    )
    assert (
        found["confusion_matrix"]
        == sklearn_metrics.confusion_matrix(true, predicted, labels=labels).tolist()
    )
    report = sklearn_metrics.classification_report(
        true, predicted, labels=labels, target_names=CLASSES, output_dict=True, zero_division=0
    )
    for name in CLASSES:
        expected = {key.removesuffix("-score"): value for key, value in report[name].items()}
        assert found["per_class"][name] == pytest.approx(expected)
    present = np.unique(true)
    recalls = sklearn_metrics.recall_score(
        true, predicted, labels=present, average=None, zero_division=0
    )
    assert found["recall_sd"] == pytest.approx(np.std(recalls))


def test_always_neutral_on_kemdy20_scores_what_the_reference_page_says() -> None:
    """86.7 % of KEMDy20's single-label rows are neutral: accuracy 86.7, weighted F1 80.5, macro F1
    13.3.
    """
    true = np.repeat(np.arange(7), [867, 60, 20, 20, 13, 10, 10])
    found = classification_metrics(true, np.zeros_like(true), tuple("abcdefg"))
    assert [round(100 * found[name], 1) for name in ("accuracy", "weighted_f1", "macro_f1")] == [
        86.7,
        80.5,
        13.3,
    ]
    assert found["unweighted_recall"] == pytest.approx(1 / 7)


def test_perfect_predictions_score_one_where_every_class_occurs() -> None:
    found = classification_metrics(np.arange(5), np.arange(5), CLASSES)
    assert {name: found[name] for name in OBJECTIVES} == dict.fromkeys(OBJECTIVES, 1.0)
    assert found["recall_sd"] == 0.0


def test_metrics_are_plain_numbers_that_json_can_hold() -> None:
    found = classification_metrics(*drawn(0, 3, 5), CLASSES)
    assert {type(value) for value in scalar_metrics(found).values()} == {float}
    assert type(found["confusion_matrix"][0][0]) is int
    assert type(found["per_class"]["happy"]["support"]) is int


def test_scalar_metrics_are_the_numbers_and_each_class_f1() -> None:
    found = classification_metrics(*drawn(0, 5, 5), CLASSES)
    scalars = scalar_metrics(found)
    assert set(scalars) == {*OBJECTIVES, "recall_sd", *(f"f1_{name}" for name in CLASSES)}
    assert scalars["f1_sad"] == found["per_class"]["sad"]["f1"]
