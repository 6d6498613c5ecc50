"""Mean and deviation of each column of the features, over the rows that a model is trained on and
no others.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmm.features.store import FeatureStore

_CHUNK = 16_384  # rows of (n, D) at once
# A column whose deviation is this small a part of its mean is constant: float16 keeps about 1e-3 of
# a value, so one row of a million that differs gives more.
_CONSTANT = 1e-9


def pooled_statistics(
    vectors: npt.NDArray[np.float16], rows: npt.NDArray[np.int64]
) -> tuple[Tensor, Tensor]:
    """Mean and deviation (D,) float32 of rows (n,) of vectors (M, D), one of each utterance: a clip
    counts as often as it serves one.
    """
    return _statistics(vectors, rows)


def frame_statistics(store: FeatureStore, rows: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Mean and deviation (D,) float32 of all frames (or tokens) of a store's rows (n,), one of each
    utterance.
    """
    store.check("values", store.offsets[rows], store.offsets[rows + 1])
    lengths = store.offsets[rows + 1] - store.offsets[rows]
    ends = np.cumsum(lengths)
    frames = np.arange(int(ends[-1])) + np.repeat(store.offsets[rows] - ends + lengths, lengths)
    return _statistics(store.values, frames)


def _statistics(array: npt.NDArray[np.float16], rows: npt.NDArray[Any]) -> tuple[Tensor, Tensor]:
    """Chunks are put together as in Chan, Golub and LeVeque (1979), so that nothing is lost where a
    mean is far from zero.
    """
    count = 0
    mean = torch.zeros(array.shape[1], dtype=torch.float64)
    squares = torch.zeros(array.shape[1], dtype=torch.float64)
    for start in range(0, len(rows), _CHUNK):
        chunk = torch.from_numpy(array[rows[start : start + _CHUNK]]).double()
        number, own = len(chunk), chunk.mean(dim=0)
        squares += ((chunk - own) ** 2).sum(dim=0) + (own - mean) ** 2 * (
            count * number / (count + number)
        )
        mean += (own - mean) * (number / (count + number))
        count += number
    deviation = (squares / count).sqrt()
    is_constant = deviation <= _CONSTANT * mean.abs()
    return mean.float(), torch.where(is_constant, 1.0, deviation).float()
