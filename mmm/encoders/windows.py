"""Frames and seconds: how many frames a convolutional front end makes, and how long speech is cut
and stitched.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmm.encoders import Floats


@dataclass(frozen=True)
class Convolutions:
    """Unpadded convolutions over samples, as in Wav2Vec2 (Baevski et al. 2020, arXiv:2006.11477,
    section 2).

    Frame t sees the samples from `t * hop` to `t * hop + receptive`.
    """

    kernels: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def hop(self) -> int:
        return int(np.prod(self.strides))

    @property
    def receptive(self) -> int:
        """The fewest samples that give a frame."""
        samples, jump = 1, 1
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            samples += (kernel - 1) * jump
            jump *= stride
        return samples

    def num_frames(self, num_samples: int) -> int:
        """At least 1: shorter speech is padded to `receptive`."""
        length = max(num_samples, self.receptive)
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            length = (length - kernel) // stride + 1
        return length


@dataclass(frozen=True)
class Window:
    """A stretch of a long recording, and the frames that are taken from it: `first` to `end` of the
    whole's frames.
    """

    start_sample: int
    end_sample: int
    start_frame: int  # of the whole, of the window's own frame 0
    first: int
    end: int


def windows(
    num_samples: int, convolutions: Convolutions, *, limit: int, overlap: int
) -> list[Window]:
    """Cut more than `limit` samples into windows that share `overlap`; up to `limit` they stay
    whole.

    Windows start on a frame's first sample. Of two neighbours each frame is taken once: from the
    earlier one up to the middle of what they share, then from the later one, so that each is at
    least half the overlap away from a cut.
    """
    hop, total = convolutions.hop, convolutions.num_frames(num_samples)
    step = (limit - overlap) // hop * hop
    assert step > 0, "the overlap leaves no room"
    starts = [0]
    while num_samples > limit and starts[-1] + limit < num_samples:
        starts.append(starts[-1] + step)
    found: list[Window] = []
    for number, start in enumerate(starts):
        last = number == len(starts) - 1
        end_sample = num_samples if last else start + limit
        first = found[-1].end if found else 0
        # The window's frames reach to start + limit; the next one's begin at start + step.
        end = total if last else (start + step + (limit - step) // 2) // hop
        found.append(Window(start, end_sample, start // hop, first, end))
    return found


def stitch(parts: Sequence[Floats], cut: Sequence[Window]) -> Floats:
    """The windows' frames (T_i, D) -> the whole's (T, D)."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(
        [
            part[w.first - w.start_frame : w.end - w.start_frame]
            for part, w in zip(parts, cut, strict=True)
        ]
    )
