"""Where the time of a training step goes, and what the machine could do."""

import contextlib
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from mmm.training.evaluate import pack_probabilities
from mmm.training.fit import train_epoch
from mmm.training.malloc import peak_kb
from mmm.training.matmul_rate import executed, main_products, make_operands, product_rate
from mmm.training.pack import Pack
from mmm.training.run import Run

PARTS = ("reading", "forward", "backward", "optimizer", "rest")


@dataclass(frozen=True)
class Profile:
    """Of one training step of a batch (of a pack: of all members), medians over the steps that were
    timed.
    """

    seconds: dict[str, float]  # by part, see PARTS
    operations: float  # floating-point, of the products and of attention
    product_rate: float  # operations a second of the main products alone, in the same precision
    evaluation_s: float  # of one validation utterance
    batch_size: int
    num_members: int
    peak_mb: float  # of the process, on a GPU of its tensors there

    @property
    def step_s(self) -> float:
        return sum(self.seconds.values())

    @property
    def rate(self) -> float:
        """Operations a second of the whole step."""
        return self.operations / self.step_s

    @property
    def product_s(self) -> float:
        """Seconds that the products take at the machine's rate."""
        return self.operations / self.product_rate

    @property
    def bound(self) -> str:
        """What takes most of a step, in words."""
        computing = self.seconds["forward"] + self.seconds["backward"]
        shares = {
            "matrix products": min(self.product_s, computing),
            "what is done element by element, and calls too small for the machine": max(
                computing - self.product_s, 0.0
            ),
            "reading features": self.seconds["reading"],
            "the optimizer's pass over the weights": self.seconds["optimizer"],
            "drawing the order, class weights and the like": self.seconds["rest"],
        }
        most = max(shares, key=lambda name: shares[name])
        return f"{most} ({shares[most] / self.step_s:.0%} of the step)"


class _Watch:
    """Adds up seconds by part; on a GPU it waits for what was asked for."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        started = self._now()
        yield
        self.seconds[name] += self._now() - started

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def profile(runs: Sequence[Run], num_steps: int = 7) -> Profile:
    """Trains the runs, one or a pack, for some steps; they are changed. Raises ValueError where
    their shapes differ.
    """
    first = runs[0]
    config, device = first.config, first.device
    num_rows = min(config.batch_size * config.accumulate, len(first.train))
    # Rows spread over the whole corpus, as a shuffled batch has them: their lengths decide the
    # cost.
    rows = ((torch.arange(num_rows) + 0.5) / num_rows * len(first.train)).long()
    for run in runs:
        run.train = run.train.part(rows)
    pack = Pack(runs)
    train_epoch(pack)
    products, operations = executed(lambda: train_epoch(pack))
    dtype = torch.bfloat16 if first.precision == "bf16" else torch.float32
    operands = make_operands(main_products(products), dtype, device)
    product_rate(operands, device)
    steps: list[dict[str, float]] = []
    rates = []
    for _ in range(num_steps):
        watch, started = _Watch(device), time.perf_counter()
        train_epoch(pack, watch)
        total = time.perf_counter() - started
        steps.append({**watch.seconds, "rest": max(total - sum(watch.seconds.values()), 0.0)})
        rates.append(product_rate(operands, device))
    del operands
    dev = first.dev.part(torch.arange(min(len(first.dev), 4 * config.batch_size)))
    pack_probabilities(pack, dev, device)
    started = time.perf_counter()
    pack_probabilities(pack, dev, device)
    evaluation_s = (time.perf_counter() - started) / len(dev) / len(runs)
    seconds = {part: statistics.median(step.get(part, 0.0) for step in steps) for part in PARTS}
    return Profile(
        seconds,
        operations,
        statistics.median(rates),
        evaluation_s,
        len(rows),
        len(runs),
        peak_mb(device),
    )


def peak_mb(device: torch.device) -> float:
    """The most that this process has held; on a GPU, its tensors there."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return peak_kb() / 1e3
