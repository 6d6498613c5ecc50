"""Reading speech: any file soundfile reads becomes 16 kHz mono float32, or a clear error."""

import io
import struct
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio.functional

from mmm.encoders import Floats

SAMPLE_RATE_HZ = 16_000


class AudioError(ValueError):
    """A file that cannot be used as speech."""


def _check_wav_is_whole(content: bytes, name: str) -> None:
    """libsndfile reads a truncated wav as a shorter one; compare the header's data size with the file's."""
    if content[:4] != b"RIFF":
        return
    place = 12
    while place + 8 <= len(content):
        chunk, length = struct.unpack_from("<4sI", content, place)
        place += 8
        if chunk == b"data":
            # 0 and 0xFFFFFFFF are written by programs that stream and do not know the length.
            if length not in (0, 0xFFFFFFFF) and place + length > len(content):
                raise AudioError(f"{name}: truncated: the header promises {length} bytes of samples, "
                                 f"{len(content) - place} are there")  # fmt: skip
            return
        place += length + length % 2


def read_speech(path: Path) -> Floats:
    """(S,) samples at 16 kHz, channels averaged. Raises FileNotFoundError, or AudioError naming file and fault."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such audio file")
    return decode_speech(path.read_bytes(), str(path))


def decode_speech(content: bytes, name: str) -> Floats:
    """The same of a file's content that is in memory; `name` is what errors call it. Raises AudioError."""
    _check_wav_is_whole(content, name)
    try:
        wave, rate_hz = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{name}: cannot be read as audio ({error.error_string})") from None
    if not len(wave):
        raise AudioError(f"{name}: no samples")
    if not np.isfinite(wave).all():
        raise AudioError(f"{name}: samples that are not finite numbers")
    mono: Floats = np.ascontiguousarray(wave.mean(axis=1, dtype=np.float32))
    if rate_hz != SAMPLE_RATE_HZ:
        mono = torchaudio.functional.resample(torch.from_numpy(mono), rate_hz, SAMPLE_RATE_HZ).numpy()
    return mono
