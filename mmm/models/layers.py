"""The blocks that several systems share. Shapes: see mmm/models/__init__.py.

Every block also takes the weights of M models at once, each with a leading axis M, and inputs with
that axis: a pack (mmm/training/pack.py). Axes are therefore counted from the end.
"""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional


class Drop(Protocol):
    """Dropout of one training step, see mmm/training/dropout.py."""

    def __call__(self, values: Tensor, mask: Tensor | None = None) -> Tensor: ...


def keep_all(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Dropout as evaluation has it."""
    return values


def linear(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """values (..., in) by weight (out, in); of a pack, values (M, ..., in) by weight (M, out, in)
    and bias (M, out).
    """
    if weight.dim() == 2:
        return functional.linear(values, weight, bias)
    rows = values.flatten(1, -2)
    # The weight comes first, so that its gradient is made in the weight's own layout; else autograd
    # copies it (docs/LOG.md).
    if bias is None:
        product = torch.bmm(weight, rows.mT)
    else:
        product = torch.baddbmm(bias.unsqueeze(-1), weight, rows.mT)
    mapped: Tensor = product.mT.unflatten(1, values.shape[1:-1])
    return mapped


class Linear(nn.Linear):
    """torch's, for a pack too."""

    def forward(self, values: Tensor) -> Tensor:
        return linear(values, self.weight, self.bias)


class LayerNorm(nn.LayerNorm):
    """torch's, for a pack too."""

    def forward(self, values: Tensor) -> Tensor:
        if self.weight.dim() == 1:
            return super().forward(values)
        normed = functional.layer_norm(values, self.normalized_shape, eps=self.eps)
        num_members, width = self.weight.shape
        shape = (num_members, *(1,) * (values.dim() - 2), width)
        return torch.addcmul(self.bias.view(shape), normed, self.weight.view(shape))


class Classifier(nn.ModuleList):
    """Dropout, Linear(D, hidden), GELU, Dropout, Linear(hidden, C): the published head."""

    def __init__(self, width: int, hidden: int, num_classes: int) -> None:
        super().__init__([Linear(width, hidden), Linear(hidden, num_classes)])

    def forward(self, fused_BD: Tensor, drop: Drop) -> Tensor:
        hidden = functional.gelu(self[0](drop(fused_BD)))
        logits_BC: Tensor = self[1](drop(hidden))
        return logits_BC


def masked_mean(values_BPD: Tensor, mask_BP: Tensor) -> Tensor:
    """Mean over the real positions, (B, D)."""
    real_BP1 = mask_BP.unsqueeze(-1).to(values_BPD.dtype)
    # where, not a product: garbage in padding may be infinite, and 0 * inf is NaN.
    total_BD = torch.where(mask_BP.unsqueeze(-1), values_BPD, 0.0).sum(dim=-2)
    return total_BD / real_BP1.sum(dim=-2).clamp(min=1.0)


def keep_real(values: Tensor, mask: Tensor) -> Tensor:
    """Zero where `mask` (one axis fewer than `values`) is False."""
    return torch.where(mask.unsqueeze(-1), values, 0.0)
