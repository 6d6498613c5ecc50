"""The two blocks that every system shares. Shapes: see mmm/models/__init__.py."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Classifier(nn.ModuleList):
    """Dropout, Linear(D, hidden), GELU, Dropout, Linear(hidden, C): the published head."""

    def __init__(self, width: int, hidden: int, num_classes: int, dropout: float) -> None:
        super().__init__([nn.Linear(width, hidden), nn.Linear(hidden, num_classes)])
        self.dropout = dropout

    def forward(self, fused_BD: Tensor) -> Tensor:
        hidden = functional.gelu(self[0](functional.dropout(fused_BD, self.dropout, self.training)))
        logits_BC: Tensor = self[1](functional.dropout(hidden, self.dropout, self.training))
        return logits_BC


def masked_mean(values_BPD: Tensor, mask_BP: Tensor) -> Tensor:
    """Mean over the real positions, (B, D)."""
    real_BP1 = mask_BP.unsqueeze(-1).to(values_BPD.dtype)
    # where, not a product: garbage in padding may be infinite, and 0 * inf is NaN.
    total_BD = torch.where(mask_BP.unsqueeze(-1), values_BPD, 0.0).sum(dim=1)
    return total_BD / real_BP1.sum(dim=1).clamp(min=1.0)


def keep_real(values: Tensor, mask: Tensor) -> Tensor:
    """Zero where `mask` (one axis fewer than `values`) is False."""
    return torch.where(mask.unsqueeze(-1), values, 0.0)
