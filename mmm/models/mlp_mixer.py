"""mlp_mixer: text and speech positions mixed by perceptrons. Shapes: see mmm/models/__init__.py.

After MLP-Mixer (Tolstikhin et al. 2021, arXiv:2105.01601, section 2).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmm.models.layers import Classifier, Drop, LayerNorm, Linear, keep_all, keep_real, linear, masked_mean

RESIDUALS = ("standard", "published")


class Mlp(nn.ModuleList):
    """Linear(n, n), GELU, Linear(n, n); the block adds the dropout."""

    def __init__(self, width: int) -> None:
        super().__init__([Linear(width, width), Linear(width, width)])

    def forward(self, values: Tensor) -> Tensor:
        mixed: Tensor = self[1](functional.gelu(self[0](values)))
        return mixed

    def at_positions(self, values_BDP: Tensor, columns: Tensor) -> Tensor:
        """The same over a last axis that holds only the positions `columns` (P,); the others count as zero.

        Only real positions are multiplied, so a batch of short utterances costs what it is.
        """
        first, second = self
        assert isinstance(first, nn.Linear)
        assert isinstance(second, nn.Linear)
        hidden = functional.gelu(linear(values_BDP, first.weight.index_select(-1, columns), first.bias))
        return linear(hidden, second.weight.index_select(-2, columns), second.bias.index_select(-1, columns))


class Block(nn.Module):
    """Token mixing over positions, then channel mixing over features.

    residual="standard" (Tolstikhin et al.): two LayerNorms, the second branch starts from x.
    residual="published" (MMM): one LayerNorm serves both, the second branch starts from y, token mixing's output.
    """

    def __init__(self, num_positions: int, width: int, masked: bool, residual: str) -> None:
        super().__init__()
        self.masked = masked
        if residual == "published":
            self.norm = LayerNorm(width)
        else:
            self.token_norm = LayerNorm(width)
            self.channel_norm = LayerNorm(width)
        self.published = residual == "published"
        self.token_mixing = Mlp(num_positions)
        self.channel_mixing = Mlp(width)

    def forward(self, x_BPD: Tensor, mask_BP: Tensor, columns: Tensor, drop: Drop = keep_all) -> Tensor:
        normed_BPD = self.norm(x_BPD) if self.published else self.token_norm(x_BPD)
        if self.masked:
            y_BPD = self.token_mixing.at_positions(keep_real(normed_BPD, mask_BP).mT, columns).mT
        else:
            y_BPD = self.token_mixing(normed_BPD.mT).mT
        real_BP = mask_BP if self.masked else None
        y_BPD = drop(y_BPD, real_BP)
        x_BPD = x_BPD + y_BPD
        second_BPD = self.norm(y_BPD) if self.published else self.channel_norm(x_BPD)
        mixed: Tensor = x_BPD + drop(self.channel_mixing(second_BPD), real_BP)
        return mixed


class MlpMixer(nn.Module):
    """Projected text and speech positions -> mixer blocks -> mean -> classifier (MMM, the proposed system).

    Token mixing ties weights to positions: text token i is position i, speech frame j is text_positions + j, for
    every batch. `masked`: padding neither enters token mixing nor the mean. Published: it takes part in both.
    """

    def __init__(
        self, *, speech_width: int, text_width: int, speech_positions: int, text_positions: int, num_classes: int,
        width: int, num_blocks: int, classifier_hidden: int, masked: bool, residual: str,
    ) -> None:  # fmt: skip
        super().__init__()
        self.masked, self.speech_positions, self.text_positions = masked, speech_positions, text_positions
        self.speech_projection = Linear(speech_width, width)
        self.text_projection = Linear(text_width, width)
        num_positions = text_positions + speech_positions
        self.blocks = nn.ModuleList(Block(num_positions, width, masked, residual) for _ in range(num_blocks))
        self.final_norm = LayerNorm(width)
        self.classifier = Classifier(width, classifier_hidden, num_classes)

    def forward(
        self, speech_BAF: Tensor, speech_mask_BA: Tensor, text_BTE: Tensor, text_mask_BT: Tensor, drop: Drop = keep_all
    ) -> Tensor:
        if self.masked:
            speech_BAF, text_BTE = keep_real(speech_BAF, speech_mask_BA), keep_real(text_BTE, text_mask_BT)
        else:
            speech_BAF = functional.pad(speech_BAF, (0, 0, 0, self.speech_positions - speech_BAF.shape[-2]))
            text_BTE = functional.pad(text_BTE, (0, 0, 0, self.text_positions - text_BTE.shape[-2]))
        x_BPD = torch.cat([self.text_projection(text_BTE), self.speech_projection(speech_BAF)], dim=-2)
        mask_BP = torch.cat([text_mask_BT, speech_mask_BA], dim=-1)
        num_text, num_speech = text_BTE.shape[-2], speech_BAF.shape[-2]
        device = x_BPD.device
        columns = torch.cat([torch.arange(num_text, device=device),
                             torch.arange(num_speech, device=device) + self.text_positions])  # fmt: skip
        for block in self.blocks:
            x_BPD = block(x_BPD, mask_BP, columns, drop)
        x_BPD = self.final_norm(x_BPD)
        pooled_BD = masked_mean(x_BPD, mask_BP) if self.masked else x_BPD.mean(dim=-2)
        logits_BC: Tensor = self.classifier(pooled_BD, drop)
        return logits_BC
