"""Dropout with random numbers of each run's own, so that a run in a pack draws what it would draw
alone.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_LEVELS = 2**16  # a rate is kept to 1 / 65,536: four decisions from each 64-bit random word
# Calls of an epoch that a GPU is given random keys for at a time.
_CALLS = 256
# An integer hash of which every bit depends on every bit of what is hashed: "lowbias32" of Chris
# Wellons, https://nullprogram.com/blog/2018/07/31/. The second is above 2^31, as int32 has it.
_FIRST, _SECOND = 0x7FEB352D, 0x846CA68B - 2**32


class Dropout:
    """Dropout of one epoch: `rates` and `seeds` of M runs, applied to values (M, ...); of one run,
    to values without that axis. The bits come from NumPy's SFC64.
    """

    def __init__(
        self,
        rates: Sequence[float],
        seeds: Sequence[int],
        *,
        is_stacked: bool | None = None,
    ) -> None:
        # Whether values have an axis M.
        self.is_stacked = len(rates) > 1 if is_stacked is None else is_stacked
        self.thresholds = [round(rate * _LEVELS) for rate in rates]
        self.generators = [np.random.Generator(np.random.SFC64(seed)) for seed in seeds]

    def __call__(self, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """Values (M, ...) with some zeroed and the others scaled up.

        `mask` (M, B, P) of values (M, B, P, D): only real positions draw random numbers, so that
        how far a batch is padded, which in a pack the others decide too, changes none.
        """
        if not any(self.thresholds):
            return values
        with torch.no_grad():
            factors = self.factors(values, mask)
        return values * factors

    def factors(self, values: Tensor, mask: Tensor | None) -> Tensor:
        """What each of the values is multiplied by, shaped as they are."""
        if not self.is_stacked:
            return self._factors(0, values, mask)
        masks = [None] * len(self.thresholds) if mask is None else list(mask)
        pairs = enumerate(zip(values, masks, strict=True))
        return torch.stack([self._factors(member, *pair) for member, pair in pairs])

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
        words = self.generators[member].integers(0, 2**64, size=-(-size // 4), dtype=np.uint64)
        bits = torch.from_numpy(words.view(np.int16))[:size]
        kept = (bits >= threshold - _LEVELS // 2).to(dtype)
        return kept.mul_(_LEVELS / (_LEVELS - threshold)).view(shape)


class HashedDropout(Dropout):
    """The same on a GPU, where a few calls for each member would cost more than what they compute:
    a bit is the hash of the value's place with a key of this member and call. A dozen kernels draw
    those of a whole pack.
    """

    def __init__(
        self,
        rates: Sequence[float],
        seeds: Sequence[int],
        device: torch.device,
        *,
        is_stacked: bool | None = None,
    ) -> None:
        super().__init__(rates, seeds, is_stacked=is_stacked)
        self.device = device
        scales = [[_LEVELS / (_LEVELS - threshold)] for threshold in self.thresholds]
        lowest = [[threshold * 2**16 - 2**31] for threshold in self.thresholds]
        self._scales_M1 = torch.tensor(scales, device=device)
        self._lowest_M1 = torch.tensor(lowest, dtype=torch.int32, device=device)
        self._keys: list[Tensor] = []  # (M, 1) each, of calls to come
        self._places: dict[int, Tensor] = {}

    def factors(self, values: Tensor, mask: Tensor | None) -> Tensor:
        num_members, width = len(self.thresholds), values.shape[-1]
        if mask is None:
            places = self._first_places(values.numel() // num_members).unsqueeze(0)
        else:  # a real position counts the real ones before it, however far the batch is padded
            through = mask.flatten(-2).cumsum(-1, dtype=torch.int32).view(num_members, -1, 1)
            places = ((through - 1) * width + self._first_places(width)).flatten(1)
        words = places + self._next_keys()
        words ^= (words >> 16) & 0xFFFF
        words *= _FIRST
        words ^= (words >> 15) & 0x1FFFF
        words *= _SECOND  # the hash's last line changes none of the bits that decide
        kept = (words >= self._lowest_M1).to(values.dtype)
        factors = (kept * self._scales_M1.to(values.dtype)).view(values.shape)
        return factors if mask is None else torch.where(mask.unsqueeze(-1), factors, 1.0)

    def _next_keys(self) -> Tensor:
        if not self._keys:
            drawn = [each.integers(0, 2**32, _CALLS, dtype=np.uint32) for each in self.generators]
            keys = torch.from_numpy(np.stack(drawn).view(np.int32)).to(self.device)
            self._keys = list(keys.unsqueeze(-1).unbind(1))[::-1]
        return self._keys.pop()

    def _first_places(self, size: int) -> Tensor:
        if size not in self._places:
            self._places[size] = torch.arange(size, dtype=torch.int32, device=self.device)
        return self._places[size]


def dropout_on(
    device: torch.device, rates: Sequence[float], seeds: Sequence[int], *, is_stacked: bool
) -> Dropout:
    """Dropout of one epoch of M runs, as it is fast on a device."""
    if device.type == "cpu":
        return Dropout(rates, seeds, is_stacked=is_stacked)
    return HashedDropout(rates, seeds, device, is_stacked=is_stacked)
