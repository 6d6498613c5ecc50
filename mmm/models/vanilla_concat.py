"""vanilla_concat: projected speech of K turns beside the projected text. Shapes: see
mmm/models/__init__.py.
"""

import torch
from torch import Tensor, nn

from mmm.models.layers import Classifier, Drop, Linear, keep_all, keep_real


class VanillaConcat(nn.Module):
    """Concat [speech of K turns, text] -> classifier (MMM, baseline 1).

    `masked`: a missing turn gives a zero projection. Published: it gives the projection's bias.
    """

    def __init__(
        self,
        *,
        speech_width: int,
        text_width: int,
        num_classes: int,
        context: int,
        width: int,
        classifier_hidden: int,
        masked: bool,
    ) -> None:
        super().__init__()
        self.masked = masked
        self.speech_projection = Linear(speech_width, width)
        self.text_projection = Linear(text_width, width)
        self.classifier = Classifier(context * width + width, classifier_hidden, num_classes)

    def forward(
        self,
        speech_BKF: Tensor,
        speech_mask_BK: Tensor,
        text_BE: Tensor,
        text_mask: Tensor,
        drop: Drop = keep_all,
    ) -> Tensor:
        if self.masked:
            # Before the projection too: 0 * inf in its gradient is NaN.
            speech_BKD = keep_real(
                self.speech_projection(keep_real(speech_BKF, speech_mask_BK)), speech_mask_BK
            )
        else:
            speech_BKD = self.speech_projection(speech_BKF)
        logits_BC: Tensor = self.classifier(
            torch.cat([speech_BKD.flatten(-2), self.text_projection(text_BE)], dim=-1), drop
        )
        return logits_BC
