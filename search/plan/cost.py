"""What a trial costs, measured: a little training of a few drawn settings of each architecture, on
the real features.
"""

import math
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from mmm.models import ARCHITECTURES
from mmm.training.batches import SplitData
from mmm.training.config import TrainConfig
from mmm.training.evaluate import evaluate
from mmm.training.features import Features
from mmm.training.fit import EpochResult, fit
from mmm.training.malloc import forget_peak, peak_kb
from mmm.training.run import Run, begin
from search.space.settings import SettingsCheck, precision_of, sweep_precisions

_QUANTILES = (
    1 / 2,
    1 / 6,
    5 / 6,
)  # of the settings of an architecture, by size: their mean is that of all
# Settings of each architecture, or of each with each speech encoder, that are measured however long
# it takes; others within
_NUM_ALWAYS, _NUM_ALWAYS_OF_MANY, _MANY = 2, 1, 8
_MEASURING_S = (
    8.0  # for all architectures together, of this process's CPU: a busy machine measures as much
)
_TIMED_S = (
    0.25  # of one setting's training, if a step takes less: shorter epochs are measured whole
)
_NUM_WARM_ROWS, _NUM_DEV_ROWS = 8, 256


@dataclass(frozen=True)
class Measured:
    """What one setting costs: seconds of an epoch, parameters, the most memory that this process
    held meanwhile.
    """

    config: TrainConfig
    seconds: float
    parameters: int
    peak_bytes: int

    def as_json(self) -> dict[str, object]:
        return {
            "seconds_per_epoch": self.seconds,
            "parameters": self.parameters,
            "peak_bytes": self.peak_bytes,
            "settings": self.config.params(),
        }


