"""Calibration against answers whose truth is drawn from known probabilities."""

import numpy as np
import pytest

from mmm.calibration import calibration_error, fitted_temperature, reliability, with_temperature


def drawn(temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, 3) that are right once their logits are divided by `temperature`."""
    generator = np.random.default_rng(1)
    right = with_temperature(generator.dirichlet([1, 1, 1], 20_000), 1.0)
    truth = (right.cumsum(axis=1) < generator.random((len(right), 1))).sum(axis=1)
    return with_temperature(right, 1 / temperature), truth


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_fitted_temperature_is_the_one_that_the_answers_are_wrong_by(
    temperature: float,
) -> None:
    told, truth = drawn(temperature)
    found = fitted_temperature(told, truth)
    assert found == pytest.approx(temperature, rel=0.05)
    assert found is not None
    right = with_temperature(told, found)
    assert (right.argmax(axis=1) == told.argmax(axis=1)).all()
    assert calibration_error(reliability(right, truth)) < 0.02
    assert (calibration_error(reliability(told, truth)) > 0.05) is (temperature != 1)


def test_a_temperature_divides_the_logits() -> None:
    logits = np.array([[2.0, 0.5, -1.0]])
    of = np.exp(logits) / np.exp(logits).sum()
    divided = np.exp(logits / 3) / np.exp(logits / 3).sum()
    assert with_temperature(of, 3.0) == pytest.approx(divided)


def test_the_calibration_error_is_the_mean_distance_weighted_by_utterances() -> None:
    told = np.array([[0.95, 0.05]] * 3 + [[0.65, 0.35]])
    bins = reliability(told, np.array([0, 0, 1, 2]))  # of class 2 the model knows nothing
    assert [(one.low, one.num_utterances) for one in bins] == [(0.6, 1), (0.9, 3)]
    assert bins[1].accuracy == pytest.approx(2 / 3)
    assert calibration_error(bins) == pytest.approx((3 * (0.95 - 2 / 3) + 0.65) / 4)


def test_no_temperature_is_fitted_where_no_row_is_of_a_class_that_the_model_has() -> None:
    assert fitted_temperature(np.array([[0.9, 0.1]]), np.array([2])) is None
