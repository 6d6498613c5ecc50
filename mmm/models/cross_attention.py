"""cross_attention: speech attends to text and text to speech. Shapes: see mmm/models/__init__.py.

After MulT (Tsai et al. 2019, arXiv:1906.00295, section 3.2), with one layer of one direction each.
"""

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmm.models.layers import Classifier, Drop, LayerNorm, Linear, keep_all, keep_real, linear
from mmm.models.positions import Positions


def sinusoids(num_positions: int, width: int) -> Tensor:
    """(num_positions, width), positions counted from 1: sines in the first half, cosines in the
    second.
    """
    # On the CPU also where a model is only sized up on the meta device, which would import a
    # compiler for this.
    with torch.device("cpu"):
        frequencies = torch.exp(
            torch.arange(width // 2) * -(math.log(10000) / max(width // 2 - 1, 1))
        )
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

    def forward(self, query: Tensor, own: Positions, other: Tensor, others: Positions) -> Tensor:
        width = query.shape[-1]
        weight_q, weight_kv = self.in_projection.weight.split([width, 2 * width], dim=-2)
        bias_q, bias_kv = self.in_projection.bias.split([width, 2 * width], dim=-1)
        query_BQD = own.spread(linear(query, weight_q, bias_q))
        key_BSD, value_BSD = others.spread(linear(other, weight_kv, bias_kv)).chunk(2, dim=-1)
        # Attention mixes positions of one utterance alone: the members of a pack are more
        # utterances to it.
        query, key, value = (
            x.flatten(0, -3).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for x in (query_BQD, key_BSD, value_BSD)
        )
        mask = others.mask.flatten(0, -2)[:, None, None, :] if others.masked else None
        with _kernels(query):
            mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        mixed_BQD = mixed.transpose(1, 2).reshape(query_BQD.shape)
        projected: Tensor = self.out_projection(own.take(mixed_BQD))
        return projected


def _kernels(query: Tensor) -> AbstractContextManager[None]:
    """cuDNN plans its attention anew for every pair of lengths: the first epoch on a GPU took 10 s
    with it, 0.3 s with the others (docs/LOG.md, 2026-11-27).
    """
    if query.device.type != "cuda" or torch.compiler.is_compiling():
        return nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel(
        [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    )


class FeedForward(nn.ModuleList):
    """Linear(D, 4 D), ReLU, Linear(4 D, D); Xavier-uniform weights, zero biases."""

    def __init__(self, width: int) -> None:
        super().__init__([Projection(width, 4 * width), Projection(4 * width, width)])

    def forward(self, values: Tensor) -> Tensor:
        fed: Tensor = self[1](functional.relu(self[0](values)))
        return fed


class Layer(nn.Module):
    """Pre-norm attention and feed-forward, each with a residual; one LayerNorm serves query, key
    and value.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = LayerNorm(width)
        self.attention = Attention(width, heads)
        self.feed_forward_norm = LayerNorm(width)
        self.feed_forward = FeedForward(width)

    def forward(self, query: Tensor, own: Positions, other: Tensor, others: Positions) -> Tensor:
        query = query + self.attention(
            self.attention_norm(query), own, self.attention_norm(other), others
        )
        updated: Tensor = query + self.feed_forward(self.feed_forward_norm(query))
        return updated


class OneWayEncoder(nn.Module):
    """The query side attends to the other side, `layers` times."""

    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.final_norm = LayerNorm(width)

    def forward(self, query: Tensor, own: Positions, other: Tensor, others: Positions) -> Tensor:
        for layer in self.layers:
            query = layer(query, own, other, others)
        normed: Tensor = self.final_norm(query)
        return normed


class CrossAttention(nn.Module):
    """Two one-way encoders; mean of one and position 0 of the other -> classifier (MMM, baseline
    3).

    The model's width is the text's: speech is projected to it, text positions stay as they are.
    `masked`: keys in padding are ignored and the mean is over real frames. Published: padding takes
    part in both. Raises ValueError where `heads` does not divide the text width.
    """

    def __init__(
        self,
        *,
        speech_width: int,
        text_width: int,
        speech_positions: int,
        text_positions: int,
        num_classes: int,
        layers: int,
        heads: int,
        classifier_hidden: int,
        masked: bool,
    ) -> None:
        super().__init__()
        if text_width % heads:
            raise ValueError(
                f"heads={heads} does not divide the text width {text_width} that cross_attention"
                " works at"
            )
        self.masked = masked
        self.speech_positions, self.text_positions = speech_positions, text_positions
        self.speech_projection = Linear(speech_width, text_width, bias=False)
        self.speech_to_text = OneWayEncoder(text_width, layers, heads)
        self.text_to_speech = OneWayEncoder(text_width, layers, heads)
        self.classifier = Classifier(2 * text_width, classifier_hidden, num_classes)
        table = sinusoids(max(speech_positions, text_positions), text_width)
        self.register_buffer("positions", table, persistent=False)
        self.positions: Tensor

    def _embed(self, values: Tensor, positions: Positions) -> Tensor:
        table = positions.table(self.positions).to(values.dtype)
        if not self.masked:
            # Published: a position counts as padding where its first feature is exactly 0.
            table = keep_real(table.expand_as(values), values[..., 0] != 0)
        return math.sqrt(values.shape[-1]) * values + table

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
            speech_mask_BA, text_mask_BT = (
                values.new_ones(values.shape[:-1], dtype=torch.bool)
                for values in (speech_BAF, text_BTE)
            )
        heard, read = (
            Positions(mask, masked=self.masked) for mask in (speech_mask_BA, text_mask_BT)
        )
        speech = self._embed(self.speech_projection(heard.take(speech_BAF)), heard)
        text = self._embed(read.take(text_BTE), read)
        heard_BD = heard.mean(self.speech_to_text(speech, heard, text, read))
        read_BD = read.first(self.text_to_speech(text, read, speech, heard))
        logits_BC: Tensor = self.classifier(torch.cat([heard_BD, read_BD], dim=-1), drop)
        return logits_BC