@dataclass(frozen=True)
class Cost:
    """What an architecture costs, where there are several speech encoders with each of them:
    settings as they are drawn, and those that look the costliest of all drawn.
    """

    architecture: str
    speech: str | None
    share: float  # of all settings drawn at random
    drawn: tuple[Measured, ...]
    large: tuple[Measured, ...]

    @property
    def name(self) -> str:
        return self.architecture + (f" on {self.speech}" if self.speech is not None else "")

    @property
    def typical(self) -> Measured:
        return sorted(self.drawn, key=lambda one: one.seconds)[len(self.drawn) // 2]

    @property
    def costliest(self) -> Measured:
        return max((*self.drawn, *self.large), key=lambda one: one.seconds)

    @property
    def mean_seconds(self) -> float:
        return statistics.fmean(one.seconds for one in self.drawn)

    @property
    def peak_bytes(self) -> int:
        return max(one.peak_bytes for one in (*self.drawn, *self.large))

    @property
    def max_parameters(self) -> int:
        return max(one.parameters for one in (*self.drawn, *self.large))


def relative_size(config: TrainConfig, features: Features) -> float:
    """Puts the settings of one architecture into the order of what they cost, roughly."""
    width = config.width or features.text.width
    positions = config.context + 1.0
    if not config.is_pooled:
        positions = sum(
            float(torch.from_numpy(store.offsets).diff()[rows].double().mean())
            for store, rows in (
                (features.speech, features.speech_rows),
                (features.text, features.text_rows),
            )
        )
    return positions * width * (config.num_blocks or config.layers or 1) * (positions + width)


def _some(data: SplitData, num_rows: int, *, is_window: bool) -> SplitData:
    """So many rows: of all lengths, as a shuffled batch has, or of like lengths about the mean, as
    in validation.
    """
    num_rows = min(num_rows, len(data))
    lengths = torch.from_numpy(data.features.speech.offsets).diff()[
        data.features.speech_rows[data.indices]
    ]
    order = lengths.argsort(stable=True)
    if is_window:
        middle = int((lengths.double() < lengths.double().mean()).sum())
        start = min(max(middle - num_rows // 2, 0), len(data) - num_rows)
        rows = order[start : start + num_rows]
    else:
        rows = order[((torch.arange(num_rows) + 0.5) / num_rows * len(data)).long()]
    return data.part(rows)


def measure(
    config: TrainConfig, features: Features, device: torch.device, precision: str = "float32"
) -> Measured:
    """Train a little, as a worker does: a few steps and a validation batch."""
    # On the CPU with one thread, the process's own CPU time is what a worker takes with a core to
    # itself.
    is_cpu_time = device.type == "cpu" and torch.get_num_threads() == 1

    def seconds_of(result: EpochResult) -> float:
        return min(result.seconds, result.cpu_seconds) if is_cpu_time else result.seconds

    forget_peak()
    # The learning rate decides nothing here, and a wild one must not end the measurement as
    # diverged.
    run: Run = begin(
        replace(config, lr=1e-4, epochs=3), features, device=device, precision=precision
    )
    train, dev = run.train, run.dev
    epochs = fit(run)
    run.train, run.dev = (_some(data, _NUM_WARM_ROWS, is_window=True) for data in (train, dev))
    next(epochs)  # the first allocates, and imports what is imported late
    run.train, run.dev = (
        _some(train, config.batch_size, is_window=False),
        _some(dev, _NUM_DEV_ROWS, is_window=True),
    )
    first = seconds_of(next(epochs))
    clock = time.process_time if is_cpu_time else time.perf_counter
    started = clock()
    evaluate(run.model, run.dev, device)
    validation = clock() - started
    num_steps = math.ceil(len(train) / config.batch_size)
    step = max(first - validation, 1e-3)
    num_timed = min(num_steps, math.ceil(_TIMED_S / step))
    if (
        num_timed > 1
    ):  # a single short step says little: the first of an epoch carries what an epoch costs once
        run.train = _some(train, num_timed * config.batch_size, is_window=False)
        step = max(seconds_of(next(epochs)) - validation, 0.0) / num_timed
    seconds = step * num_steps + validation * len(dev) / len(run.dev)
    return Measured(
        config, seconds, sum(weight.numel() for weight in run.model.parameters()), peak_kb() * 1024
    )


def measure_all(
    configs: Sequence[TrainConfig], check: SettingsCheck, device: torch.device
) -> Iterator[tuple[int, int, list[Cost]]]:
    """Measures drawn settings; yields how many are done, of how many, and the costs known by
    then.
    """
    groups: dict[tuple[str, str | None], list[TrainConfig]] = defaultdict(list)
    for config in configs:
        groups[config.architecture, config.speech].append(config)
    chosen: dict[tuple[str, str | None], tuple[list[TrainConfig], list[TrainConfig]]] = {}
    ours = list(ARCHITECTURES)
    # Those of the user's own come last.
    for key in sorted(
        groups,
        key=lambda key: (ours.index(key[0]) if key[0] in ours else len(ours), key[0], key[1] or ""),
    ):
        ordered = sorted(
            groups[key], key=lambda config: relative_size(config, check.features(config))
        )
        # Small batches take more steps, large ones more padding: either may be the costlier.
        sizes = sorted({config.batch_size for config in ordered})
        large = [
            next(config for config in reversed(ordered) if config.batch_size == size)
            for size in {sizes[0], sizes[-1]}
        ]
        chosen[key] = (
            [ordered[int(quantile * len(ordered))] for quantile in _QUANTILES],
            large,
        )
    total = sum(len(drawn) + len(large) for drawn, large in chosen.values())
    precisions = sweep_precisions(check.spec)
    costs: list[Cost] = []
    done, started = 0, time.process_time()
    num_always = _NUM_ALWAYS if len(chosen) <= _MANY else _NUM_ALWAYS_OF_MANY
    for (architecture, speech), (drawn, large) in chosen.items():
        deadline = started + _MEASURING_S * (len(costs) + 1) / len(chosen)
        found: dict[TrainConfig, Measured] = {}
        for number, config in enumerate([drawn[0], large[0], *drawn[1:], *large[1:]]):
            if config not in found and (number < num_always or time.process_time() < deadline):
                precision = precision_of(precisions, architecture)
                try:
                    found[config] = measure(config, check.features(config), device, precision)
                except (MemoryError, RuntimeError) as error:
                    raise ValueError(
                        "what a trial costs cannot be measured on this machine:"
                        f" {' '.join(str(error).split())}\n  settings: {config.params()}"
                    ) from error
            done += 1
            yield done, total, costs
        share = len(groups[architecture, speech]) / len(configs)
        measured = (
            tuple(found[config] for config in group if config in found) for group in (drawn, large)
        )
        costs.append(Cost(architecture, speech, share, *measured))
    yield done, total, costs
