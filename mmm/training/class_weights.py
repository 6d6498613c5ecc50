"""How much the rows of each class weigh in the loss."""

import torch
from torch import Tensor

from mmm.training.batches import SplitData
from mmm.training.config import TrainConfig

_EFFECTIVE_BETA = 0.999  # Cui et al. 2019 (arXiv:1901.05555) try 0.9 to 0.9999


def class_weights(config: TrainConfig, train: SplitData) -> Tensor:
    """(C,) weights of the loss. A class without rows gets 0, its weight could not matter."""
    counts = train.class_counts
    if config.class_weight == "none":
        return torch.ones_like(counts)
    if config.class_weight == "effective_number":
        # Of n rows, (1 - beta^n) / (1 - beta) count as different; scaled so that a class of one row
        # weighs N.
        effective = (1 - _EFFECTIVE_BETA ** counts.double()) / (1 - _EFFECTIVE_BETA)
        return torch.where(counts > 0, len(train) / effective.clamp(min=1e-9), 0.0).float()
    weights = torch.where(counts > 0, len(train) / counts.clamp(min=1e-9), 0.0)
    return weights.sqrt() if config.class_weight == "sqrt_inverse" else weights
