"""A learned mix of an encoder's layers before a pooled system. Shapes: see mmm/models/__init__.py;
L layers.

As in SUPERB (Yang et al. 2021, arXiv:2105.01051) and Pepino et al. (2021, arXiv:2104.03502): one
weight a layer, through a softmax.
"""

import torch
from torch import Tensor, nn

from mmm.models.layers import Drop, keep_all


class LayerMix(nn.Module):
    """`head` on the weighted sum of the layers that lie side by side in speech_BK(L*F). All weigh
    the same at first.
    """

    def __init__(self, head: nn.Module, *, num_layers: int) -> None:
        super().__init__()
        self.head, self.num_layers = head, num_layers
        self.weights = nn.Parameter(torch.zeros(num_layers))

    def forward(
        self,
        speech: Tensor,
        speech_mask: Tensor,
        text: Tensor,
        text_mask: Tensor,
        drop: Drop = keep_all,
    ) -> Tensor:
        layers_BKLF = speech.unflatten(-1, (self.num_layers, -1))
        shares = self.weights.softmax(dim=-1)  # (L,), of a pack (M, L)
        ones = (1,) * (layers_BKLF.dim() - 1 - shares.dim())
        shares = shares.view(*shares.shape[:-1], *ones, self.num_layers, 1)
        mixed_BKF = (layers_BKLF * shares).sum(dim=-2)
        logits_BC: Tensor = self.head(mixed_BKF, speech_mask, text, text_mask, drop)
        return logits_BC
