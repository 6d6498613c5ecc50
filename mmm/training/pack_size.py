"""How many runs to train as one: measured on the machine, the data and the model that are to be
trained.
"""

import copy
import math
import time
from typing import TypedDict

import torch
from torch import Tensor

from mmm.training.fit import train_epoch
from mmm.training.pack import Pack
from mmm.training.run import Run, build_model, make_optimizer

SIZES = (4, 16)
# A GPU computes a pack of small heads hardly slower than one of them: what it costs are launches.
GPU_SIZES = (4, 16, 64, 256)
_NUM_BATCHES = 3
_BUSY_S = 0.05  # a step this long is matrix products for the most part, which a pack does no faster
_WORTH = 1.3  # a pack ties trials together and takes memory, so it has to win clearly


class PackTimes(TypedDict):
    """Such as {"seconds": {1: 0.0031, 4: 0.0017, 16: 0.0012}, "size": 16}."""

    seconds: dict[int, float]  # of a training step for each member, by the size of the pack
    size: int  # the one that is worth it


def measure_pack_sizes(run: Run, largest: int) -> PackTimes:
    """Train copies of a run in packs of several sizes; `run` is left as it is.

    Larger packs are not tried where a smaller one loses, and none where a single run keeps the
    machine busy.
    """
    seconds: dict[int, float] = {}
    sizes = SIZES if run.device.type == "cpu" else GPU_SIZES
    rows = torch.arange(min(num_rows(run), len(run.train)))
    for size in sorted({1, *(min(size, largest) for size in sizes)}):
        try:
            seconds[size] = _seconds_of_step([twin(run, member, rows) for member in range(size)])
        except RuntimeError:  # torch's, where memory does not suffice
            if size == 1:
                raise
            break
        if seconds[size] > min(seconds.values()) or seconds[1] > _BUSY_S:
            break
    best = min(seconds, key=lambda size: seconds[size])
    return {"seconds": seconds, "size": best if seconds[1] / seconds[best] >= _WORTH else 1}


def num_rows(run: Run) -> int:
    """Rows of a few batches, whole steps of them."""
    config = run.config
    return config.batch_size * config.accumulate * math.ceil(_NUM_BATCHES / config.accumulate)


def twin(run: Run, member: int, rows: Tensor) -> Run:
    """A run like this one with weights of its own, on these of its training rows (n,)."""
    config = run.config
    made = copy.copy(run)
    made.train = run.train.part(rows)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed + member)
        made.model = build_model(config, run.dims).to(run.device)
    made.optimizer = make_optimizer(config, made.model)
    return made


def _seconds_of_step(runs: list[Run]) -> float:
    # By the process's own time where that is what a core would take: other workers run beside this
    # one.
    on_gpu = runs[0].device.type == "cuda"
    clock = time.process_time if not on_gpu and torch.get_num_threads() == 1 else time.perf_counter
    pack = Pack(runs)
    train_epoch(pack)  # allocates
    started = clock()
    train_epoch(pack)  # ends by reading the losses, for which a GPU has to be done
    num_steps = math.ceil(len(runs[0].train) / runs[0].config.batch_size)
    return (clock() - started) / num_steps / len(runs)
