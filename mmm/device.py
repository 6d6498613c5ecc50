"""Where and how exactly numbers are computed: cores, the device, and float32 or bf16 on it."""

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # takes seconds, and a command whose features are all there has no use for it
    import torch

PRECISIONS = ("auto", "float32", "bf16", "fp16")

_CPUINFO = Path("/proc/cpuinfo")
_BF16_FLAGS = {"avx512_bf16", "amx_bf16"}
# Whether a CPU gains by bf16 in training: steps of these are large products. A concat system's are
# small, and its casts take what the products save (4.4 ms a step instead of 4.7, against 2.4 s
# instead of 8.2 of cross-attention).
_CPU_BF16_PAYS = ("mlp_mixer", "cross_attention")


def resolve_precision(precision: str, device: str) -> str:
    """`auto` -> what is fast there: bf16 where the device multiplies it, else fp16 on a GPU and
    float32 on a CPU. Raises ValueError.

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
        import torch

        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if cpu_has_bf16() else "float32"


def training_precision(precision: str, device: str, architecture: str) -> str:
    """The same for training a system: no fp16, in which small gradients vanish, and on a CPU bf16
    only where it pays. Raises ValueError.
    """
    if precision == "fp16":
        raise ValueError("--precision fp16 is not for training; use bf16, float32 or auto")
    if precision == "auto" and not device.startswith("cuda") and architecture not in _CPU_BF16_PAYS:
        return "float32"
    resolved = resolve_precision(precision, device)
    return "float32" if resolved == "fp16" else resolved


def cpus_here() -> int:
    """Cores that this process may use; where the system does not say (macOS), all of them."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def processor_here() -> str:
    """The processor's name; empty where nothing says it."""
    try:
        with open(_CPUINFO, encoding="utf-8") as file:
            models = [line.partition(":")[2].strip() for line in file if "model name" in line]
    except OSError:
        models = []
    return models[0] if models else platform.processor() or platform.machine()


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 (AVX512-BF16 or AMX); only Linux says.

    `MMM_CPU_BF16` set to `on` or `off` overrules what the CPU says: tests have to pass either way.
    """
    forced = os.environ.get("MMM_CPU_BF16")
    if forced is not None:
        return forced == "on"
    if not _CPUINFO.is_file():
        return False
    flags = next(
        (line for line in _CPUINFO.read_text().splitlines() if line.startswith("flags")), ""
    )
    return bool(_BF16_FLAGS & set(flags.split()))


def autocast(precision: str, device: str) -> Any:
    """The context to run a model in. float32 is float32: cuDNN by itself computes convolutions in
    TF32, a thousandth off.
    """
    import torch

    if precision == "float32" and torch.device(device).type == "cuda":
        return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return torch.autocast(
        torch.device(device).type, dtype=dtype or torch.bfloat16, enabled=dtype is not None
    )


def resolve_device(name: str) -> "torch.device":
    """`cpu`, `cuda` or `cuda:N`. Raises ValueError where this machine does not have it."""
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"unknown device {name!r}; expected cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {name!r} asked for, but this machine has {torch.cuda.device_count()} usable"
            " GPUs; use --device cpu"
        )
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"unknown device {name!r}; expected cpu, cuda or cuda:N")
    return device
