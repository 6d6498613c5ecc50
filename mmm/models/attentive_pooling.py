"""Frames pooled by attention before a pooled system. Shapes: see mmm/models/__init__.py.

As in Safari et al. (2020, "Self-attention encoding and pooling for speaker recognition",
arXiv:2008.01077): one learned direction scores the frames, a softmax over them weighs them.
"""

import torch
from torch import Tensor, nn

from mmm.models.layers import Drop, Linear, keep_all, keep_real


class AttentivePooling(nn.Module):
    """`head` on the weighted mean of each turn's frames: speech_BKAF with speech_mask_BKA, where a
    turn without frames is a missing one. All frames weigh the same at first.
    """

    def __init__(self, head: nn.Module, *, speech_width: int) -> None:
        super().__init__()
        self.head = head
        self.scores = Linear(speech_width, 1, bias=False)  # a softmax does not see a bias
        nn.init.zeros_(self.scores.weight)

    def forward(
        self,
        speech_BKAF: Tensor,
        speech_mask_BKA: Tensor,
        text_BE: Tensor,
        text_mask: Tensor,
        drop: Drop = keep_all,
    ) -> Tensor:
        speech_BKAF = keep_real(speech_BKAF, speech_mask_BKA)
        scores_BKA = self.scores(speech_BKAF).squeeze(-1)
        # Of a missing turn every frame scores the same, so that nothing is not a number.
        scores_BKA = torch.where(speech_mask_BKA, scores_BKA, -1e4)
        shares_BKA = scores_BKA.softmax(dim=-1)
        pooled_BKF = (speech_BKAF * shares_BKA.unsqueeze(-1)).sum(dim=-2)
        logits_BC: Tensor = self.head(
            pooled_BKF, speech_mask_BKA.any(dim=-1), text_BE, text_mask, drop
        )
        return logits_BC
