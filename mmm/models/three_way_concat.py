"""three_way_concat: text, speech, their distance and their product. Shapes: see
mmm/models/__init__.py.
"""

import torch
from torch import Tensor, nn

from mmm.models.layers import Classifier, Drop, Linear, keep_all, keep_real


class ThreeWayConcat(nn.Module):
    """Concat [t, s, |s - t'|, s * t'] -> classifier, t' = t repeated for each of the K turns (MMM,
    baseline 2).

    `masked`: a missing turn's speech, distance and product are zero. Published: they come from the
    projection's bias.
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
        self.classifier = Classifier(3 * context * width + width, classifier_hidden, num_classes)

    def forward(
        self,
        speech_BKF: Tensor,
        speech_mask_BK: Tensor,
        text_BE: Tensor,
        text_mask: Tensor,
        drop: Drop = keep_all,
    ) -> Tensor:
        text_BD = self.text_projection(text_BE)
        if self.masked:
            # Not only the parts below: 0 * inf in the projection's gradient is NaN.
            speech_BKF = keep_real(speech_BKF, speech_mask_BK)
        speech_BKD = self.speech_projection(speech_BKF)
        distance_BKD = (speech_BKD - text_BD.unsqueeze(-2)).abs()
        product_BKD = speech_BKD * text_BD.unsqueeze(-2)
        parts = [speech_BKD, distance_BKD, product_BKD]
        if self.masked:
            parts = [keep_real(part_BKD, speech_mask_BK) for part_BKD in parts]
        logits_BC: Tensor = self.classifier(
            torch.cat([text_BD, *(part.flatten(-2) for part in parts)], dim=-1), drop
        )
        return logits_BC
