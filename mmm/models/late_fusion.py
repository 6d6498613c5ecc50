"""late_fusion: a head a modality, and a learned mixture of their logits. Shapes: see
mmm/models/__init__.py.
"""

import torch
from torch import Tensor, nn

from mmm.models.layers import Classifier, Drop, Linear, keep_all, keep_real


class LateFusion(nn.Module):
    """The speech of K turns -> its logits, the text -> its logits; w of the one and 1 - w of the
    other.

    A weighted mean of logits is a logarithmic opinion pool (Heskes 1998, "Selecting weighting
    factors in logarithmic opinion pools"); its weight is trained with the heads. w is a sigmoid of
    a number that begins at 0, where both count alike, and to which weight decay draws it.

    `masked`: a missing turn gives a zero projection; else the projection's bias.
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
        self.speech_classifier = Classifier(context * width, classifier_hidden, num_classes)
        self.text_classifier = Classifier(width, classifier_hidden, num_classes)
        # Two axes, so that those of a pack meet their members' logits.
        self.speech_share = nn.Parameter(torch.zeros(1, 1))

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
            speech_BKF = keep_real(speech_BKF, speech_mask_BK)
        speech_BKD = self.speech_projection(speech_BKF)
        if self.masked:
            speech_BKD = keep_real(speech_BKD, speech_mask_BK)
        of_speech_BC: Tensor = self.speech_classifier(speech_BKD.flatten(-2), drop)
        of_text_BC: Tensor = self.text_classifier(self.text_projection(text_BE), drop)
        share = self.speech_share.sigmoid()
        return share * of_speech_BC + (1 - share) * of_text_BC
