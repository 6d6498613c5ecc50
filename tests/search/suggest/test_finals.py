"""Final scores of trials, as kept up with a process that goes on seeing scores."""

import copy
from dataclasses import replace

import numpy as np
import pytest

from search.suggest.acquisition import log_expected_improvement
from search.suggest.finals import Finals, Places
from search.suggest.gaussian_process import Array, CurveProcess, Observations, at_the_end
from tests.search.suggest.test_gaussian_process import curves


def ends(seen: Observations, trials: list[int]) -> Observations:
    """The last epochs of trials."""
    found = seen.take([seen.trials.tolist().index(number) for number in trials])
    return replace(found, progress=np.ones(len(trials)))


def test_what_is_kept_up_is_as_computed_anew() -> None:
    rng = np.random.default_rng(0)
    seen = curves(rng, 120)
    process = CurveProcess(seen.take(slice(0, 100)))
    rows = {int(number): seen.features[i].tolist() for i, number in enumerate(seen.trials)}
    finals = Finals(process, rows.__getitem__)
    for place in range(100, len(seen)):
        process.see(seen.take(slice(place, place + 1)))
        asked = rng.choice(120, size=20, replace=False).tolist()
        if place % 3:  # so that what is kept is behind by more than one at times
            assert finals.expected(asked) == pytest.approx(
                process.expected(ends(seen, asked)), abs=1e-8
            )
            assert finals.means(asked) == pytest.approx(
                process.mean_of_settings(ends(seen, asked).features), abs=1e-8
            )


@pytest.mark.parametrize("num_running", [0, 1, 30])
def test_the_most_promising_settings_are_those_of_a_process_that_saw_all_ends(
    num_running: int,
) -> None:
    rng = np.random.default_rng(1)
    seen = curves(rng, 300)
    process = CurveProcess(seen.take(slice(0, 250)))
    settings = {number: rng.random(2).tolist() for number in range(1000, 1200)}
    finals = Finals(process, settings.__getitem__)
    best, num_left_out = float(seen.scores.max()), 0
    lengths: list[int] = []

    def value(means: Array, deviations: Array, places: Places) -> Array:
        lengths.append(len(places))
        return log_expected_improvement(means, deviations, best)

    for place in range(250, 280):
        process.see(seen.take(slice(place, place + 1)))
        # The oldest of them end, others begin, and some come back that had been left out.
        running = sorted(rng.choice(range(1000 + place % 50, 1200), num_running, replace=False))
        believed = finals.believed([int(number) for number in running])
        candidates = rng.random((60, 2)) * 2
        lengths.clear()
        found = believed.best(candidates, value)
        whole = copy.deepcopy(process)
        rows = np.array([settings[int(n)] for n in running]).reshape(-1, 2)
        expected = [
            (settings[int(n)], 1.0, -int(n), 0, float(mean))
            for n, mean in zip(running, whole.mean_of_settings(rows), strict=True)
        ]
        if expected:  # with their means, so that nothing is expected otherwise than before
            whole.see(Observations.of(expected, 2))
        means, deviations = whole.expected_of_settings(candidates)
        assert process.mean_of_settings(candidates) == pytest.approx(means, abs=1e-6)
        values = log_expected_improvement(means, deviations, best)
        assert values[found] == pytest.approx(values.max(), abs=1e-6)
        # All, the 16 leaders to their ends, and then the others as far as it takes.
        others = lengths[lengths.index(44) :]
        num_left_out += others[-1] < 44
    assert num_left_out > 10  # most often some of the 60 are not computed to the end


def test_the_covariance_of_a_trials_luck_is_what_the_kernel_has() -> None:
    process = CurveProcess(curves(np.random.default_rng(0), 20))
    row = np.array([[0.2, 0.3]])
    for progress in (0.3, 1.0):
        own = replace(at_the_end(row), trials=np.array([5.0]), progress=np.array([progress]))
        end = replace(at_the_end(row), trials=np.array([5.0]))
        apart = process.kernel(end, own) - process.kernel(at_the_end(row), own)
        assert process.luck_at_the_end(np.array([progress])) == pytest.approx(apart[0])
