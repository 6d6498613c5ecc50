"""Sound files: what their headers promise, whether that can be true, and their samples."""

import io
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import soundfile

Floats = npt.NDArray[np.float32]

# A header may promise more than memory holds: what is there decides, a block at a time.
_BLOCK_FRAMES = 1 << 20
_LOUDEST = 16.0  # full scale is 1; beyond this, floats were not scaled or are no floats
_UNKNOWN = (0, 0xFFFFFFFF)  # written as a length by programs that stream and do not know it
_PCM, _FLOAT, _ALAW, _MULAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
_BITS = {_PCM: (8, 16, 24, 32), _FLOAT: (32, 64), _ALAW: (8,), _MULAW: (8,)}
_NAMES = {_PCM: "PCM", _FLOAT: "float", _ALAW: "A-law", _MULAW: "mu-law"}
_SUBFORMAT_TAIL = bytes.fromhex("000000001000800000aa00389b71")  # of every KSDATAFORMAT_SUBTYPE
_CONVERT = "convert it, as with: ffmpeg -i IN -c:a pcm_s16le OUT.wav"


class AudioError(ValueError):
    """A file that cannot be used as speech."""


@dataclass(frozen=True, slots=True)
class SoundInfo:
    """What a sound file's header says of it."""

    num_samples: int  # of one channel
    rate_hz: int
    num_channels: int
    coding: str

    @property
    def seconds(self) -> float:
        return self.num_samples / self.rate_hz

    def describe(self) -> str:
        """Such as `44100 Hz stereo 24-bit`. The usual coding, PCM of 16 bits, is not named."""
        channels = {1: "mono", 2: "stereo"}.get(self.num_channels, f"{self.num_channels} channels")
        # Of WAV PCM 24, FLAC PCM_24 or OGG VORBIS.
        coding = self.coding.partition(" ")[2].replace("_", " ")
        if pcm := re.fullmatch(r"PCM [SU]?(\d+)", coding):
            coding = "" if pcm[1] == "16" else f"{pcm[1]}-bit"
        return f"{self.rate_hz} Hz {channels} {coding.lower()}".rstrip()


def sound_info(path: Path) -> SoundInfo:
    """Read a header, of a wav with all that its lengths promise. Raises FileNotFoundError, or
    AudioError naming file and fault.
    """
    with _file(path) as file:
        return _info(file, str(path))


def read_sound(path: Path) -> tuple[Floats, int]:
    """(S, channels) samples and their rate. Raises FileNotFoundError, or AudioError naming file and
    fault.
    """
    with _file(path) as file:
        return _samples(file, str(path))


def decode_sound(content: bytes, name: str) -> tuple[Floats, int]:
    """The same of a file's content that is in memory; `name` is what errors call it. Raises
    AudioError.
    """
    return _samples(io.BytesIO(content), name)


def _file(path: Path) -> BinaryIO:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such audio file")
    return open(path, "rb")


def _info(file: BinaryIO, name: str) -> SoundInfo:
    try:
        if (found := _wav_info(file)) is None:
            with _opened(file) as sound:
                coding = f"{sound.format} {sound.subtype}"
                found = SoundInfo(sound.frames, sound.samplerate, sound.channels, coding)
    except AudioError as error:
        raise AudioError(f"{name}: {error}") from None
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        raise AudioError(f"{name}: cannot be read as audio ({_reason(error)})") from None
    if not found.num_samples:
        raise AudioError(f"{name}: no samples")
    return found


def _samples(file: BinaryIO, name: str) -> tuple[Floats, int]:
    promised = _info(file, name)
    blocks: list[Floats] = []
    try:
        with _opened(file) as sound:
            while len(block := sound.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)):
                blocks.append(block)
            rate_hz = int(sound.samplerate)
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        raise AudioError(f"{name}: cannot be read as audio ({_reason(error)})") from None
    num_samples = sum(map(len, blocks))
    if num_samples != promised.num_samples or rate_hz != promised.rate_hz:
        raise AudioError(
            f"{name}: the header promises {promised.num_samples} samples at {promised.rate_hz} Hz, "
            f"{num_samples} at {rate_hz} Hz can be read; {_CONVERT}"
        )
    wave = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
    if not np.isfinite(wave).all():
        raise AudioError(f"{name}: samples that are not finite numbers")
    if (loudest := float(np.abs(wave).max())) > _LOUDEST:
        raise AudioError(
            f"{name}: samples of up to {loudest:.4g} where 1 is full scale; were floats written"
            " unscaled?"
        )
    return wave, rate_hz


def _opened(file: BinaryIO) -> soundfile.SoundFile:
    file.seek(0)
    if isinstance(file, io.BytesIO):
        return soundfile.SoundFile(file)
    # By descriptor: for a name like x.raw soundfile would want to be told rate and coding.
    os.lseek(file.fileno(), 0, os.SEEK_SET)  # the file's own seek may stay within its buffer
    return soundfile.SoundFile(file.fileno(), closefd=False)


def _reason(error: Exception) -> str:
    return error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)


