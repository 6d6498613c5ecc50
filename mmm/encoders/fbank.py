"""fbank: log-mel filterbanks, built in, nothing to download.

`extract_feature` is the filterbank, `hidden_state` has its first and second differences in time
beside it.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from mmm.encoders import Batching, Floats
from mmm.features.recipe import AUDIO_FEATURES, Recipe

SAMPLE_RATE_HZ = 16_000
FRAME_RATE_HZ = 25.0  # where nothing else is said
_VERSION = 1  # raise it when the numbers change, so that old features are not taken for new ones
_HOP_S, _WINDOW_S = 0.010, 0.025  # the usual framing of speech recognition
_ANALYSIS_RATE_HZ = round(1 / _HOP_S)
_FLOOR = 1e-6
# Log-mel values of speech lie between about -14 and 4; this brings them near zero mean and unit
# variance.
_SHIFT, _SCALE = 6.0, 4.0


class Fbank:
    """Log-mel frames at `frame_rate` a second: means over blocks of 10 ms frames."""

    batching: Batching = "loop"

    def __init__(self, *, frame_rate: float = FRAME_RATE_HZ, num_mels: int = 64) -> None:
        block = _ANALYSIS_RATE_HZ / frame_rate if frame_rate > 0 else 0.0
        if block < 1 or block != int(block):
            raise ValueError(
                f"--frame-rate {frame_rate:g} does not divide {_ANALYSIS_RATE_HZ}; try 50, 25, 20,"
                " 12.5 or 10"
            )
        if not 8 <= num_mels <= 128:
            raise ValueError(f"--num-mels {num_mels} is out of range; expected 8 to 128")
        self.frame_rate, self.num_mels, self.block = float(frame_rate), num_mels, int(block)

    @cached_property
    def mel(self) -> Any:
        import torchaudio.transforms  # here, because features that are there need none of it

        return torchaudio.transforms.MelSpectrogram(
            SAMPLE_RATE_HZ,
            n_fft=512,
            win_length=round(_WINDOW_S * SAMPLE_RATE_HZ),
            hop_length=round(_HOP_S * SAMPLE_RATE_HZ),
            f_min=20.0,
            n_mels=self.num_mels,
            pad_mode="constant",
        )

    def load(self, *, weights: bool = True) -> None:
        """Filters alone."""
        _ = self.mel

    def features(self) -> Sequence[str]:
        return AUDIO_FEATURES

    def several_layers(self) -> Sequence[str]:
        return ()

    def width(self, feature: str) -> int:
        return self.num_mels * (3 if feature == "hidden_state" else 1)

    def frames_per_mean(self, feature: str) -> int:
        return 1  # averaged before differences are taken, by itself

    def num_frames(self, num_samples: int, feature: str) -> int:
        return -(-(num_samples // round(_HOP_S * SAMPLE_RATE_HZ) + 1) // self.block)

    def encode_batch(
        self, waves: Sequence[Floats], features: Sequence[str]
    ) -> list[dict[str, Floats]]:
        return [self.encode(wave, features) for wave in waves]

    def recipe(self, feature: str) -> Recipe:
        return {
            "kind": "audio",
            "encoder": "fbank",
            "version": _VERSION,
            "feature": feature,
            "frame_rate_hz": self.frame_rate,
            "num_mels": self.num_mels,
            "sample_rate_hz": SAMPLE_RATE_HZ,
        }

    def encode(self, wave: Floats, features: Sequence[str]) -> dict[str, Floats]:
        import torch
        import torchaudio.functional
        from torch.nn import functional

        mel = (self.mel(torch.from_numpy(wave)) + _FLOOR).log()  # (num_mels, T)
        mel = (mel + _SHIFT) / _SCALE
        mel = functional.avg_pool1d(mel[None], self.block, ceil_mode=True)[0]
        found: dict[str, Floats] = {}
        for feature in features:
            parts = [mel]
            if feature == "hidden_state":
                parts.append(torchaudio.functional.compute_deltas(mel))
                parts.append(torchaudio.functional.compute_deltas(parts[-1]))
            found[feature] = np.ascontiguousarray(torch.cat(parts).T.numpy())
        return found
