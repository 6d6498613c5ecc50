"""How many trials to expect at each rung: ASHA's decisions on made-up scores."""

import heapq
import random
from dataclasses import dataclass

from search.engine.asha import decide
from search.ledger.records import Epoch
from search.ledger.spec import SweepSpec
from search.ledger.trial import Trial

_MAX_SIMULATED = 100  # trials; more reach the rungs in the same proportions
_NUM_SIMULATIONS = 10


@dataclass(frozen=True)
class Rungs:
    """How many trials are expected to be trained up to each epoch at which ASHA decides, and to the
    last.
    """

    epochs: tuple[int, ...]
    trials: tuple[float, ...]
    num_folds: int = 1  # of each trial that is trained to the last epoch

    @property
    def total_epochs(self) -> float:
        """At most: of the folds after the first some are given up."""
        before = (0, *self.epochs)
        of_first = sum(
            number * (epoch - start)
            for number, epoch, start in zip(self.trials, self.epochs, before, strict=False)
        )
        return of_first + (self.num_folds - 1) * self.trials[-1] * self.epochs[-1]


def expected_rungs(spec: SweepSpec, learned_sd: float = 0.0) -> Rungs:
    """The scheduler's own decisions on made-up trials, averaged; each trial keeps its score from
    rung to rung.

    `learned_sd`: how much better the last trial is than the first, in standard deviations; 0 ranks
    them at random.
    """
    stages = [*spec.rungs, spec.epochs]
    num_trials = min(spec.trials, _MAX_SIMULATED)
    chance = random.Random(spec.seed)  # noqa: S311
    reached = [0] * len(stages)
    for _ in range(_NUM_SIMULATIONS):
        scores = [chance.gauss() + learned_sd * number / num_trials for number in range(num_trials)]
        # Trials differ in how long an epoch takes, so they overtake each other.
        pace = [2 ** chance.uniform(-1, 1) for _ in range(num_trials)]
        trials: dict[int, Trial] = {}
        queue: list[tuple[float, int, int]] = []
        waiting = iter(range(num_trials))
        for number in [next(waiting) for _ in range(min(spec.workers, num_trials))]:
            heapq.heappush(queue, (pace[number] * stages[0], number, 0))
        while queue:
            now, number, stage = heapq.heappop(queue)
            reached[stage] += 1
            trial = trials.setdefault(number, Trial(number, {}, {}, {}, 0.0))
            trial.add_epoch(
                Epoch(
                    epoch=stages[stage],
                    train_loss=0.0,
                    metrics={spec.metric: scores[number]},
                    seconds=0.0,
                    alone_seconds=0.0,
                    ended=0.0,
                )
            )
            is_last = stage == len(stages) - 1
            if (
                not is_last
                and not decide(trials, number, stages[stage], spec.metric, spec.factor).stop
            ):
                heapq.heappush(
                    queue,
                    (now + pace[number] * (stages[stage + 1] - stages[stage]), number, stage + 1),
                )
            elif (following := next(waiting, None)) is not None:
                heapq.heappush(queue, (now + pace[following] * stages[0], following, 0))
    scale = spec.trials / num_trials / _NUM_SIMULATIONS
    return Rungs(
        tuple(stages), tuple(number * scale for number in reached), max(1, spec.folds or 1)
    )
