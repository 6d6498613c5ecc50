"""What to try next: the settings from which the model of learning curves expects the most for their
cost.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import ndtr

from mmm.training.config import Params
from search.ledger.trial import Trial
from search.space.sampling import draws
from search.suggest.curve_model import Belief
from search.suggest.finals import Finals, Places
from search.suggest.gaussian_process import Array, CurveProcess, Observations
from spaces import Space

# Chosen in benchmarks/search_quality.py on the recording `demo`: with fewer, or less exploring, it
# settles on what learns fast.
NUM_STARTUP = 25  # trials with a score at the first rung, before which settings are drawn at random
# suggestions at the start that other sweeps lead; more leave too little that was drawn at random to
# learn from
NUM_LED = 8
# of the later suggestions are drawn at random: never far behind random search, and something new to
# learn from
_EXPLORE = 0.25
_NUM_CANDIDATES = 150
_NUM_BEST = 8  # settings near which half of the candidates are drawn
_MAX_BEST_OF = 400  # trials among which they are looked for
_MAX_TIMED = 400  # trials that predict seconds
# Running trials, the newest, that are believed: those before them have mostly been seen at a rung,
# and what they cost a suggestion grows with the square of their number.
_MAX_BELIEVED = 200


class Proposer:
    """Proposes parameters from a sweep's trials: a function of them.

    Expected improvement (Jones et al. 1998) of the best expected final score, over the predicted
    seconds to the power of `cost_weight` (Snoek et al. 2012, section 3.2); running trials are
    believed to turn out as expected.
    """

    def __init__(self, space: Space, belief: Belief, cost_weight: float) -> None:
        self.space, self.belief, self.cost_weight = space, belief, cost_weight

    def propose(
        self,
        trials: Mapping[int, Trial],
        rng: np.random.Generator,
        fixed: Params | None = None,
    ) -> Params | None:
        """Parameters for the next trial, the `fixed` ones among them; None where they are to be
        drawn at random.
        """
        belief = self.belief
        finals = belief.finals(trials)
        if finals is None:
            return None
        if len(belief.tried) < NUM_STARTUP:
            if (
                not belief.priors
                or sum(trial.queued is None for trial in trials.values()) >= NUM_LED
            ):
                return None
        elif rng.random() < _EXPLORE:
            return None
        anywhere = draws(self.space, [None] * (_NUM_CANDIDATES // 2), rng, fixed)
        if not anywhere:
            return None
        mean, params = self._tried(finals, trials)
        around = [params[place] for place in np.argsort(-mean, kind="stable")[:_NUM_BEST]]
        places = rng.integers(len(around), size=_NUM_CANDIDATES // 2)
        near = draws(self.space, [around[place] for place in places], rng, fixed)
        candidates = [draw.params for draw in anywhere + near]
        points = np.array([belief.encoding(one) for one in candidates])
        best, cost = float(mean.max()), np.zeros(len(points))
        if self.cost_weight:
            tried = [trials[number] for number in sorted(belief.tried)]
            cost = self.cost_weight * self._log_seconds(tried, points)

        def value(means: Array, deviations: Array, places: Places) -> Array:
            return np.asarray(log_expected_improvement(means, deviations, best) - cost[places])

        believed = finals.believed(belief.running[-_MAX_BELIEVED:])
        return candidates[believed.best(points, value)]

    def _tried(self, finals: Finals, trials: Mapping[int, Trial]) -> tuple[Array, Sequence[Params]]:
        """Settings that were tried, here or, where nothing was yet, elsewhere: final scores that
        are expected (N,), and their parameters.
        """
        tried = self.belief.tried
        if not tried:
            rows = np.array([row for row, _ in self.belief.priors])
            return finals.process.mean_of_settings(rows), [one for _, one in self.belief.priors]
        numbers = np.array(sorted(tried))
        # Among many, those that did best so far.
        if len(numbers) > _MAX_BEST_OF:
            best = np.array([tried[number] for number in numbers.tolist()])
            numbers = numbers[np.argsort(-best, kind="stable")[:_MAX_BEST_OF]]
        chosen = numbers.tolist()
        return finals.means(chosen), [trials[number].params for number in chosen]

    def _log_seconds(self, trials: list[Trial], points: Array) -> Array:
        """Logarithm of the seconds of an epoch that each of `points` is expected to take."""
        timed = [trial for trial in trials if trial.alone_seconds > 0][-_MAX_TIMED:]
        if not timed:
            return np.zeros(len(points))
        width = self.belief.encoding.width
        rows = [
            (
                self.belief.row(trial),
                1.0,
                trial.number,
                0,
                math.log(trial.alone_seconds / len(trial.all_epochs)),
            )
            for trial in timed
        ]
        theta = np.array([math.log(1.5)] * width + [0.0, -6.0, math.log(0.05), 0.0, 0.0, 0.0])
        return CurveProcess(Observations.of(rows, width), theta).mean_of_settings(points)


def log_expected_improvement(mean: Array, deviation: Array, best: float) -> Array:
    """Logarithm of the expected improvement over `best`, of each point; finite however unlikely it
    is.
    """
    z = (mean - best) / deviation
    improvement = z * ndtr(z) + np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    # Far below, the difference above is lost in rounding; it behaves as density / z^2.
    far = -0.5 * z**2 - math.log(math.sqrt(2 * math.pi)) - 2 * np.log(np.maximum(-z, 1.0))
    near = np.log(np.maximum(improvement, 1e-300))
    return np.log(deviation) + np.where(z > -5, near, far)  # type: ignore[no-any-return]
