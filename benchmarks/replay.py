"""Virtual workers in simulated time: any searcher and scheduler against a task of
benchmarks/recording.py.

Our side is the real controller with its ledger, searcher and scheduler; the stock side are Ray
Tune's own OptunaSearch and ASHAScheduler objects, called in the order in which Tune's controller
calls them.
"""

import heapq
import logging
import tempfile
import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import optuna

from benchmarks.recording import Array, Curve, Task
from search.engine.controller import Controller
from search.ledger.events import create_sweep
from search.ledger.records import Epoch, Prior
from search.ledger.spec import SweepSpec
from search.messages import Report
from search.suggest.searcher import Searcher
from search.suggest.warm_start import load_priors

optuna.logging.set_verbosity(optuna.logging.ERROR)
METRIC = "macro_f1"


class Policy(Protocol):
    """Decides what is trained next and what is stopped."""

    def next(self, now: float) -> tuple[int, dict[str, Any]] | None:
        """Number and parameters of the next trial."""

    def report(self, number: int, epoch: int, score: float, seconds: float, now: float) -> bool:
        """An epoch has ended; True when the trial has to stop. The last epoch always stops it."""

    def close(self) -> None: ...


NUM_FINALISTS = 3


@dataclass(frozen=True)
class Trace:
    """How good a sweep is after each epoch of any trial. True scores are without noise, at the best
    observed epoch.

    `exported`: the true score of the trial with the best observed one. `confirmed`: the best true
    score among the three with the best observed ones, which is what training finalists again with
    new seeds would choose.
    """

    epochs: Array  # 1, 2, 3, ...
    seconds: Array  # simulated
    exported: Array
    confirmed: Array
    num_trials: int
    suggest_s: float  # spent on decisions, real seconds
    by_architecture: dict[str, int]

    def at(self, score: str, cost: str, points: Array) -> Array:
        """Score when the cost (`epochs` or `seconds`) is at each of `points`; 0 before the first
        epoch.
        """
        place = np.searchsorted(getattr(self, cost), points, side="right") - 1
        return np.where(place >= 0, getattr(self, score)[np.maximum(place, 0)], 0.0)


class _Best:
    """The finalists so far."""

    def __init__(self) -> None:
        self._of_trial: dict[int, tuple[float, float]] = {}  # observed, true
        self._finalists: list[int] = []
        self.exported = self.confirmed = 0.0

    def see(self, number: int, observed: float, true: float) -> None:
        if number in self._of_trial and observed <= self._of_trial[number][0]:
            return
        self._of_trial[number] = (observed, true)
        places = sorted({*self._finalists, number}, key=lambda one: -self._of_trial[one][0])
        self._finalists = places[:NUM_FINALISTS]
        self.exported = self._of_trial[places[0]][1]
        self.confirmed = max(self._of_trial[one][1] for one in self._finalists)


def simulate(
    task: Task, policy: Policy, workers: int, repeat: int, max_epochs: int, max_seconds: float
) -> Trace:
    """Run until both budgets are used up, or the policy has no more to train."""
    task.restart()
    queue: list[
        tuple[float, int, int, int, Curve]
    ] = []  # when an epoch ends, order, trial, epoch, its curve
    order, num_trials, spent = 0, 0, 0.0
    best = _Best()
    rows: list[tuple[float, float, float]] = []
    by_architecture: dict[str, int] = {}

    def start(now: float) -> None:
        nonlocal order, num_trials
        found = policy.next(now)
        if found is None:
            return
        number, params = found
        num_trials += 1
        by_architecture[params["architecture"]] = by_architecture.get(params["architecture"], 0) + 1
        curve = task.curve(params, np.random.default_rng((repeat, number)))
        heapq.heappush(queue, (now + float(curve.seconds[0]), order, number, 1, curve))
        order += 1

    for _ in range(workers):
        start(0.0)
    while queue:
        now, _, number, epoch, curve = heapq.heappop(queue)
        observed = float(curve.observed[epoch - 1])
        best.see(number, observed, float(curve.true[epoch - 1]))
        rows.append((now, best.exported, best.confirmed))
        if len(rows) >= max_epochs and now >= max_seconds:
            break
        began = time.process_time()
        if policy.report(number, epoch, observed, float(curve.seconds[epoch - 1]), now):
            start(now)
        else:
            heapq.heappush(
                queue, (now + float(curve.seconds[epoch]), order, number, epoch + 1, curve)
            )
            order += 1
        spent += time.process_time() - began
    policy.close()
    seconds, exported, confirmed = np.array(rows).T
    return Trace(
        np.arange(1, len(rows) + 1, dtype=float),
        seconds,
        exported,
        confirmed,
        num_trials,
        spent,
        by_architecture,
    )


