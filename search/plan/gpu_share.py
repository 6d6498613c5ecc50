"""How many trials are to share a GPU: what the smallest and the largest settings of each system
take of it, measured before the first trial.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from search.ledger.spec import SweepSpec
from search.plan.rehearsal import DoesNotFit, Job, Rehearsed, rehearse
from search.storage.stage import Features

MOST = 16  # trials that share a GPU
# A setting that was not drawn may take more than the largest that was.
_MARGIN = 1.25
_CONTEXT_BYTES = 700 * 10**6  # that CUDA takes for each process (mmm/training/gpu_features.py)
# By how much twice as many at a time have to train faster. Two processes on an H200 trained 1.19
# times as fast as one, four 1.38 times (docs/LOG.md, 2026-11-27).
_WORTH = 1.1


@dataclass(frozen=True)
class Share:
    """How many trials are to share a GPU, and what was measured."""

    trials_of_gpu: int
    # By how many at a time; empty where the largest does not find room on the whole device.
    rehearsed: Mapping[int, Rehearsed]
    most_that_fit: int
    fault: str = ""  # why more at a time did not train, where that ended it

    @property
    def gpus_per_trial(self) -> float:
        """Cut to the four digits that Ray counts by, so that all of them find room."""
        return math.floor(1e4 / self.trials_of_gpu) / 1e4

    def __str__(self) -> str:
        follows = f"so --gpus-per-trial {self.gpus_per_trial:g}"
        if not self.rehearsed:
            return (
                "measured: the largest trials do not find room on the GPU in whole batches, even"
                f" alone; {follows}"
            )
        alone = self.rehearsed[1]
        largest = max(alone.taken, key=lambda one: one.peak_bytes)
        seconds = sorted(one.epoch_s for one in alone.taken)
        total = alone.device.total_bytes
        rates = ", ".join(
            f"{number} {alone.seconds / found.seconds:.2f}"
            for number, found in sorted(self.rehearsed.items())
            if number > 1
        )
        parts = (
            f"measured on {alone.device.name}{'' if total is None else f' ({_size(total)})'}: the"
            f" smallest and the largest settings of each system, {len(alone.taken)} in all, take"
            f" {seconds[0]:.2g} to {seconds[-1]:.2g} s an epoch and at most"
            f" {_size(largest.peak_bytes)} ({largest.case.settings['architecture']})",
            f"there is room and work for {self.most_that_fit} at a time",
            f"times as fast as one at a time: {rates}" if rates else "",
            self.fault,
            follows,
        )
        return "; ".join(part for part in parts if part)


def _size(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"


def most_that_fit(total_bytes: int | None, largest_bytes: int, limit: int = MOST) -> int:
    """How many trials, `limit` at most, have room on a device at a time where the largest takes so
    much; one has always, for it may be trained in parts of a batch.
    """
    if total_bytes is None:
        return limit
    needed = _MARGIN * largest_bytes + _CONTEXT_BYTES
    return max(1, min(limit, int(total_bytes / needed)))


def to_try(most: int) -> list[int]:
    """How many at a time are worth a try beyond one, in this order: twice as many again and again,
    and the most.
    """
    doubled = [2**power for power in range(1, most.bit_length()) if 2**power < most]
    return [*doubled, most] if most > 1 else []


def is_worth_it(before: float, after: float) -> bool:
    """Whether more trials at a time, which took `after` seconds of a device each, are so much
    faster than fewer, which took `before`.
    """
    return before / after >= _WORTH


def decide(alone: Rehearsed, again: Callable[[int], Rehearsed], most: int) -> Share:
    """How many trials, `most` at most, are to share a device, of which is known what they take
    `alone`; `again` rehearses so many at a time, and raises DoesNotFit or ValueError.
    """
    most = most_that_fit(alone.device.total_bytes, max(one.peak_bytes for one in alone.taken), most)
    rehearsed, chosen, fault = {1: alone}, 1, ""
    for number in to_try(most):
        try:
            rehearsed[number] = again(number)
        except (DoesNotFit, ValueError) as error:
            fault = f"{number} at a time failed ({error})"
            break
        if not is_worth_it(rehearsed[chosen].seconds, rehearsed[number].seconds):
            break
        chosen = number
    return Share(chosen, rehearsed, most, fault)


def measure(job: Job, most: int) -> Share:
    """Measure on the GPU of this machine, in processes of their own; `most` trials share it at
    most. Raises ValueError where a trial cannot be trained there for another reason than memory.
    """
    try:
        alone = rehearse(job, 1)
    except DoesNotFit:
        return Share(1, {}, 1)
    except ValueError as error:
        raise ValueError(
            f"--gpus-per-trial auto: {error}; name a share to go without, for example"
            " --gpus-per-trial 0.25"
        ) from error
    job = replace(job, cases=tuple(one.case for one in alone.taken))
    return decide(alone, lambda number: rehearse(job, number), most)


def measure_there(
    job: Job, most: int, features_url: str | None, cache: str | None, num_cores: float
) -> Share:
    """The same on a node of a cluster that has `num_cores` for a GPU, and brings features of a URL
    to its own disk.
    """
    if features_url is not None:
        features = Features(features_url, None if cache is None else Path(cache))
        for case in job.cases:
            job = replace(job, features=str(features.bring_for(case.key)))
    return measure(job, limit(most, 1, num_cores))


def gpus_here() -> int:
    """GPUs of this machine. Raises ValueError where there are none."""
    if not (number := torch.cuda.device_count()):
        raise ValueError(
            "--gpus-per-trial auto: this machine has 0 usable GPUs; leave it out, or name a cluster"
            " that has some with --address"
        )
    return number


def limit(num_trials: int, num_gpus: float, num_cores: float) -> int:
    """How many of `num_trials` at a time share a GPU at most, where each also wants a core."""
    return max(1, min(MOST, math.ceil(num_trials / num_gpus), int(num_cores / num_gpus)))


def with_share(
    spec: SweepSpec, share: Share, workers: int | None, num_gpus: int | None
) -> SweepSpec:
    """A specification with what was measured. On this machine, with so many GPUs, there are as many
    workers as find room, or as were asked for if those are fewer; on a cluster (None) as many as
    were asked for: the others wait.
    """
    spec = replace(spec, gpus_per_trial=share.gpus_per_trial)
    if num_gpus is None:
        return spec
    room = num_gpus * share.trials_of_gpu
    return replace(spec, workers=min(workers or room, room))
