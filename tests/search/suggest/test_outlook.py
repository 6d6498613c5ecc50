"""What more trials are expected to gain, against what seeds differ by."""

from collections.abc import Callable

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from search.engine.budgets import budgets, used_up
from search.ledger.spec import SweepSpec
from search.ledger.trial import Trial
from search.space.sampling import parameters_of
from search.suggest.acquisition import NUM_STARTUP
from search.suggest.curve_model import Belief
from search.suggest.outlook import Outlook, outlook
from tests.search.suggest.test_acquisition import RUNGS, SPACE, peaked
from tests.sweep_parts import METRIC, history_of

SPEC = SweepSpec("s", "quick", "manifest.csv", "features", trials=40, epochs=9, workers=2)


def seen(count: int, trial: Callable[[int, np.random.Generator], Trial] = peaked) -> Outlook | None:
    rng = np.random.default_rng(0)
    trials = {number: trial(number, rng) for number in range(count)}
    with threadpool_limits(limits=1):
        return outlook(SPACE, Belief(parameters_of(SPACE), METRIC, RUNGS), trials, 1)


def test_nothing_is_told_of_few_trials() -> None:
    assert seen(NUM_STARTUP - 1) is None


def test_the_expected_gain_falls_with_trials_and_the_noise_is_that_of_the_seeds() -> None:
    few, many = seen(NUM_STARTUP), seen(100)
    assert few is not None and many is not None
    assert 0 <= many.gain < few.gain
    assert many.noise == pytest.approx(0.01, rel=0.4)  # of `peaked`
    assert many.gain < many.noise


@pytest.mark.parametrize(("gain", "is_used_up"), [(0.02, False), (0.004, True), (0.0, True)])
def test_a_sweep_ends_where_less_is_to_be_gained_than_seeds_differ_by(
    gain: float, is_used_up: bool
) -> None:
    found = used_up(budgets(SPEC, history_of(SPEC), 0.0, Outlook(gain, 0.01)))
    assert (found is not None) == is_used_up
    if found is not None:
        assert found.why == f"expected further gain {gain:.4f} below the seeds' noise 0.0100"
        assert found.more == "--no-until-noise"