def _wav_info(file: BinaryIO) -> SoundInfo | None:
    """The header of a wav, None for another format.

    libsndfile reads a truncated wav as a shorter one and believes any length, so here a wav's
    lengths, its file's size and the four numbers that describe a frame have to agree. Trailing
    bytes that the header's two lengths leave out are ignored.
    """
    size = file.seek(0, 2)
    file.seek(0)
    magic = file.read(12)
    if magic[:4] not in (b"RIFF", b"RIFX", b"RF64"):
        return None
    if magic[8:12] != b"WAVE":
        raise AudioError(f"is a RIFF file of kind {magic[8:12]!r}; expected b'WAVE'")
    order = ">" if magic[:4] == b"RIFX" else "<"
    riff_length = struct.unpack(f"{order}I", magic[4:8])[0]
    data_length_64: int | None = None
    info: tuple[int, int, int, str] | None = None  # rate, channels, bytes a frame, coding
    data: int | None = None
    end = 12
    while end < size:
        if data is not None and 8 + riff_length in (end, end - 1):
            break  # what follows is outside of the file that the header describes
        file.seek(end)
        head = file.read(8)
        name, length = struct.unpack(f"{order}4sI", head) if len(head) == 8 else (head, 0)
        if len(head) < 8 or not all(32 <= byte < 127 for byte in name):
            raise AudioError(
                f"byte {end}: expected the name of a chunk, found {name!r}; the header's lengths"
                f" are wrong; {_CONVERT}"
            )
        if name == b"ds64" and magic[:4] == b"RF64":
            body = file.read(16)
            if len(body) < 16:
                raise AudioError("truncated in its ds64 chunk")
            riff_length, data_length_64 = struct.unpack("<QQ", body)
        elif name == b"fmt ":
            if info is not None:
                raise AudioError("two fmt chunks")
            info = _wav_format(file.read(min(length, 64)), order)
        elif name == b"data":
            if info is None:
                raise AudioError("samples before the fmt chunk that describes them")
            if data is not None:
                raise AudioError(f"two data chunks; {_CONVERT}")
            if length == 0xFFFFFFFF and data_length_64 is not None:
                length = data_length_64
            elif length == 0xFFFFFFFF or (length == 0 and riff_length in _UNKNOWN):
                length = size - end - 8  # written as a stream: all that is there
                length -= length % info[2]
                data, end = length, size
                break
            if end + 8 + length > size:
                raise AudioError(
                    f"truncated: the header promises {length} bytes of samples, {size - end - 8}"
                    " are there"
                )
            if length % info[2]:
                raise AudioError(
                    f"{length} bytes of samples are no whole number of frames of {info[2]} bytes"
                )
            data = length
        end += 8 + length + length % 2
        if end > size + 1:
            raise AudioError(f"truncated in its {name.decode()!r} chunk")
    if info is None:
        raise AudioError("no fmt chunk")
    if data is None:
        raise AudioError("no data chunk: truncated, or without samples")
    # Some programs count the first eight bytes too.
    if riff_length not in _UNKNOWN and riff_length not in (end - 8, end - 9, end):
        raise AudioError(
            f"the header promises {8 + riff_length} bytes, its chunks have {end}; {_CONVERT}"
        )
    rate_hz, num_channels, frame_bytes, coding = info
    return SoundInfo(data // frame_bytes, rate_hz, num_channels, coding)


def _wav_format(body: bytes, order: str) -> tuple[int, int, int, str]:
    """Rate, channels, bytes a frame and coding of a fmt chunk whose numbers agree."""
    if len(body) < 16:
        raise AudioError(f"a fmt chunk of {len(body)} bytes; expected 16 at least")
    coding, num_channels, rate_hz, byte_rate, frame_bytes, bits = struct.unpack(
        f"{order}HHIIHH", body[:16]
    )
    if coding == _EXTENSIBLE:
        if len(body) < 40 or body[26:40] != _SUBFORMAT_TAIL:
            raise AudioError("an extensible fmt chunk without a known coding")
        coding = struct.unpack(f"{order}H", body[24:26])[0]
    if coding not in _BITS:
        raise AudioError(
            f"coding {coding:#06x} is none of {', '.join(_NAMES.values())}; {_CONVERT}"
        )
    if bits not in _BITS[coding]:
        raise AudioError(
            f"{_NAMES[coding]} of {bits} bits; expected {', '.join(map(str, _BITS[coding]))}"
        )
    if not num_channels or not rate_hz:
        raise AudioError(f"{num_channels} channels at {rate_hz} Hz")
    if frame_bytes != num_channels * bits // 8 or byte_rate != rate_hz * frame_bytes:
        raise AudioError(
            f"the header contradicts itself: {num_channels} channels of {bits} bits at {rate_hz}"
            f" Hz, but {frame_bytes} bytes a frame and {byte_rate} a second; {_CONVERT}"
        )
    return rate_hz, num_channels, frame_bytes, f"WAV {_NAMES[coding]} {bits}"
