"""Ray Tune's wrapper around a worker's trials."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ray import tune

from mmm.training.gpu_features import share_memory
from mmm.training.malloc import keep_freed_memory
from search.messages import as_json, orders_of
from search.worker.training_thread import Ahead


class TrialActor(tune.Trainable):
    """One actor runs many trials, so torch is imported once.

    What goes wrong inside a trial is a result, not an exception: Tune would throw the actor away,
    and a new one takes seconds to start.
    """

    def setup(self, config: Mapping[str, Any]) -> None:
        threads = config["threads"]
        torch.set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)
        keep_freed_memory()
        # Where Ray counts a GPU that PyTorch does not see, each trial says so by itself.
        if 0 < config["gpu_share"] < 1 and torch.cuda.is_available():
            share_memory(config["gpu_share"])
        self.trials = Ahead(orders_of(config["orders"]))

    def change(self, ended: Sequence[int], orders: str) -> None:
        """The trials `ended` are over; train these too from now on."""
        self.trials.change(ended, orders_of(orders))

    def step(self) -> dict[str, str]:
        # Never `done`: Tune would end the trial without showing the result to the scheduler. As
        # JSON, because Tune flattens nested dictionaries.
        return {"reports": as_json(self.trials.next())}

    def cleanup(self) -> None:
        self.trials.stop()
