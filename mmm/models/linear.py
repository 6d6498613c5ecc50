"""linear: what a fusion system has to beat. Shapes: see mmm/models/__init__.py."""

import torch
from torch import Tensor, nn

from mmm.models.layers import Drop, Linear, keep_all


class LinearSystem(nn.Module):
    """Multinomial logistic regression on [speech of the current turn, text], fitted to its optimum
    (mmm/training/linear.py).

    Speech of earlier turns is not looked at; their words are in the text's vector.
    """

    def __init__(self, *, speech_width: int, text_width: int, num_classes: int) -> None:
        super().__init__()
        self.output = Linear(speech_width + text_width, num_classes)

    def forward(
        self,
        speech_BKF: Tensor,
        speech_mask_BK: Tensor,
        text_BE: Tensor,
        text_mask: Tensor,
        drop: Drop = keep_all,
    ) -> Tensor:
        logits_BC: Tensor = self.output(torch.cat([speech_BKF[..., 0, :], text_BE], dim=-1))
        return logits_BC
