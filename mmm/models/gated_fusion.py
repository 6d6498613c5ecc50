"""gated_fusion: an MLP a modality, and attention that weighs the two. Shapes: see
mmm/models/__init__.py.

MERBench's choice for utterance vectors (Lian et al. 2024, arXiv:2401.03429; "attention").
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmm.models.layers import Classifier, Drop, Linear, keep_all, keep_real


class GatedFusion(nn.Module):
    """An MLP for the speech of K turns, one for the text -> weighted sum of the two -> classifier.

    The weights come of both by another MLP and add up to 1 (MERBench's paper has this softmax, its
    code does not). Deviations: MLPs of two layers instead of three, and the other systems' head
    instead of one linear layer. With one turn there is no other. With more, the first layer of the
    speech MLP is shared by the turns and the second one sees them side by side, as vanilla_concat
    does.

    `masked`: a missing turn gives zeros to the second layer; else what the first makes of what
    stands there.
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
        self.speech_output = Linear(context * width, width)
        self.text_output = Linear(width, width)
        self.attention = nn.ModuleList([Linear(2 * width, width), Linear(width, 2)])
        self.classifier = Classifier(width, classifier_hidden, num_classes)

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
        speech_BKD = functional.gelu(self.speech_projection(speech_BKF))
        if self.masked:
            speech_BKD = keep_real(speech_BKD, speech_mask_BK)
        text_BD = functional.gelu(self.text_projection(text_BE))
        speech_BD = functional.gelu(self.speech_output(drop(speech_BKD.flatten(-2))))
        text_BD = functional.gelu(self.text_output(drop(text_BD)))
        hidden_BD = functional.gelu(self.attention[0](torch.cat([speech_BD, text_BD], dim=-1)))
        weights_B2 = self.attention[1](drop(hidden_BD)).softmax(dim=-1)
        fused_BD = weights_B2[..., :1] * speech_BD + weights_B2[..., 1:] * text_BD
        logits_BC: Tensor = self.classifier(fused_BD, drop)
        return logits_BC
