"""How many trials each system of a space gets before the search may leave it out."""

from collections import Counter
from collections.abc import Mapping

from optuna.distributions import CategoricalDistribution

from mmm.training.config import Params, ParamValue
from search.ledger.trial import Trial
from search.space.sampling import parameters_of
from spaces import Space

SYSTEM = "architecture"  # the parameter that chooses it


def systems_of_space(space: Space) -> tuple[ParamValue, ...]:
    """What a space chooses its system from; empty where it has no parameter of that name."""
    found = parameters_of(space).get(SYSTEM)
    return tuple(found.choices) if isinstance(found, CategoricalDistribution) else ()


class FairShare:
    """Lets systems take turns until each has had `least` trials, failed ones counted: a system
    that fails must not take the sweep. Compared with what a sampler left out early, a system wins
    by the trials that it was given.
    """

    def __init__(self, space: Space, least: int | None) -> None:
        """`least`: None leaves everything to the sampler."""
        self._least = least or 0
        self._systems = systems_of_space(space) if least else ()

    def next(self, trials: Mapping[int, Trial]) -> Params | None:
        """What the next trial has to have: the system with the fewest trials, the first of equals;
        None where each has had its share.
        """
        if not (owed := self._owed(trials)):
            return None
        return {SYSTEM: min(owed, key=lambda system: owed[system])}

    def is_owed(self, params: Params, trials: Mapping[int, Trial]) -> bool:
        """Whether another trial of the system of `params` leaves none of the others waiting."""
        owed = self._owed(trials)
        return not owed or params.get(SYSTEM) in owed

    def _owed(self, trials: Mapping[int, Trial]) -> dict[ParamValue, int]:
        """How many trials each system has had that has not had enough."""
        if not self._systems:
            return {}
        had = Counter(trial.params.get(SYSTEM) for trial in trials.values())
        return {system: had[system] for system in self._systems if had[system] < self._least}
