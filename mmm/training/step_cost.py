"""What a run's training steps take of a device, memory and time, measured on a few of them."""

import math
import time
from dataclasses import replace

import torch

from mmm.training.evaluate import pack_probabilities
from mmm.training.fit import train_epoch
from mmm.training.gpu_features import resident_bytes
from mmm.training.malloc import forget_peak, give_back, peak_kb
from mmm.training.pack import Pack
from mmm.training.pack_size import num_rows, twin
from mmm.training.run import Run


class Steps:
    """A few training steps of a run, or of a pack of runs like it, which may be timed; the run
    itself is left as it is.

    Raises torch.OutOfMemoryError where the device has not got the memory.
    """

    def __init__(self, run: Run, num_members: int = 1) -> None:
        """Trains the longest rows for their memory, and some of all lengths to warm up."""
        # What is learned decides nothing here.
        run = replace(run, config=replace(run.config, lr=1e-4))
        config, device = run.config, run.device
        _forget_peak(device)
        held = _peak_bytes(device)
        at_once = config.batch_size * config.accumulate
        longest = run.train.lengths.argsort(descending=True, stable=True)[:at_once]
        self._pack = Pack([twin(run, member, longest) for member in range(num_members)])
        train_epoch(self._pack)
        by_length = run.dev.lengths.argsort(descending=True, stable=True)
        pack_probabilities(self._pack, run.dev.part(by_length[: config.batch_size]), device)
        # Bytes that training takes at most, without the features that lie on a GPU (where they find
        # no room they come from the host); of a CPU the growth of the process.
        self.peak_bytes = max(_peak_bytes(device) - (held if device.type == "cpu" else 0), 0)
        number = min(num_rows(run), len(run.train))
        spread = ((torch.arange(number) + 0.5) / number * len(run.train)).long()
        for one in self._pack.runs:
            one.train = run.train.part(spread)
        self._steps_of_epoch = math.ceil(len(run.train) / config.batch_size)
        self._num_steps = math.ceil(number / config.batch_size)
        train_epoch(self._pack)
        started = time.perf_counter()
        train_epoch(self._pack)
        self.pass_s = time.perf_counter() - started  # of the few steps, once

    def epoch_seconds(self, num_passes: int) -> float:
        """Seconds that an epoch of one member takes, by so many passes over the few steps."""
        started = time.perf_counter()
        for _ in range(num_passes):
            train_epoch(self._pack)  # ends by reading the losses, for which a GPU has to be done
        step_s = (time.perf_counter() - started) / num_passes / self._num_steps
        return step_s * self._steps_of_epoch / len(self._pack.runs)


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    else:
        give_back()
        forget_peak()


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) - resident_bytes(device)
    return peak_kb() * 1024
