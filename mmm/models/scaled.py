"""A model on scaled inputs: each column of speech and text with mean 0 and deviation 1 over the
training rows.

Columns of a pretrained encoder differ a hundredfold in size, and a head that takes them as they are
learns from the few large ones. Shapes: see mmm/models/__init__.py.
"""

import torch
from torch import Tensor, nn

from mmm.models.layers import Drop, keep_all


class Scaled(nn.Module):
    """`head` on scaled inputs. The statistics are buffers: checkpoints, bundles and ONNX have them
    with the weights.

    What is not there (a missing turn, padding) is zero after scaling too. The members of a pack
    share the statistics.
    """

    def __init__(
        self, head: nn.Module, *, speech_width: int, text_width: int, is_pooled: bool
    ) -> None:
        super().__init__()
        self.head, self.is_pooled = head, is_pooled
        for name, width in (("speech", speech_width), ("text", text_width)):
            self.register_buffer(f"{name}_mean", torch.zeros(width))
            self.register_buffer(f"{name}_deviation", torch.ones(width))
        self.speech_mean: Tensor
        self.speech_deviation: Tensor
        self.text_mean: Tensor
        self.text_deviation: Tensor

    def scaled(
        self, speech: Tensor, speech_mask: Tensor, text: Tensor, text_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Speech and text as the head gets them."""
        return (
            _scaled(speech, self.speech_mean, self.speech_deviation, speech_mask),
            _scaled(
                text, self.text_mean, self.text_deviation, None if self.is_pooled else text_mask
            ),
        )

    def forward(
        self,
        speech: Tensor,
        speech_mask: Tensor,
        text: Tensor,
        text_mask: Tensor,
        drop: Drop = keep_all,
    ) -> Tensor:
        speech, text = self.scaled(speech, speech_mask, text, text_mask)
        logits_BC: Tensor = self.head(speech, speech_mask, text, text_mask, drop)
        return logits_BC


def _scaled(values: Tensor, mean: Tensor, deviation: Tensor, mask: Tensor | None) -> Tensor:
    scaled = (values - mean) / deviation
    return scaled if mask is None else torch.where(mask.unsqueeze(-1), scaled, 0.0)
