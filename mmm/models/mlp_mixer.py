"""mlp_mixer: text and speech positions mixed by perceptrons. Shapes: see mmm/models/__init__.py.

After MLP-Mixer (Tolstikhin et al. 2021, arXiv:2105.01601, section 2).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmm.models.layers import Classifier, Drop, LayerNorm, Linear, keep_all
from mmm.models.positions import Positions
from mmm.models.token_product import token_product

RESIDUALS = ("standard", "published")


class Mlp(nn.ModuleList):
    """Linear(n, n), GELU, Linear(n, n); the block adds the dropout."""

    def __init__(self, width: int) -> None:
        super().__init__([Linear(width, width), Linear(width, width)])

    def forward(self, values: Tensor) -> Tensor:
        mixed: Tensor = self[1](functional.gelu(self[0](values)))
        return mixed


class TokenMlp(Mlp):
    """The same over positions, of which a batch holds only `columns` (P,); the others count as
    zero.

    Only these are multiplied, so a batch of short utterances costs what it is.
    """

    def forward(self, values_BPD: Tensor, columns: Tensor) -> Tensor:  # type: ignore[override]
        first, second = self
        assert isinstance(first, nn.Linear)
        assert isinstance(second, nn.Linear)
        weight_in: Tensor = first.weight
        weight_out: Tensor = second.weight
        bias_out: Tensor = second.bias
        if len(columns) < first.in_features:
            weight_in = first.weight.index_select(-1, columns)
            weight_out = second.weight.index_select(-2, columns)
            bias_out = second.bias.index_select(-1, columns)
        hidden = functional.gelu(token_product(weight_in, first.bias, values_BPD))
        return token_product(weight_out, bias_out, hidden)


class Block(nn.Module):
    """Token mixing over positions, then channel mixing over features.

    residual="standard" (Tolstikhin et al.): two LayerNorms, the second branch starts from x.
    residual="published" (MMM): one LayerNorm serves both, the second branch starts from y, token
    mixing's output.
    """

    def __init__(self, num_positions: int, width: int, residual: str) -> None:
        super().__init__()
        if residual == "published":
            self.norm = LayerNorm(width)
        else:
            self.token_norm = LayerNorm(width)
            self.channel_norm = LayerNorm(width)
        self.published = residual == "published"
        self.token_mixing = TokenMlp(num_positions)
        self.channel_mixing = Mlp(width)

    def forward(
        self, x: Tensor, positions: Positions, columns: Tensor, drop: Drop = keep_all
    ) -> Tensor:
        normed = self.norm(x) if self.published else self.token_norm(x)
        y = positions.take(self.token_mixing(positions.spread(normed), columns))
        y = positions.drop(y, drop)
        x = x + y
        second = self.norm(y) if self.published else self.channel_norm(x)
        mixed: Tensor = x + positions.drop(self.channel_mixing(second), drop)
        return mixed


class MlpMixer(nn.Module):
    """Projected text and speech positions -> mixer blocks -> mean -> classifier (MMM, the proposed
    system).

    Token mixing ties weights to positions: text token i is position i, speech frame j is
    text_positions + j, for every batch. `masked`: padding neither enters token mixing nor the mean.
    Published: it takes part in both.
    """

    def __init__(
        self,
        *,
        speech_width: int,
        text_width: int,
        speech_positions: int,
        text_positions: int,
        num_classes: int,
        width: int,
        num_blocks: int,
        classifier_hidden: int,
        masked: bool,
        residual: str,
    ) -> None:
        super().__init__()
        self.masked = masked
        self.speech_positions, self.text_positions = speech_positions, text_positions
        self.speech_projection = Linear(speech_width, width)
        self.text_projection = Linear(text_width, width)
        num_positions = text_positions + speech_positions
        self.blocks = nn.ModuleList(
            Block(num_positions, width, residual) for _ in range(num_blocks)
        )
        self.final_norm = LayerNorm(width)
        self.classifier = Classifier(width, classifier_hidden, num_classes)

    def forward(
        self,
        speech_BAF: Tensor,
        speech_mask_BA: Tensor,
        text_BTE: Tensor,
        text_mask_BT: Tensor,
        drop: Drop = keep_all,
    ) -> Tensor:
        if not self.masked:
            speech_BAF = functional.pad(
                speech_BAF, (0, 0, 0, self.speech_positions - speech_BAF.shape[-2])
            )
            text_BTE = functional.pad(text_BTE, (0, 0, 0, self.text_positions - text_BTE.shape[-2]))
        text, speech = (
            Positions(mask, masked=self.masked) for mask in (text_mask_BT, speech_mask_BA)
        )
        parts = (
            text.spread(self.text_projection(text.take(text_BTE))),
            speech.spread(self.speech_projection(speech.take(speech_BAF))),
        )
        num_text, num_speech = text_BTE.shape[-2], speech_BAF.shape[-2]
        columns = torch.cat(
            [
                torch.arange(num_text, device=text_BTE.device),
                torch.arange(num_speech, device=text_BTE.device) + self.text_positions,
            ]
        )
        positions = Positions(torch.cat([text_mask_BT, speech_mask_BA], dim=-1), masked=self.masked)
        x = positions.take(torch.cat(parts, dim=-2))
        for block in self.blocks:
            x = block(x, positions, columns, drop)
        logits_BC: Tensor = self.classifier(positions.mean(self.final_norm(x)), drop)
        return logits_BC