class Ours:
    """The project's controller on a ledger in memory-backed storage."""

    def __init__(
        self,
        task: Task,
        seed: int,
        workers: int,
        *,
        first_rung: int | None = None,
        factor: int | None = None,
        known_good: bool = True,
        suggests: bool = True,
        expects: bool = True,
        priors: Sequence[Prior] = (),
        **options_of_searcher: Any,
    ) -> None:
        """`suggests`, `expects`: whether the model of learning curves suggests settings, and tells
        ASHA what to expect.
        """
        self.task, self.now = task, 0.0
        # whether `priors` are wanted in the end: this sweep, for another one to start from
        self.is_remembered = False
        root = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self._folder = tempfile.TemporaryDirectory(dir=root)
        options = {
            name: value
            for name, value in (("first_rung", first_rung), ("factor", factor))
            if value is not None
        }
        spec = SweepSpec(
            name="replay",
            space="full",
            manifest="",
            features="",
            trials=1_000_000,
            epochs=task.epochs,
            workers=workers,
            seed=seed,
            **options,
        )
        space = task.space if known_good else type(task.space)(task.space.suggest, ())
        self._open = ExitStack()
        self.ledger = self._open.enter_context(
            create_sweep(Path(self._folder.name) / "replay", spec, priors)
        )
        trials = self.ledger.history.trials
        searcher = Searcher(
            space,
            METRIC,
            seed,
            trials,
            priors=self.ledger.history.priors,
            rungs=[*spec.rungs, spec.epochs],
            **options_of_searcher,
        )
        self.controller = Controller(
            self.ledger, spec, space, "cpu", lambda: None, clock=lambda: self.now, searcher=searcher
        )
        if not suggests:
            searcher.proposer = None
        if not expects:
            searcher.belief = None
        self.controller.open_session("replay")

    def next(self, now: float) -> tuple[int, dict[str, Any]] | None:
        self.now = now
        orders = self.controller.next_orders()
        number = orders[0].number if orders else None
        return None if number is None else (number, dict(self.controller.trials[number].params))

    def report(self, number: int, epoch: int, score: float, seconds: float, now: float) -> bool:
        self.now = now
        entry = Epoch(
            epoch=epoch,
            train_loss=0.0,
            metrics={METRIC: score},
            seconds=seconds,
            alone_seconds=seconds,
            ended=now,
        )
        return self.controller.report(Report(number, [entry], is_last=epoch == self.task.epochs))

    def close(self) -> None:
        self._open.close()
        if self.is_remembered:
            self.priors = load_priors(str(self.ledger.folder), Path(self._folder.name), METRIC)
        self._folder.cleanup()


class Stock:
    """Ray Tune's OptunaSearch and ASHAScheduler at their defaults but for what is given. `sampler`:
    tpe, random, or one of Optuna's.
    """

    def __init__(
        self,
        task: Task,
        seed: int,
        *,
        grace_period: int = 1,
        reduction_factor: float = 4,
        sampler: str | optuna.samplers.BaseSampler = "tpe",
        asha: bool = True,
    ) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from ray.tune.schedulers import ASHAScheduler
            from ray.tune.search.optuna import OptunaSearch
        for name in ("ray", "ray.tune", "ray.tune.search.optuna"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self.task = task
        if sampler == "random":
            sampler = optuna.samplers.RandomSampler(seed=seed)
        own: dict[str, Any] = {"seed": seed} if sampler == "tpe" else {"sampler": sampler}
        self.searcher = OptunaSearch(
            space=lambda trial: dict(task.space.suggest(trial)), metric=METRIC, mode="max", **own
        )
        self.scheduler = None
        if asha:
            self.scheduler = ASHAScheduler(
                metric=METRIC,
                mode="max",
                max_t=task.epochs,
                grace_period=grace_period,
                reduction_factor=reduction_factor,
            )
        self.count = 0

    def next(self, now: float) -> tuple[int, dict[str, Any]] | None:
        number = self.count
        self.count += 1
        self.searcher.suggest(str(number))
        if self.scheduler is not None:
            self.scheduler.on_trial_add(None, _TuneTrial(str(number)))
        return number, self.searcher._ot_trials[str(number)].params

    def report(self, number: int, epoch: int, score: float, seconds: float, now: float) -> bool:
        name, result = str(number), {"training_iteration": epoch, METRIC: score}
        is_last = epoch == self.task.epochs
        stop = is_last
        if self.scheduler is not None:
            stop = self.scheduler.on_trial_result(None, _TuneTrial(name), result) == "STOP"
            assert stop or not is_last
        if stop:
            # Tune's controller shows the searcher the result that ended a trial only as its
            # completion.
            self.searcher.on_trial_complete(name, result)
            if self.scheduler is not None:
                self.scheduler.on_trial_complete(None, _TuneTrial(name), result)
        else:
            self.searcher.on_trial_result(name, result)
        return stop

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class _TuneTrial:
    trial_id: str


class OptunaHyperband:
    """Optuna alone: its default sampler and its HyperbandPruner."""

    def __init__(self, task: Task, seed: int) -> None:
        self.task = task
        pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=task.epochs)
        self.study = optuna.create_study(
            direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed), pruner=pruner
        )
        self.running: dict[int, optuna.Trial] = {}

    def next(self, now: float) -> tuple[int, dict[str, Any]] | None:
        trial = self.study.ask()
        self.task.space.suggest(trial)
        self.running[trial.number] = trial
        return trial.number, trial.params

    def report(self, number: int, epoch: int, score: float, seconds: float, now: float) -> bool:
        trial = self.running[number]
        trial.report(score, epoch)
        if epoch == self.task.epochs:
            self.study.tell(trial, score)
            return True
        if trial.should_prune():
            self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return True
        return False

    def close(self) -> None:
        pass
