"""Reading speech: any file soundfile reads becomes 16 kHz mono float32, or a clear error."""

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


def _check_wav_is_whole(path: Path) -> None:
    """libsndfile reads a truncated wav as a shorter one; compare the header's data size with the file's."""
    with open(path, "rb") as file:
        size = path.stat().st_size
        if file.read(4) != b"RIFF":
            return
        file.seek(12)
        while len(head := file.read(8)) == 8:
            name, length = struct.unpack("<4sI", head)
            if name == b"data":
                # 0 and 0xFFFFFFFF are written by programs that stream and do not know the length.
                if length not in (0, 0xFFFFFFFF) and file.tell() + length > size:
                    raise AudioError(f"{path}: truncated: the header promises {length} bytes of samples, "
                                     f"{size - file.tell()} are there")  # fmt: skip
                return
            file.seek(length + length % 2, 1)


def read_speech(path: Path) -> Floats:
    """(S,) samples at 16 kHz, channels averaged. Raises FileNotFoundError, or AudioError naming file and fault."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such audio file")
    _check_wav_is_whole(path)
    try:
        wave, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{path}: cannot be read as audio ({error.error_string})") from None
    if not len(wave):
        raise AudioError(f"{path}: no samples")
    if not np.isfinite(wave).all():
        raise AudioError(f"{path}: samples that are not finite numbers")
    mono: Floats = np.ascontiguousarray(wave.mean(axis=1, dtype=np.float32))
    if rate_hz != SAMPLE_RATE_HZ:
        mono = torchaudio.functional.resample(torch.from_numpy(mono), rate_hz, SAMPLE_RATE_HZ).numpy()
    return mono
