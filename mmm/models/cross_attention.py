"""cross_attention: speech attends to text and text to speech. Shapes: see mmm/models/__init__.py.

After MulT (Tsai et al. 2019, arXiv:1906.00295, section 3.2), with one layer of one direction each.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmm.models.layers import Classifier, Drop, LayerNorm, Linear, keep_all, keep_real, linear, masked_mean


def sinusoids(num_positions: int, width: int) -> Tensor:
    """(num_positions, width), positions counted from 1: sines in the first half, cosines in the second."""
    # On the CPU also where a model is only sized up on the meta device, which would import a compiler for this.
    with torch.device("cpu"):
        frequencies = torch.exp(torch.arange(width // 2) * -(math.log(10000) / max(width // 2 - 1, 1)))
        angles = torch.arange(1, num_positions + 1).unsqueeze(1) * frequencies
    table = torch.cat([angles.sin(), angles.cos()], dim=1)
    return functional.pad(table, (0, width - table.shape[1]))


class Projection(nn.Module):
    """A linear map named as attention's packed one is: Xavier-uniform weight, zero bias."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(width_out, width_in)))
        self.bias = nn.Parameter(torch.zeros(width_out))

    def forward(self, values: Tensor) -> Tensor:
        return linear(values, self.weight, self.bias)


class Attention(nn.Module):
    """Multi-head attention with one packed (query, key, value) in-projection and all biases."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_projection = Projection(width, 3 * width)
        self.out_projection = Projection(width, width)

    def forward(self, query_BQD: Tensor, other_BSD: Tensor, other_mask_BS: Tensor | None) -> Tensor:
        width = query_BQD.shape[-1]
        weight_q, weight_kv = self.in_projection.weight.split([width, 2 * width], dim=-2)
        bias_q, bias_kv = self.in_projection.bias.split([width, 2 * width], dim=-1)
        query = linear(query_BQD, weight_q, bias_q)
        key, value = linear(other_BSD, weight_kv, bias_kv).chunk(2, dim=-1)
        # Attention mixes positions of one utterance alone: the members of a pack are more utterances to it.
        query, key, value = (x.flatten(0, -3).unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (query, key, value))
        mask = None if other_mask_BS is None else other_mask_BS.flatten(0, -2)[:, None, None, :]
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        projected_BQD: Tensor = self.out_projection(mixed.transpose(1, 2).reshape(query_BQD.shape))
        return projected_BQD


class FeedForward(nn.ModuleList):
    """Linear(D, 4 D), ReLU, Linear(4 D, D); Xavier-uniform weights, zero biases."""

    def __init__(self, width: int) -> None:
        super().__init__([Projection(width, 4 * width), Projection(4 * width, width)])

    def forward(self, values: Tensor) -> Tensor:
        fed: Tensor = self[1](functional.relu(self[0](values)))
        return fed


class Layer(nn.Module):
    """Pre-norm attention and feed-forward, each with a residual; one LayerNorm serves query, key and value."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = LayerNorm(width)
        self.attention = Attention(width, heads)
        self.feed_forward_norm = LayerNorm(width)
        self.feed_forward = FeedForward(width)

    def forward(self, query_BQD: Tensor, other_BSD: Tensor, other_mask_BS: Tensor | None) -> Tensor:
        attended = self.attention(self.attention_norm(query_BQD), self.attention_norm(other_BSD), other_mask_BS)
        query_BQD = query_BQD + attended
        updated: Tensor = query_BQD + self.feed_forward(self.feed_forward_norm(query_BQD))
        return updated


class OneWayEncoder(nn.Module):
    """The query side attends to the other side, `layers` times."""

    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.final_norm = LayerNorm(width)

    def forward(self, query_BQD: Tensor, other_BSD: Tensor, other_mask_BS: Tensor | None) -> Tensor:
        for layer in self.layers:
            query_BQD = layer(query_BQD, other_BSD, other_mask_BS)
        normed: Tensor = self.final_norm(query_BQD)
        return normed


class CrossAttention(nn.Module):
    """Two one-way encoders; mean of one and position 0 of the other -> classifier (MMM, baseline 3).

    The model's width is the text's: speech is projected to it, text positions stay as they are.
    `masked`: keys in padding are ignored and the mean is over real frames. Published: padding takes part in both.
    Raises ValueError where `heads` does not divide the text width.
    """

    def __init__(
        self, *, speech_width: int, text_width: int, speech_positions: int, text_positions: int, num_classes: int,
        layers: int, heads: int, classifier_hidden: int, masked: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        if text_width % heads:
            raise ValueError(f"heads={heads} does not divide the text width {text_width} that cross_attention works at")
        self.masked, self.speech_positions, self.text_positions = masked, speech_positions, text_positions
        self.speech_projection = Linear(speech_width, text_width, bias=False)
        self.speech_to_text = OneWayEncoder(text_width, layers, heads)
        self.text_to_speech = OneWayEncoder(text_width, layers, heads)
        self.classifier = Classifier(2 * text_width, classifier_hidden, num_classes)
        table = sinusoids(max(speech_positions, text_positions), text_width)
        self.register_buffer("positions", table, persistent=False)
        self.positions: Tensor

    def _embed(self, values_BPD: Tensor, mask_BP: Tensor) -> Tensor:
        width = values_BPD.shape[-1]
        positions_PD = self.positions[: values_BPD.shape[-2]].to(values_BPD.dtype)
        # Published: a position counts as padding where its first feature is exactly 0.
        counted_BP = mask_BP if self.masked else values_BPD[..., 0] != 0
        return math.sqrt(width) * values_BPD + keep_real(positions_PD.expand_as(values_BPD), counted_BP)

    def forward(
        self, speech_BAF: Tensor, speech_mask_BA: Tensor, text_BTE: Tensor, text_mask_BT: Tensor, drop: Drop = keep_all
    ) -> Tensor:
        if self.masked:
            speech_BAF, text_BTE = keep_real(speech_BAF, speech_mask_BA), keep_real(text_BTE, text_mask_BT)
        else:
            speech_BAF = functional.pad(speech_BAF, (0, 0, 0, self.speech_positions - speech_BAF.shape[-2]))
            text_BTE = functional.pad(text_BTE, (0, 0, 0, self.text_positions - text_BTE.shape[-2]))
        speech_BAD = self._embed(self.speech_projection(speech_BAF), speech_mask_BA)
        text_BTD = self._embed(text_BTE, text_mask_BT)
        heard_BAD = self.speech_to_text(speech_BAD, text_BTD, text_mask_BT if self.masked else None)
        read_BTD = self.text_to_speech(text_BTD, speech_BAD, speech_mask_BA if self.masked else None)
        heard_BD = masked_mean(heard_BAD, speech_mask_BA) if self.masked else heard_BAD.mean(dim=-2)
        logits_BC: Tensor = self.classifier(torch.cat([heard_BD, read_BTD[..., 0, :]], dim=-1), drop)
        return logits_BC
