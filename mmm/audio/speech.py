"""Reading speech: any file soundfile reads becomes 16 kHz mono float32, or a clear error."""

import collections
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmm.audio.sound import AudioError, Floats, SoundInfo, decode_sound, read_sound

__all__ = [
    "SAMPLE_RATE_HZ",
    "AudioError",
    "decode_speech",
    "describe_conversions",
    "num_speech_samples",
    "read_speech",
]

SAMPLE_RATE_HZ = 16_000
_RATES_HZ = (4_000, 768_000)  # of what can be speech
# Resampling between rates without a common factor needs a filter for each of thousands of phases:
# 16001 Hz takes gigabytes.
_MOST_PHASES = 12_000_000
_SPEECH = "16 kHz mono"
_MOST_KINDS = 6  # formats that a line names


def read_speech(path: Path) -> Floats:
    """(S,) samples at 16 kHz, channels averaged. Raises FileNotFoundError, or AudioError naming
    file and fault.
    """
    return _as_speech(*read_sound(path), str(path))


def decode_speech(content: bytes, name: str) -> Floats:
    """The same of a file's content that is in memory; `name` is what errors call it. Raises
    AudioError.
    """
    return _as_speech(*decode_sound(content, name), name)


def _as_speech(wave: Floats, rate_hz: int, name: str) -> Floats:
    mono: Floats = np.ascontiguousarray(wave.mean(axis=1, dtype=np.float32))
    if rate_hz == SAMPLE_RATE_HZ:
        return mono
    _check_rate(name, rate_hz)
    import torch
    import torchaudio.functional

    resampled: Floats = torchaudio.functional.resample(
        torch.from_numpy(mono), rate_hz, SAMPLE_RATE_HZ
    ).numpy()
    return resampled


def describe_conversions(files: Sequence[SoundInfo]) -> str:
    """How many of these files `read_speech` converts, and from what."""
    found = collections.Counter(
        info.describe()
        for info in files
        if (info.rate_hz, info.num_channels) != (SAMPLE_RATE_HZ, 1)
    )
    if not found:
        return f"none of {len(files)} files had to be converted to {_SPEECH}"
    named = found.most_common(_MOST_KINDS)
    kinds = [f"{count} from {kind}" for kind, count in named]
    if others := found.total() - sum(count for _, count in named):
        kinds.append(f"{others} from other formats")
    return f"converted {found.total()} of {len(files)} files to {_SPEECH}: {', '.join(kinds)}"


def num_speech_samples(path: Path, info: SoundInfo) -> int:
    """How many samples `read_speech` will give. Raises AudioError for a rate that it refuses."""
    if info.rate_hz == SAMPLE_RATE_HZ:
        return info.num_samples
    _check_rate(str(path), info.rate_hz)
    return -(-info.num_samples * SAMPLE_RATE_HZ // info.rate_hz)


def _check_rate(name: str, rate_hz: int) -> None:
    if not _RATES_HZ[0] <= rate_hz <= _RATES_HZ[1]:
        raise AudioError(
            f"{name}: a sample rate of {rate_hz} Hz; expected {_RATES_HZ[0]} to {_RATES_HZ[1]}"
        )
    common = math.gcd(rate_hz, SAMPLE_RATE_HZ)
    if (rate_hz // common) * (SAMPLE_RATE_HZ // common) > _MOST_PHASES:
        raise AudioError(
            f"{name}: a sample rate of {rate_hz} Hz shares no large factor with {SAMPLE_RATE_HZ};"
            f" is the header right? resample it, as with: ffmpeg -i IN -ar {SAMPLE_RATE_HZ} OUT.wav"
        )
