"""How the positions of a batch are laid out between the parts of a sequence model.

Flat, the real positions alone lie side by side, (R, D): norms, feed-forward layers and projections
then compute on no padding. Padded, they are (B, P, D); of a pack, whose members have other lengths,
(M, B, P, D). What crosses positions (attention, token mixing) takes them padded from either.
"""

import torch
from torch import Tensor

from mmm.models.layers import Drop, keep_real, masked_mean


class Positions:
    """`mask` (B, P), or of a pack (M, B, P); `masked`: padding counts for nothing, else as real
    (the published systems).
    """

    def __init__(self, mask: Tensor, *, masked: bool) -> None:
        self.mask, self.masked = mask, masked
        # An exported graph has fixed numbers of rows, or none that are known: it stays padded.
        is_flat = masked and mask.dim() == 2 and not torch.compiler.is_compiling()
        self.rows = mask.flatten().nonzero().squeeze(1) if is_flat else None

    def take(self, values_BPD: Tensor) -> Tensor:
        """From padded values, whatever their padding holds."""
        if self.rows is not None:
            return values_BPD.flatten(0, 1).index_select(0, self.rows)
        return keep_real(values_BPD, self.mask) if self.masked else values_BPD

    def spread(self, values: Tensor) -> Tensor:
        """To padded values, zero in padding (published: whatever it holds)."""
        if self.rows is not None:
            zeros = values.new_zeros(self.mask.numel(), values.shape[-1])
            return zeros.index_copy(0, self.rows, values).view(*self.mask.shape, -1)
        return keep_real(values, self.mask) if self.masked else values

    def drop(self, values: Tensor, drop: Drop) -> Tensor:
        """Dropout; flat or not, the real positions get the same random numbers."""
        return drop(values, self.mask if self.masked and self.rows is None else None)

    def table(self, table_PD: Tensor) -> Tensor:
        """A row of a table for each position, to be added to values."""
        table_PD = table_PD[: self.mask.shape[-1]]
        if self.rows is None:
            return table_PD
        if table_PD.device.type != "cpu":  # adds up gradients in the same order every time
            of_all = table_PD.expand(len(self.mask), -1, -1).flatten(0, 1)
            return of_all.index_select(0, self.rows)
        return table_PD.index_select(0, self.rows % self.mask.shape[-1])

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the positions, (B, D)."""
        if self.rows is not None and values.device.type != "cpu":
            # index_add of a GPU adds in another order every time.
            return masked_mean(self.spread(values), self.mask)
        if self.rows is not None:
            total_BD = values.new_zeros(len(self.mask), values.shape[-1])
            total_BD = total_BD.index_add(0, self.rows // self.mask.shape[-1], values)
            return total_BD / self.mask.sum(dim=-1, keepdim=True).clamp(min=1).to(values.dtype)
        return masked_mean(values, self.mask) if self.masked else values.mean(dim=-2)

    def first(self, values: Tensor) -> Tensor:
        """Position 0 of each utterance, (B, D); it is always real."""
        if self.rows is not None:
            lengths = self.mask.sum(dim=-1)
            return values.index_select(0, lengths.cumsum(0) - lengths)
        return values[..., 0, :]
