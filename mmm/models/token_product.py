"""A linear map over positions, the last axis but one, without transposed copies of the
activations.
"""

from typing import Any

import torch
from torch import Tensor

# Elements of the weight's gradients of a whole batch; beyond, they are added up as they are made.
_SUMMED = 2**20


def token_product(weight_QP: Tensor, bias_Q: Tensor, values_BPD: Tensor) -> Tensor:
    """(Q, P) by (B, P, D) -> (B, Q, D); of a pack, (M, Q, P) by (M, B, P, D).

    `functional.linear` would want positions last: a transposed copy on the way in, another on the
    way out, and both again in the backward pass.
    """
    if values_BPD.device.type != "cpu" and not torch.compiler.is_compiling():
        return token_product_in_one(weight_QP, bias_Q, values_BPD)
    if weight_QP.dim() == 3:
        return torch.stack(
            [token_product(*member) for member in zip(weight_QP, bias_Q, values_BPD, strict=True)]
        )
    if torch.compiler.is_compiling():
        return torch.matmul(weight_QP, values_BPD) + bias_Q.unsqueeze(-1)
    if torch.is_autocast_enabled(values_BPD.device.type):
        dtype = torch.get_autocast_dtype(values_BPD.device.type)
        weight_QP, bias_Q, values_BPD = weight_QP.to(dtype), bias_Q.to(dtype), values_BPD.to(dtype)
    product: Tensor = _TokenProduct.apply(weight_QP, bias_Q, values_BPD)
    return product


def token_product_in_one(weight_QP: Tensor, bias_Q: Tensor, values_BPD: Tensor) -> Tensor:
    """One product for all members and utterances: on a GPU copies cost less than many small
    products and their launches.
    """
    num_utterances, width = values_BPD.shape[-3], values_BPD.shape[-1]
    side_by_side = values_BPD.transpose(-3, -2).flatten(-2)  # (..., P, B * D)
    product: Tensor = torch.matmul(weight_QP, side_by_side)
    product = product + bias_Q.unsqueeze(-1).to(product.dtype)
    mixed: Tensor = product.unflatten(-1, (num_utterances, width)).transpose(-3, -2)
    return mixed


class _TokenProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight_QP: Tensor, bias_Q: Tensor, values_BPD: Tensor) -> Tensor:
        ctx.save_for_backward(weight_QP, values_BPD)
        # No copy: batched products take a stride of 0.
        of_all = weight_QP.expand(len(values_BPD), -1, -1)
        return torch.baddbmm(bias_Q.view(1, -1, 1), of_all, values_BPD)

    @staticmethod
    def backward(
        ctx: Any, gradient_BQD: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        weight_QP, values_BPD = ctx.saved_tensors
        gradient_BQD = gradient_BQD.contiguous()
        of_weight = of_values = None
        if ctx.needs_input_grad[2]:
            of_values = torch.bmm(weight_QP.mT.expand(len(values_BPD), -1, -1), gradient_BQD)
        if ctx.needs_input_grad[0]:
            if weight_QP.numel() * len(values_BPD) <= _SUMMED:
                of_weight = torch.bmm(gradient_BQD, values_BPD.mT).sum(dim=0)
            else:
                of_weight = torch.zeros_like(
                    weight_QP, dtype=torch.promote_types(weight_QP.dtype, torch.float32)
                )
                for gradient_QD, values_PD in zip(gradient_BQD, values_BPD, strict=True):
                    if of_weight.dtype == weight_QP.dtype:
                        torch.addmm(of_weight, gradient_QD, values_PD.mT, out=of_weight)
                    else:  # bf16 products are added up in float32
                        of_weight += gradient_QD @ values_PD.mT
                of_weight = of_weight.to(weight_QP.dtype)
        return of_weight, gradient_BQD.sum(dim=(0, 2)), of_values
