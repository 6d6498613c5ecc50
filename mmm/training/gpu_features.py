"""Where features are while a model trains: all of them on the device where they fit, else on the
host's memory map.

On a GPU they stay float16 until a batch is gathered. What does not fit is gathered into pinned
memory and sent while the device still computes.
"""

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmm.features.store import FeatureStore

# For weights, activations and what others on the device are about to take.
_MARGIN_BYTES = 2 * 1024**3
_SHARE = 0.5  # of what is free, at most

# Of a device's memory, for each of the processes that share it: what CUDA itself takes.
_CONTEXT_BYTES = 700 * 10**6

_share = 1.0  # of a GPU's memory, this process's

_resident: dict[tuple[Path, str, torch.device], Tensor] = {}


class Made(NamedTuple):
    """An array that was made of a store, (n, D), and what distinguishes it from others."""

    name: str
    array: npt.NDArray[np.float16]


def share_memory(share: float) -> None:
    """Let this process take so much of the GPU's memory and no more: what is too large for it is
    out of memory alone, and not the processes beside it.
    """
    global _share
    total = torch.cuda.get_device_properties(0).total_memory
    _share = max(share - _CONTEXT_BYTES / total, 0.01)
    torch.cuda.set_per_process_memory_fraction(_share)


def free_bytes(device: torch.device) -> int:
    """What this process may still take of a GPU."""
    total = torch.cuda.get_device_properties(device).total_memory
    left = _share * total - torch.cuda.memory_reserved(device)
    return int(min(torch.cuda.mem_get_info(device)[0], left))


def fits(needed_bytes: int, free_bytes: int) -> bool:
    """Whether so much may be put on a device that has so much free."""
    return needed_bytes <= min(free_bytes - _MARGIN_BYTES, _SHARE * free_bytes)


def source(
    store: FeatureStore,
    name: Literal["values", "pooled"],
    device: torch.device,
    made: Made | None = None,
) -> Tensor:
    """`values` or `pooled` of a store, or what was `made` of them, (n, D) float16: on the device
    where that is a GPU with room, else on the host.
    """
    array = getattr(store, name) if made is None else made.array
    host = torch.from_numpy(array)
    if device.type != "cuda":
        return host
    key = (store.path, name if made is None else made.name, device)
    if key not in _resident:
        _resident[key] = host
        if fits(array.nbytes, free_bytes(device)):
            if made is None:
                store.check(name)
            with contextlib.suppress(torch.OutOfMemoryError):  # another process saw the same room
                _resident[key] = host.to(device)
    return _resident[key]


def keep_only(paths: Iterable[Path]) -> None:
    """Before a training: give back what features of other stores take on devices."""
    kept = set(paths)
    for key in [key for key in _resident if key[0] not in kept]:
        del _resident[key]


def resident_bytes(device: torch.device) -> int:
    """What features take on a device."""
    return sum(
        tensor.nbytes
        for (_, _, where), tensor in _resident.items()
        if where == device and tensor.device.type == device.type
    )


def gather(source: Tensor, rows: Tensor, device: torch.device) -> Tensor:
    """Rows (n,) of `source`, as float32 on the device, (n, D)."""
    if source.device.type == device.type:
        return source.index_select(0, rows.to(device, non_blocking=True)).float()
    pinned = torch.empty(len(rows), source.shape[1], dtype=source.dtype, pin_memory=True)
    torch.index_select(source, 0, rows, out=pinned)
    return pinned.to(device, non_blocking=True).float()  # half the bytes of sending float32
