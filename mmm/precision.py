"""Which number format a device computes in."""

from pathlib import Path
from typing import Any

PRECISIONS = ("auto", "float32", "bf16", "fp16")

_CPUINFO = Path("/proc/cpuinfo")
_BF16_FLAGS = {"avx512_bf16", "amx_bf16"}


def resolve_precision(precision: str, device: str) -> str:
    """`auto` -> what is fast there: bf16 where the device multiplies it, else fp16 on a GPU and float32 on a CPU. Raises ValueError.

    A CPU without bf16 instructions emulates it, slower than float32.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"--precision {precision!r} is none of {', '.join(PRECISIONS)}")
    on_gpu = device.startswith("cuda")
    if precision == "fp16" and not on_gpu:
        raise ValueError("--precision fp16 needs a GPU; on a CPU use bf16 or float32")
    if precision != "auto":
        return precision
    if on_gpu:
        import torch  # here: a built-in encoder whose features are there has no use for it

        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if cpu_has_bf16() else "float32"


def training_precision(precision: str, device: str) -> str:
    """The same for training, which has no fp16: small gradients would vanish in it. Raises ValueError."""
    if precision == "fp16":
        raise ValueError("--precision fp16 is not for training; use bf16, float32 or auto")
    resolved = resolve_precision(precision, device)
    return "float32" if resolved == "fp16" else resolved


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 (AVX512-BF16 or AMX); only Linux says."""
    if not _CPUINFO.is_file():
        return False
    flags = next((line for line in _CPUINFO.read_text().splitlines() if line.startswith("flags")), "")
    return bool(_BF16_FLAGS & set(flags.split()))


def autocast(precision: str, device: str) -> Any:
    """The context to run a model in."""
    import torch

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return torch.autocast(torch.device(device).type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)
