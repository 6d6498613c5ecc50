"""Whisper's windows: speech cut to the model's length, and the model for shorter ones."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mmm.encoders import Floats


def in_windows(
    waves: Sequence[Floats],
    longest: int,
    length_of: Callable[[int], int],
    encode: Callable[[Sequence[Floats], int], list[dict[str, Floats]]],
) -> list[dict[str, Floats]]:
    """(S,) samples each -> (T, D) by feature, from windows of up to `longest` samples, one after
    another.

    `length_of` says to how many samples a piece of speech is padded, and `encode` takes pieces that
    are padded to the same.
    """
    cut = [range(0, max(1, len(wave)), longest) for wave in waves]
    pieces = [
        wave[start : start + longest]
        for wave, starts in zip(waves, cut, strict=True)
        for start in starts
    ]
    outputs: list[dict[str, Floats]] = [{} for _ in pieces]
    of_length: dict[int, list[int]] = {}
    for place, piece in enumerate(pieces):
        of_length.setdefault(length_of(len(piece)), []).append(place)
    # A long recording's windows are no larger batch than the plan's.
    at_once = max(1, len(waves))
    for length, places in of_length.items():
        for first in range(0, len(places), at_once):
            group = places[first : first + at_once]
            found = encode([pieces[place] for place in group], length)
            for place, frames in zip(group, found, strict=True):
                outputs[place] = frames
    whole = []
    for starts in cut:
        parts = [outputs.pop(0) for _ in starts]
        whole.append({one: np.concatenate([part[one] for part in parts]) for one in parts[0]})
    return whole


def shortened(model: Any, num_frames: int) -> Any:
    """Whisper's encoder for windows of so many frames: the same weights, with the first of the
    positions, because transformers' refuses windows of another length than its positions.
    """
    import torch

    config = copy.deepcopy(model.config)
    config.max_source_positions = num_frames
    with torch.device("meta"):  # nothing is allocated: the weights are taken over
        shorter = type(model)(config)
    shorter.layers = shorter.layers[: len(model.layers)]
    weights = model.state_dict()
    positions = weights["embed_positions.weight"][:num_frames]
    shorter.load_state_dict({**weights, "embed_positions.weight": positions}, assign=True)
    return shorter.eval()
