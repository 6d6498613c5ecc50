"""Which number format a pretrained encoder computes in on a device."""

import torch

from mmm.encoders import PRECISIONS

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_precision(precision: str, device: str) -> str:
    """`auto` -> what is fast there: bf16 where the device multiplies it, else fp16 on a GPU and float32 on a CPU. Raises ValueError.

    A CPU without bf16 instructions emulates it, slower than float32.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"--precision {precision!r} is none of {', '.join(PRECISIONS)}")
    on_gpu = torch.device(device).type == "cuda"
    if precision == "fp16" and not on_gpu:
        raise ValueError("--precision fp16 needs a GPU; on a CPU use bf16 or float32")
    if precision != "auto":
        return precision
    if on_gpu:
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if cpu_has_bf16() else "float32"


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 (AVX512-BF16 or AMX)."""
    cpu = torch.cpu
    return any(bool(getattr(cpu, name)()) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported") if hasattr(cpu, name))


def autocast(precision: str, device: str) -> torch.autocast:
    kind = torch.device(device).type
    return torch.autocast(kind, dtype=_DTYPES.get(precision, torch.bfloat16), enabled=precision in _DTYPES)
