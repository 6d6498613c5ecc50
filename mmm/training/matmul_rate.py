"""Which matrix products a piece of code executes, and how fast the machine does these products
alone.
"""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

Product = tuple[int, int, int, int]  # batch, rows, inner, columns
_aten = torch.ops.aten
_CPU = torch.device("cpu")


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Of the CPU's fused attention, which torch does not count: query by key, and the weights by
    value.
    """
    batch, heads, num_queries, width = query
    return int(2 * batch * heads * num_queries * key[-2] * (width + value[-1]))


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Five products of that size, the weights' being made again."""
    batch, heads, num_queries, width = query
    return int(2 * batch * heads * num_queries * key[-2] * (3 * width + 2 * value[-1]))


_ATTENTION = {
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


class _Watch(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.products: Counter[Product] = Counter()

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = op.overloadpacket
        if packet in (_aten.mm, _aten.addmm, _aten.bmm, _aten.baddbmm):
            one, other = args[-2:] if packet in (_aten.mm, _aten.bmm) else args[1:3]
            batch = one.shape[0] if one.dim() == 3 else 1
            self.products[batch, one.shape[-2], one.shape[-1], other.shape[-1]] += 1
        return op(*args, **(kwargs or {}))


def executed(step: Callable[[], object]) -> tuple[Counter[Product], float]:
    """The products of one step, and all its floating-point operations, attention included (torch's
    own count).
    """
    with FlopCounterMode(display=False, custom_mapping=_ATTENTION) as counter:
        step()
    with _Watch() as watch:
        step()
    return watch.products, float(counter.get_total_flops())


def main_products(products: Counter[Product], share: float = 0.95) -> Counter[Product]:
    """The largest products, that together make this share of all operations."""
    ordered = sorted(products.items(), key=lambda item: -_operations(item[0]) * item[1])
    total, largest, so_far = sum(_operations(p) * n for p, n in ordered), Counter[Product](), 0.0
    for product, number in ordered:
        if so_far >= share * total:
            break
        largest[product] = number
        so_far += _operations(product) * number
    return largest


def _operations(product: Product) -> float:
    batch, rows, inner, columns = product
    return 2.0 * batch * rows * inner * columns


def make_operands(
    products: Counter[Product], dtype: torch.dtype, device: torch.device = _CPU
) -> list[tuple[Tensor, Tensor, Tensor, int, float]]:
    """Contiguous operands and a place for the result of each product, how often it is done, and its
    operations.
    """
    made = []
    for product, number in products.items():
        batch, rows, inner, columns = product
        shapes = ((rows, inner), (inner, columns), (rows, columns))
        one, other, out = (
            torch.randn(batch, *shape, device=device).to(dtype).squeeze(0) for shape in shapes
        )
        made.append((one, other, out, number, _operations(product)))
    return made


def product_rate(
    operands: list[tuple[Tensor, Tensor, Tensor, int, float]], device: torch.device = _CPU
) -> float:
    """Operations a second of these products, done one after the other into memory that is there."""
    operations, started = 0.0, time.perf_counter()
    for one, other, out, number, each in operands:
        for _ in range(number):
            torch.matmul(one, other, out=out)
        operations += number * each
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return operations / (time.perf_counter() - started)
