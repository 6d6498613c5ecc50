"""Dropout with random numbers of each run's own, so that a run in a pack draws what it would draw
alone.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_LEVELS = 2**16  # a rate is kept to 1 / 65,536: four decisions from each 64-bit random word


class Dropout:
    """Dropout of one epoch: `rates` and `seeds` of M runs, applied to values (M, ...); of one run,
    to values without that axis.

    On the CPU the bits come from NumPy's SFC64, on a GPU from a torch generator there.
    """

    def __init__(
        self,
        rates: Sequence[float],
        seeds: Sequence[int],
        device: torch.device,
        *,
        is_stacked: bool | None = None,
    ) -> None:
        # Whether values have an axis M.
        self.is_stacked = len(rates) > 1 if is_stacked is None else is_stacked
        self.thresholds = [round(rate * _LEVELS) for rate in rates]
        self.device = device
        self._cpu: list[np.random.Generator] = []
        self._gpu: list[torch.Generator] = []
        if device.type == "cpu":
            self._cpu = [np.random.Generator(np.random.SFC64(seed)) for seed in seeds]
        else:
            self._gpu = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """Values (M, ...) with some zeroed and the others scaled up.

        `mask` (M, B, P) of values (M, B, P, D): only real positions draw random numbers, so that
        how far a batch is padded, which in a pack the others decide too, changes none.
        """
        if not any(self.thresholds):
            return values
        with torch.no_grad():
            if not self.is_stacked:
                factors = self._factors(0, values, mask)
            else:
                masks = [None] * len(self.thresholds) if mask is None else list(mask)
                pairs = enumerate(zip(values, masks, strict=True))
                factors = torch.stack([self._factors(member, *pair) for member, pair in pairs])
        return values * factors

    def _factors(self, member: int, values: Tensor, mask: Tensor | None) -> Tensor:
        """0 where a value of this member is dropped, else what keeps its expectation; 1 in
        padding.
        """
        threshold = self.thresholds[member]
        if threshold == 0:
            return torch.ones_like(values)
        if mask is None:
            return self._drawn(member, threshold, values.shape, values.dtype)
        factors = torch.ones_like(values, memory_format=torch.contiguous_format)
        rows = mask.flatten().nonzero().squeeze(1)
        drawn = self._drawn(member, threshold, (len(rows), values.shape[-1]), values.dtype)
        return factors.flatten(0, 1).index_copy_(0, rows, drawn).view(values.shape)

    def _drawn(
        self, member: int, threshold: int, shape: Sequence[int], dtype: torch.dtype
    ) -> Tensor:
        size = math.prod(shape)
        if self._cpu:
            words = self._cpu[member].integers(0, 2**64, size=-(-size // 4), dtype=np.uint64)
            bits = torch.from_numpy(words.view(np.int16))[:size]
        else:
            bits = torch.empty(size, dtype=torch.int16, device=self.device)
            bits.random_(-_LEVELS // 2, _LEVELS // 2, generator=self._gpu[member])
        kept = (bits >= threshold - _LEVELS // 2).to(dtype)
        return kept.mul_(_LEVELS / (_LEVELS - threshold)).view(shape)
