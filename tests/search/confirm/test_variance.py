"""Settings, seeds and folds told apart, on runs whose variances are known."""

import numpy as np
import pytest

from search.confirm.variance import VarianceSplit, variance_split
from search.ledger.trial import Trial
from tests.sweep_parts import METRIC, trial_with


def _runs(settings: float, seeds: float, count: int, each: int) -> dict[str, list[Trial]]:
    rng = np.random.default_rng(0)
    levels = rng.normal(0.5, settings, count)
    return {
        f"trial {place}": [
            trial_with(number, {1: float(rng.normal(level, seeds))}) for number in range(each)
        ]
        for place, level in enumerate(levels)
    }


def test_each_is_found_again() -> None:
    found = variance_split(_runs(0.05, 0.02, 300, 5), METRIC)
    assert found.settings == pytest.approx(0.05, rel=0.1)
    assert found.seeds == pytest.approx(0.02, rel=0.1)
    assert found.folds is None


def test_seeds_are_not_taken_for_settings() -> None:
    found = variance_split(_runs(0.0, 0.02, 300, 5), METRIC)
    assert found.settings is not None
    assert found.settings < 0.005


def test_one_run_of_each_tells_nothing() -> None:
    assert variance_split(_runs(0.05, 0.02, 3, 1), METRIC) == VarianceSplit(None, None, None)
