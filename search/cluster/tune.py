"""Runs a sweep on Ray: starts or joins a cluster, lets Ray Tune schedule workers, leaves decisions
to the controller.

A trial of Ray Tune is a seat here: a worker that trains one trial of the ledger after the other, or
several together. To end one of Tune's trials for each of ours would cost about 20 ms of the
driver's time and another round trip.
"""

import logging
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher as TuneSearcher

from search.cluster.actor import TrialActor
from search.cluster.connect import Place, wanted_by
from search.cluster.deaths import cause_of_death, death_of
from search.cluster.fitness import Fitness
from search.cluster.growing import Growing
from search.cluster.watch import HeadWatch, Silence, Watch
from search.engine.controller import Controller
from search.ledger.files import SEALED
from search.messages import as_json, reports_of


class _NeverRestored:
    """Tune pickles its parts to restore them, which is never done: the ledger has everything."""

    def __getstate__(self) -> dict[str, object]:
        return {}


class SeatSearcher(_NeverRestored, TuneSearcher):
    """Ray Tune asks the controller what a new seat is to train first."""

    def __init__(
        self,
        controller: Controller,
        threads: int,
        seats: dict[str, list[int]],
        growing: Growing | None = None,
    ) -> None:
        """`growing`: the cluster; a Ray of our own has room for all."""
        super().__init__()
        self.controller, self.threads, self.seats = controller, threads, seats
        self.growing = growing

    def suggest(self, trial_id: str) -> dict[str, object] | str | None:
        # A trial is not begun, on record, where it would only wait for a node.
        num_seats = sum(map(bool, self.seats.values()))
        if self.growing is not None and not self.growing.may_begin(num_seats):
            if self.growing.is_hopeless and not num_seats:
                faults = "; ".join(self.growing.fitness.faults)
                self.controller.verdicts.break_off(f"no node of the cluster may train: {faults}")
            return None if self._has_work() else TuneSearcher.FINISHED
        orders = self.controller.next_orders()
        if orders:
            self.seats[trial_id] = [order.number for order in orders]
            avoid = [] if self.growing is None else list(self.growing.unfit)
            return {
                "orders": as_json(orders),
                "threads": self.threads,
                "gpu_share": self.controller.spec.gpus_per_trial,
                "avoid": avoid,
            }
        return None if self._is_lived_in() else TuneSearcher.FINISHED

    def _has_work(self) -> bool:
        return self._is_lived_in() or (
            self.controller.orders.has_work and self.controller.verdicts.may_order()
        )

    def _is_lived_in(self) -> bool:
        # While a worker lives, what it trains may come back to be trained by another.
        return any(self.seats.values())

    def on_trial_complete(self, trial_id: str, result: object = None, error: bool = False) -> None:
        """The scheduler has seen the end already."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: it is never restored."""


class SeatScheduler(_NeverRestored, FIFOScheduler):
    """Ray Tune shows the controller every result; a seat whose trials have ended gets the next
    ones, or is given up.
    """

    def __init__(
        self, controller: Controller, seats: dict[str, list[int]], silence: Silence
    ) -> None:
        super().__init__()
        self.controller, self.silence = controller, silence
        self.seats = seats  # Tune's id of a seat -> our trials in it

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Mapping[str, str]) -> str:
        seat = self.seats[trial.trial_id]
        ended, orders = self.controller.hear(seat, reports_of(result["reports"]))
        # An actor does what it is told in the order it is told: this comes before the step that
        # Tune asks for next.
        if ended or orders:
            trial.temporary_state.ray_actor.change.remote(ended, as_json(orders))
        self.silence.heard(trial.trial_id, is_new=bool(orders))
        return str(TrialScheduler.CONTINUE if seat else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        # Only a worker that died comes here: what a trial raises is in its report. Tune gives its
        # place to another one.
        file = Path(trial.error_file or "")
        text = file.read_text() if file.is_file() else ""
        numbers = self.seats[trial.trial_id]
        if "The actor never ran" in text:
            self.controller.give_back(list(numbers), cause_of_death(text))
        else:
            why = self.silence.ended.pop(trial.trial_id, None) or cause_of_death(text)
            self.controller.lose(list(numbers), why, text, death_of(text))
        numbers.clear()


def train_on_ray(
    controller: Controller, threads: int, place: Place, tell: Callable[[str], None]
) -> None:
    """Train on the Ray that is connected until the controller has nothing more to order. Returns
    also when the user interrupts it. `tell` is told of what waits.
    """
    spec, wanted = controller.spec, wanted_by(controller.spec, threads)
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    seats: dict[str, list[int]] = {}
    silence, folder = Silence(), controller.ledger.folder

    # What the manifest is to trials, once it is there, lies in the folder.
    readable = [] if (folder / SEALED).is_file() else [spec.manifest]
    if spec.features_url is None:  # else each node brings them to its own disk
        readable.append(spec.features)

    def request(config: Mapping[str, Any]) -> tune.PlacementGroupFactory:
        if not config["avoid"]:
            return tune.PlacementGroupFactory([wanted])
        others = {"ray.io/node-id": f"!in({','.join(config['avoid'])})"}
        return tune.PlacementGroupFactory([wanted], bundle_label_selector=[others])

    with (
        HeadWatch(folder, is_own=place.cluster is None),
        Fitness(folder, readable, tell) as fitness,
        tempfile.TemporaryDirectory(prefix="mmm-search-", ignore_cleanup_errors=True) as scratch,
    ):
        growing = None
        if place.cluster is not None:
            growing = Growing(wanted, spec.workers, place.cluster.grows, fitness, tell)
            growing.wait()
        tune.Tuner(
            tune.with_resources(TrialActor, request),
            tune_config=tune.TuneConfig(
                search_alg=SeatSearcher(controller, threads, seats, growing),
                scheduler=SeatScheduler(controller, seats, silence),
                num_samples=-1,
                # As many as there are workers and not one more: Tune would start an actor for it
                # and kill it again.
                max_concurrent_trials=spec.workers,
            ),
            run_config=tune.RunConfig(
                name=spec.name,
                storage_path=scratch,
                verbose=0,
                callbacks=[Watch(controller, seats, silence, tell)],
                checkpoint_config=tune.CheckpointConfig(
                    checkpoint_frequency=0, checkpoint_at_end=False
                ),
            ),
        ).fit()
