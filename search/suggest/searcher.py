"""The searcher: Optuna's ask and tell over the ledger's history. Nothing is kept that the ledger
does not hold.
"""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import optuna
from optuna.distributions import json_to_distribution
from optuna.trial import TrialState, create_trial
from threadpoolctl import ThreadpoolController

from mmm.training.config import Params
from search.ledger.records import Prior
from search.ledger.trial import Trial
from search.space.load import as_texts, ask
from search.space.sampling import parameters_of
from search.space.study import new_study
from search.suggest.acquisition import Proposer
from search.suggest.curve_model import Belief
from search.suggest.outlook import Outlook, outlook
from spaces import Space

SAMPLERS = ("model", "tpe", "random")
COST_WEIGHT = 0.0
_TPE_STARTUP = 10


class Searcher:
    """Suggests settings from the history of trials, through Optuna's ask and tell.

    `model`: expected improvement by a model of learning curves (search/suggest/acquisition.py,
    search/suggest/curve_model.py). `tpe`: Optuna's TPE (Bergstra et al. 2011) with independent
    parameters, trials stopped early told as PRUNED. `random`: what it says. Each suggestion has a
    random generator of its own, seeded by (seed, number), so that the next suggestion depends on
    the history alone and not on what this process did before.
    """

    def __init__(
        self,
        space: Space,
        metric: str,
        seed: int,
        trials: Mapping[int, Trial],
        queue: Sequence[Params] | None = None,
        *,
        rungs: Sequence[int] = (),
        sampler: str = "model",
        cost_weight: float = COST_WEIGHT,
        priors: Sequence[Prior] = (),
        num_folds: int = 1,
    ) -> None:
        """`trials` is the ledger's, followed as it grows; `rungs` end with the last epoch; `priors`
        are trials of others.

        `queue`: the points to suggest next, in this order; None: the known good ones of the space
        that `trials` has not had.
        """
        self.space, self.metric, self.seed, self.trials, self.sampler = (
            space,
            metric,
            seed,
            trials,
            sampler,
        )
        self.queue = list(space.known_good[len(trials) :] if queue is None else queue)
        self.belief = (
            Belief(parameters_of(space), metric, rungs, priors, num_folds)
            if sampler == "model" and rungs
            else None
        )
        self.proposer = (
            Proposer(space, self.belief, cost_weight) if self.belief is not None else None
        )
        # One thread: these matrices are too small for several, which would take the processor from
        # the workers, and another machine's number of them would round in another way.
        self._threads = ThreadpoolController()
        self.study = new_study()
        self._running: dict[int, optuna.Trial] = {}
        for number in sorted(trials):
            self.add(trials[number])

    def add(self, trial: Trial) -> None:
        """Put a trial of the ledger into the study, with its true state and all its values."""
        distributions = {
            name: json_to_distribution(text) for name, text in trial.distributions.items()
        }
        states = {
            "running": TrialState.RUNNING,
            "complete": TrialState.COMPLETE,
            "pruned": TrialState.PRUNED,
        }
        scores = {} if trial.is_lost else trial.scores(self.metric)
        best = trial.best(self.metric)
        # The sampler ignores failed trials: it is told PRUNED where there are scores, so that it
        # avoids the region. One whose workers died is a failed one without any.
        state = states.get(trial.state, TrialState.PRUNED if scores else TrialState.FAIL)
        self.study.add_trial(
            create_trial(
                state=state,
                params=dict(trial.params),
                distributions=distributions,
                intermediate_values=scores,
                value=best[1] if best and state == TrialState.COMPLETE else None,
                user_attrs={"state": trial.state},
            )
        )

    def suggest(
        self, number: int, fixed: Params | None = None, place: int = 0
    ) -> tuple[Params, Mapping[str, str], Params]:
        """Parameters, their distributions as JSON, and the settings the space makes of them, for
        trial `number`.

        The point at `place` in the queue comes first; with `fixed` parameters it is a companion of
        another trial, and the queue waits.

        Raises SpaceError where the space's function fails; that trial is to be told as failed.
        """
        digest = hashlib.blake2b(f"{self.seed} {number}".encode(), digest_size=4).digest()
        seed = int.from_bytes(digest, "little")
        if self.sampler == "tpe":
            self.study.sampler = optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=_TPE_STARTUP, multivariate=False, constant_liar=True
            )
        else:
            self.study.sampler = optuna.samplers.RandomSampler(seed=seed)
        if self.queue and fixed is None:
            self.study.enqueue_trial(dict(self.queue.pop(place)))
        else:
            point = None
            if self.proposer is not None:
                with self._threads.limit(limits=1):
                    point = self.proposer.propose(self.trials, np.random.default_rng(seed), fixed)
            if point is None and fixed is not None:
                point = {**fixed}  # the sampler draws the rest
            if point is not None:
                self.study.enqueue_trial(dict(point))
        trial = self.study.ask()
        assert trial.number == number, (trial.number, number)
        self._running[number] = trial
        settings = ask(self.space, trial, "the space failed")
        return dict(trial.params), as_texts(trial.distributions), settings

    def expected(self, numbers: Sequence[int]) -> dict[int, float] | None:
        """Final scores expected of trials that reached a rung; None while there is too little to go
        by.
        """
        if self.belief is None:
            return None
        with self._threads.limit(limits=1):
            found = self.belief.expected(self.trials, numbers)
        return None if found is None else dict(zip(numbers, found.tolist(), strict=True))

    def outlook(self) -> Outlook | None:
        """What going on is expected to gain; None while there is too little to go by."""
        if self.belief is None:
            return None
        with self._threads.limit(limits=1):
            return outlook(self.space, self.belief, self.trials, self.seed)

    def tell(self, trial: Trial) -> None:
        """Tell a trial's end: all its epochs' scores, the last included, then its state."""
        running = self._running.pop(trial.number, None)
        if (
            running is None
        ):  # it was running when an earlier session ended; only its record is in the study
            running = optuna.Trial(
                self.study, self.study.get_trials(deepcopy=False)[trial.number]._trial_id
            )
        scores = {} if trial.is_lost else trial.scores(self.metric)
        known = self.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        for epoch, score in scores.items():
            if epoch not in known:  # an earlier session's epochs are there
                running.report(score, epoch)
        running.set_user_attr("state", trial.state)
        best = trial.best(self.metric)
        if trial.state == "complete":
            assert best is not None
            self.study.tell(running, best[1])
        else:
            # Never with a value: Optuna takes the last intermediate one.
            self.study.tell(running, state=TrialState.PRUNED if scores else TrialState.FAIL)
