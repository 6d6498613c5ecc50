"""The model of learning curves: settings as numbers, and a Gaussian process over settings and
epochs.
"""

import math
from typing import Any

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from search.suggest.gaussian_process import CurveProcess, Observations, fitted
from search.suggest.parameter_vectors import Encoding

LAST = 27


def at(epoch: int) -> float:
    return math.log(epoch) / math.log(LAST)


def curves(
    rng: np.random.Generator,
    count: int,
    source: int = 0,
    shift: float = 0.0,
    scale: float = 1.0,
    noise: float = 0.005,
) -> Observations:
    """Trials seen at epochs 3, 9 and 27, every other one at 3 alone; the first of two columns
    decides how well they end.
    """
    rows = []
    for number in range(count):
        features = rng.random(2)
        luck = 4 * noise * rng.standard_normal()
        final = math.sin(3 * features[0]) + luck
        for epoch in (3, 9, LAST) if number % 2 else (3,):
            score = final * (1 - 0.5 ** (epoch / 3)) + noise * rng.standard_normal()
            rows.append(
                (
                    features.tolist(),
                    at(epoch),
                    1000 * source + number,
                    source,
                    shift + scale * score,
                )
            )
    return Observations.of(rows, 2)


def test_encoding_tells_categories_apart_and_scales_ranges() -> None:
    encoding = Encoding(
        {
            "kind": CategoricalDistribution(["a", "b"]),
            "rate": FloatDistribution(1e-4, 1e-2, log=True),
            "width": CategoricalDistribution([64, 128, 256]),
            "blocks": IntDistribution(1, 4),
        }
    )
    assert encoding.width == 5
    a, b = (
        np.array(encoding({"kind": kind, "rate": 1e-3, "width": 128, "blocks": 4})) for kind in "ab"
    )
    assert np.linalg.norm(a - b) == pytest.approx(1.0)
    # Columns by name: blocks, kind a, kind b, rate, width.
    assert a == pytest.approx([1.0, math.sqrt(0.5), 0.0, 0.5, 0.5])
    assert encoding({"kind": "a", "rate": 1e-4, "width": 256}) == pytest.approx(
        [0.5, math.sqrt(0.5), 0.0, 0.0, 1.0]
    )
    assert encoding({"kind": "unknown", "rate": 1e-3, "other": 5}) == pytest.approx(
        [0.5, 0.0, 0.0, 0.5, 0.5]
    )


def test_final_scores_are_expected_of_settings_and_of_trials_that_were_stopped() -> None:
    seen = curves(np.random.default_rng(0), 60)
    process = CurveProcess(seen)
    good, bad = process.expected_of_settings(np.array([[0.55, 0.5], [0.05, 0.5]]))[0]
    assert good == pytest.approx(math.sin(3 * 0.55), abs=0.1)
    assert bad == pytest.approx(math.sin(3 * 0.05), abs=0.15)
    stopped = seen.take(np.isin(seen.trials, np.arange(0, 60, 2)))
    finals = process.expected(
        Observations(stopped.features, np.ones(30), stopped.trials, stopped.sources, stopped.scores)
    )
    assert np.abs(finals - np.sin(3 * stopped.features[:, 0])).mean() < 0.08


def test_the_process_is_sure_where_it_has_seen_and_not_elsewhere() -> None:
    process = CurveProcess(curves(np.random.default_rng(0), 60))
    points = np.array([[0.5, 0.5], [4.0, 4.0]])
    _, (near, far) = process.expected_of_settings(points)
    assert near < 0.1 < far


def test_a_column_that_says_nothing_gets_a_long_length() -> None:
    theta = fitted(curves(np.random.default_rng(0), 60))
    assert theta[1] > theta[0] + 0.5


def test_seeing_more_is_as_having_seen_it_all_along() -> None:
    seen = curves(np.random.default_rng(0), 40)
    first, rest = seen.take(slice(0, 50)), seen.take(slice(50, None))
    grown = CurveProcess(first)
    whole = CurveProcess(seen, grown.theta)
    # The units are those of what was seen first: bring the other to them.
    whole._units = grown._units
    whole.centre, whole.scale = grown.centre, grown.scale
    whole._whitened = whole.whitening @ ((seen.scores - grown.centre) / grown.scale)
    whole.weights = whole.whitening.T @ whole._whitened
    points = np.random.default_rng(1).random((5, 2))
    for place in range(len(rest)):
        grown.see(rest.take(slice(place, place + 1)))
    for one, other in zip(
        grown.expected_of_settings(points), whole.expected_of_settings(points), strict=True
    ):
        assert one == pytest.approx(other, abs=1e-8)
    assert grown.whitening == pytest.approx(whole.whitening, abs=1e-6)


def test_the_hyperparameters_are_the_most_likely_ones_near_them() -> None:
    seen = curves(np.random.default_rng(1), 30, noise=0.03)
    found = fitted(seen)
    priors = np.array(
        [math.log(1.5)] * 2
        + [0.0, math.log(0.1), math.log(0.15), math.log(1.5), math.log(0.7), 0.0]
    )
    spreads = np.array([1.0] * 2 + [0.7, 1.0, 1.0, 1.0, 1.0, 1.5])

    def unlikely(theta: Any) -> float:
        process = CurveProcess(seen, theta)
        standard = (theta - priors) / spreads
        fit = 0.5 * process._whitened @ process._whitened
        fit -= np.log(np.diag(process.whitening)).sum()
        return float(fit + 0.5 * standard @ standard)

    for place in range(len(found)):
        for step in (-0.3, 0.3):
            theta = found.copy()
            theta[place] += step
            assert unlikely(theta) > unlikely(found) - 0.05, (place, step)


def test_another_sweep_tells_which_settings_are_good_whatever_its_scores_are() -> None:
    rng = np.random.default_rng(0)
    elsewhere = curves(rng, 60, source=1, shift=5.0, scale=3.0)
    few = curves(rng, 3)
    process = CurveProcess(elsewhere + few, fitted(elsewhere))
    good, bad = process.expected_of_settings(np.array([[0.55, 0.5], [0.02, 0.5]]))[0]
    assert good > bad + 0.3
