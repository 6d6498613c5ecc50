"""How many trials are to share a GPU: what the smallest and the largest settings of each system
take of it, measured before the first trial.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mmm.manifest_csv import manifest_text
from mmm.training.config import TrainConfig
from search.engine.pack_sizes import PackSizes
from search.plan.checks import Checked
from search.plan.cost import relative_size
from search.plan.rehearsal import Case, DoesNotFit, Job, Rehearsed, Taken, rehearse
from search.space.sampling import draw
from search.space.settings import precision_of, sweep_precisions, trial_config
from search.storage.stage import Features

MOST = 16  # trials that share a GPU
_NUM_DRAWS = 300
# A setting that was not drawn may take more than the largest that was.
_MARGIN = 1.25
_CONTEXT_BYTES = 700 * 10**6  # that CUDA takes for each process (mmm/training/gpu_features.py)
# By how much twice as many at a time have to train faster. Two processes on an H200 trained 1.19
# times as fast as one, four 1.38 times (docs/LOG.md, 2026-11-27).
_WORTH = 1.1


@dataclass(frozen=True)
class Measured:
    """What was measured, and what follows."""

    rehearsed: Mapping[int, Rehearsed]  # by how many at a time
    most_that_fit: int
    trials_of_gpu: int

    @property
    def gpus_per_trial(self) -> float:
        """Cut to the four digits that Ray counts by, so that all of them have room."""
        return math.floor(1e4 / self.trials_of_gpu) / 1e4

    @property
    def largest(self) -> Taken:
        """What took the most memory, alone."""
        return max(self.rehearsed[1].taken, key=lambda one: one.peak_bytes)

    def __str__(self) -> str:
        alone, largest = self.rehearsed[1], self.largest
        seconds = sorted(one.epoch_s for one in alone.taken)
        systems = {one.case.settings["architecture"] for one in alone.taken}
        total = alone.device.total_bytes
        rates = ", ".join(
            f"{number} {alone.seconds / found.seconds:.2f}"
            for number, found in sorted(self.rehearsed.items())
            if number > 1
        )
        return (
            f"measured on {alone.device.name}: {len(alone.taken)} settings, the smallest and the"
            f" largest of {len(systems)} systems, take {seconds[0]:.2g} to {seconds[-1]:.2g} s an"
            f" epoch and at most {_size(largest.peak_bytes)}"
            f"{'' if total is None else f' of {_size(total)}'}"
            f" ({largest.case.settings['architecture']}), so that {self.most_that_fit} at a time"
            f" find room"
            + (f"; times as fast as one at a time: {rates}" if rates else "")
            + f"; so --gpus-per-trial {self.gpus_per_trial:g}"
        )


def _size(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.2g} GB"


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
    return [*(2**power for power in range(1, most.bit_length()) if 2**power < most), most][
        : None if most > 1 else 0
    ]


def is_worth_it(before: float, after: float) -> bool:
    """Whether more trials at a time, which took `after` seconds of a device each, are so much
    faster than fewer, which took `before`.
    """
    return before / after >= _WORTH


def measure(job: Job, most: int) -> Measured:
    """Measure on the GPU of this machine, in processes of their own; `most` trials share it at
    most.

    Raises ValueError where not even one can be trained.
    """
    try:
        alone, passes = rehearse(job, 1)
    except DoesNotFit as error:
        raise ValueError(f"the largest trial alone does not fit the GPU ({error})") from None
    rehearsed, chosen = {1: alone}, 1
    most = most_that_fit(alone.device.total_bytes, max(one.peak_bytes for one in alone.taken), most)
    job = replace(job, cases=tuple(one.case for one in alone.taken))
    for number in to_try(most):
        try:
            rehearsed[number], _ = rehearse(job, number, passes)
        except (DoesNotFit, ValueError):  # one alone was trained
            break
        if not is_worth_it(rehearsed[chosen].seconds, rehearsed[number].seconds):
            break
        chosen = number
    return Measured(rehearsed, most, chosen)


def measure_there(
    job: Job, most: int, features_url: str | None, cache: str | None, num_cores: float
) -> Measured:
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


def job_of(checked: Checked, device: str = "cuda") -> Job:
    """The smallest and the largest settings of each system, to be rehearsed."""
    spec, check = checked.spec, checked.settings_check
    precisions = sweep_precisions(spec)
    manifest = check.manifest
    return Job(
        manifest=spec.manifest,
        manifest_text=manifest_text(manifest),
        manifest_sha256=manifest.sha256,
        classes=manifest.classes,
        features=spec.features,
        fold=1 if spec.folds else None,
        device=device,
        cases=tuple(
            Case(
                config.params(),
                spec.features_key(config),
                precision_of(precisions, config.architecture),
                *PackSizes(spec).at_first(config.params()),
            )
            for config in _ends(list(_drawn(checked)), checked)
        ),
    )


def _drawn(checked: Checked) -> Iterator[TrainConfig]:
    for _, _, settings in draw(checked.space, _NUM_DRAWS):
        try:
            yield trial_config(settings, checked.spec)
        except ValueError:
            continue  # such trials end failed


def _ends(configs: Sequence[TrainConfig], checked: Checked) -> Iterator[TrainConfig]:
    """The smallest and the largest of each system, by what a batch of them computes."""

    def size(config: TrainConfig) -> float:
        return config.batch_size * relative_size(config, checked.settings_check.features(config))

    for architecture in dict.fromkeys(config.architecture for config in configs):
        ordered = sorted(
            (config for config in configs if config.architecture == architecture), key=size
        )
        yield from dict.fromkeys((ordered[0], ordered[-1]))
