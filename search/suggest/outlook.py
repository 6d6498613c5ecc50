"""What more trials are expected to gain, and what seeds alone make of a score: `--until-noise`."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from search.ledger.trial import Trial
from search.space.sampling import draws
from search.suggest.acquisition import NUM_STARTUP
from search.suggest.curve_model import Belief
from spaces import Space

_NUM_ANYWHERE, _NUM_NEAR, _NUM_BEST = 200, 100, 8  # settings that are looked at
_NUM_FUNCTIONS = 500  # drawn from the posterior


@dataclass(frozen=True)
class Outlook:
    """Both in the units of the score."""

    gain: float  # expected of the best settings over those that seem best now
    noise: float  # standard deviation of a final score over seeds, as the model has it


def outlook(space: Space, belief: Belief, trials: Mapping[int, Trial], seed: int) -> Outlook | None:
    """What the model of learning curves expects of going on; None while fewer than NUM_STARTUP
    trials have reached a rung.

    The gain is the expected regret of stopping: the mean, over functions drawn from the posterior,
    of the highest final score among settings tried, drawn anywhere and drawn near the best ones,
    less that of the settings with the highest expected score (Makarova et al. 2022,
    arXiv:2104.08166, bound the same regret by confidence limits). It is of the settings themselves,
    luck left out, and of endless trials: fewer gain less.
    """
    process = belief.process(trials)
    reached = [trial for trial in trials.values() if belief.reached(trial)]
    if process is None or len(reached) < NUM_STARTUP:
        return None
    # The same settings each time, as far as the best ones are: what differs is what was learnt.
    rng = np.random.default_rng(seed)
    anywhere = draws(space, [None] * _NUM_ANYWHERE, rng)
    rows = np.array([belief.row(trial) for trial in reached])
    means = process.mean_of_settings(rows)
    best = np.argsort(-means, kind="stable")[:_NUM_BEST]
    around = [reached[place].params for place in best]
    near = draws(space, [around[place % len(around)] for place in range(_NUM_NEAR)], rng)
    points = [*rows[best], *(belief.encoding(draw.params) for draw in anywhere + near)]
    functions = process.drawn_functions(np.array(points), _NUM_FUNCTIONS, rng)
    gain = functions.max(axis=1) - functions[:, 0]
    return Outlook(float(gain.mean()), process.seed_noise)
