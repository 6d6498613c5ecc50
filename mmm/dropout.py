"""Dropout with random numbers of each run's own, so that a run in a pack draws what it would draw alone."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_LEVELS = 2**16  # a rate is kept to 1 / 65,536: four decisions from each 64-bit random word


class Dropout:
    """Dropout of one epoch: `rates` and `seeds` of M runs, applied to values (M, ...); of one run, to values without that axis.

    On the CPU the bits come from NumPy's SFC64 (an eighth of the time of torch.nn.functional.dropout, measured in
    benchmarks/training.py), on a GPU from a torch generator there.
    """

    def __init__(self, rates: Sequence[float], seeds: Sequence[int], device: torch.device) -> None:
        self.thresholds = [round(rate * _LEVELS) for rate in rates]
        self.device = device
        self._cpu = [np.random.Generator(np.random.SFC64(seed)) for seed in seeds] if device.type == "cpu" else []
        self._gpu = [torch.Generator(device).manual_seed(seed) for seed in seeds] if device.type != "cpu" else []

    def __call__(self, values: Tensor) -> Tensor:
        if not any(self.thresholds):
            return values
        with torch.no_grad():
            parts = [self._factors(member, values) for member in range(len(self.thresholds))]
            factors = parts[0] if len(parts) == 1 else torch.cat(parts)
        return values * factors.view(values.shape)

    def _factors(self, member: int, values: Tensor) -> Tensor:
        """0 where a value of this member is dropped, else what keeps its expectation."""
        size, threshold = values.numel() // len(self.thresholds), self.thresholds[member]
        if threshold == 0:
            return values.new_ones(size)
        keep = torch.tensor(_LEVELS / (_LEVELS - threshold), dtype=values.dtype, device=self.device)
        if self._cpu:
            words = self._cpu[member].integers(0, 2**64, size=-(-size // 4), dtype=np.uint64)
            bits = torch.from_numpy(words.view(np.int16))[:size]
        else:
            bits = torch.randint(-_LEVELS // 2, _LEVELS // 2, (size,), dtype=torch.int16, device=self.device,
                                 generator=self._gpu[member])  # fmt: skip
        return torch.where(bits >= threshold - _LEVELS // 2, keep, 0.0)
