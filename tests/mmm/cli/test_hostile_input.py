"""Whatever bytes come as sound, text or CSV: read right, or refused with a typed error that names
file and fault.

Valid files are compared with the samples they were made of; damaged ones may be refused, or read as
exactly these samples, never as others.
"""

import csv
import io
import struct
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mmm.audio.sound import AudioError, read_sound
from mmm.audio.speech import SAMPLE_RATE_HZ, read_speech
from mmm.corpora.csv_file import prepare_csv
from mmm.corpora.decoding import decode
from mmm.corpora.text_files import Texts
from mmm.corpora.write import write_prepared
from mmm.manifest import COLUMNS, EMOTIONS, ManifestError
from mmm.manifest_csv import read_manifest
from mmm.predict.inputs import read_dialogue
from tests.conftest import HEADER

# Numbers of inputs; together 1,050, of which 380 are valid and compared.
VALID_WAVS, FLIPPED_WAVS, CUT_WAVS, HEADERS, BYTES = 130, 170, 80, 150, 60
VALID_TEXTS, TEXTS, VALID_CSVS, CSVS, PREPARED = 130, 90, 120, 80, 40
_INTS = {"PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
_SUBTYPES = (*_INTS, "FLOAT", "DOUBLE")


def inputs(number: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """So many inputs, always the same, without a database or shrinking of what is to be fast."""
    return settings(
        max_examples=number,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@st.composite
def samples(draw: st.DrawFn) -> np.ndarray:
    """(S, channels) samples that every coding holds exactly: multiples of 1/128 below full
    scale.
    """
    shape = (draw(st.integers(1, 60)), draw(st.integers(1, 3)))
    seed = draw(st.integers(0, 2**32 - 1))
    return np.random.default_rng(seed).integers(-128, 128, shape).astype(np.float32) / 128


def wav_of(
    wave: np.ndarray, subtype: str, rate_hz: int, container: str, endian: str = "FILE"
) -> bytes:
    content = io.BytesIO()
    soundfile.write(content, wave, rate_hz, format=container, subtype=subtype, endian=endian)
    return content.getvalue()


def read_or_refused(path: Path, content: bytes) -> np.ndarray | None:
    """The samples, None where the file is refused by name; anything else that is raised fails the
    test.
    """
    path.write_bytes(content)
    try:
        return read_sound(path)[0]
    except AudioError as error:
        fault = str(error).removeprefix(f"{path}: ")
        assert fault != str(error)
        assert len(fault) > 5
        return None


@inputs(VALID_WAVS)
@given(
    wave=samples(),
    subtype=st.sampled_from(_SUBTYPES),
    rate_hz=st.sampled_from([8000, 16000, 22050, 44100, 48000]),
    container=st.sampled_from(["WAV", "WAVEX", "RF64", "BIG", "FLAC"]),
)
def test_valid_sound_is_read_as_the_samples_it_was_made_of(
    tmp_path: Path, wave: np.ndarray, subtype: str, rate_hz: int, container: str
) -> None:
    if container == "FLAC":
        subtype = {"PCM_U8": "PCM_S8"}.get(
            subtype, subtype if subtype in ("PCM_16", "PCM_24") else "PCM_24"
        )
    big = container == "BIG" and subtype != "PCM_U8"
    content = wav_of(
        wave, subtype, rate_hz, "WAV" if container == "BIG" else container, "BIG" if big else "FILE"
    )
    path = tmp_path / "valid.wav"
    path.write_bytes(content)
    found, found_rate_hz = read_sound(path)
    np.testing.assert_array_equal(found, wave)
    assert found_rate_hz == rate_hz
    speech = read_speech(path)
    if rate_hz == SAMPLE_RATE_HZ:
        np.testing.assert_array_equal(speech, wave.mean(axis=1, dtype=np.float32))
    assert len(speech) == -(-len(wave) * SAMPLE_RATE_HZ // rate_hz)
    assert np.isfinite(speech).all()


@inputs(FLIPPED_WAVS)
@given(
    wave=samples(),
    subtype=st.sampled_from(["PCM_16", "PCM_24", "FLOAT"]),
    container=st.sampled_from(["WAV", "WAVEX"]),
    data=st.data(),
)
def test_a_header_with_a_flipped_bit_is_refused_or_means_the_same(
    tmp_path: Path, wave: np.ndarray, subtype: str, container: str, data: st.DataObject
) -> None:
    content = bytearray(wav_of(wave, subtype, 16000, container))
    header = content.index(b"data") + 8
    bit = data.draw(st.integers(0, 8 * header - 1))
    content[bit // 8] ^= 1 << bit % 8
    found = read_or_refused(tmp_path / "flipped.wav", bytes(content))
    if found is not None:
        np.testing.assert_array_equal(found, wave)


@inputs(CUT_WAVS)
@given(wave=samples(), subtype=st.sampled_from(_SUBTYPES), data=st.data())
def test_a_wav_cut_anywhere_is_refused(
    tmp_path: Path, wave: np.ndarray, subtype: str, data: st.DataObject
) -> None:
    content = wav_of(wave, subtype, 16000, "WAV")
    padded = len(wave) * wave.shape[1] % 2 if subtype == "PCM_U8" else 0
    kept = data.draw(st.integers(0, len(content) - 1 - padded))
    assert read_or_refused(tmp_path / "cut.wav", content[:kept]) is None


def wav_by_hand(
    coding: int,
    channels: int,
    rate_hz: int,
    bits: int,
    wave: bytes,
    extra: bytes = b"",
    *,
    riff: int | None = None,
    length: int | None = None,
    frame: int | None = None,
) -> bytes:
    frame = channels * bits // 8 if frame is None else frame
    length = len(wave) if length is None else length
    byte_rate = rate_hz * frame % 2**32
    body = (
        b"WAVE"
        + extra
        + struct.pack(
            "<4sIHHIIHH4sI",
            b"fmt ",
            16,
            coding,
            channels,
            rate_hz,
            byte_rate,
            frame % 2**16,
            bits,
            b"data",
            length,
        )
        + wave
    )
    return struct.pack("<4sI", b"RIFF", len(body) if riff is None else riff) + body


_EDGES = st.sampled_from(
    [
        0,
        1,
        2,
        3,
        6,
        7,
        8,
        16,
        17,
        24,
        32,
        64,
        255,
        8000,
        16000,
        16001,
        44101,
        2**16 - 1,
        2**31,
        2**32 - 1,
    ]
)


@inputs(HEADERS)
@given(
    coding=_EDGES,
    channels=_EDGES,
    rate_hz=_EDGES,
    bits=_EDGES,
    length=_EDGES | st.none(),
    riff=_EDGES | st.none(),
    wave=st.binary(max_size=300),
    plain=st.integers(0, 2**7 - 1),
)
def test_headers_of_extreme_numbers_are_refused_or_read_as_they_say(
    tmp_path: Path,
    coding: int,
    channels: int,
    rate_hz: int,
    bits: int,
    length: int | None,
    riff: int | None,
    wave: bytes,
    plain: int,
) -> None:
    """`plain` decides which numbers are usual ones, so that the others are reached."""
    usual = [bool(plain >> place & 1) for place in range(7)]
    coding, channels = 1 if usual[0] else coding % 2**16, 1 if usual[1] else channels % 2**16
    rate_hz, bits = 16000 if usual[2] else rate_hz, 16 if usual[3] else bits % 2**16
    length, riff = None if usual[4] else length, None if usual[5] else riff
    extra = struct.pack("<4sI", b"LIST", 3) + b"abc\0" if usual[6] else b""
    content = wav_by_hand(coding, channels, rate_hz, bits, wave, extra, riff=riff, length=length)
    found = read_or_refused(tmp_path / "extreme.wav", content)
    if found is not None:
        assert coding in (1, 3, 6, 7)
        assert found.shape == (len(wave) // (channels * bits // 8), channels)
        if (coding, bits) == (1, 16):
            expected = np.frombuffer(wave[: found.size * 2], "<i2").reshape(found.shape)
            np.testing.assert_array_equal(found, expected.astype(np.float32) / 32768)
        try:
            assert np.isfinite(read_speech(tmp_path / "extreme.wav")).all()
        except AudioError as error:
            assert f"extreme.wav: a sample rate of {rate_hz} Hz" in str(error)


@inputs(BYTES)
@given(
    start=st.sampled_from(
        [
            b"",
            b"RIFF",
            b"RIFX\0\0\0\1WAVE",
            b"RIFF\xff\xff\xff\xffWAVEfmt ",
            b"fLaC",
            b"OggS",
            b"ID3",
            b"FORM",
            b".snd",
            b"caff",
        ]
    ),
    rest=st.binary(max_size=200),
    name=st.sampled_from(["a.wav", "a.raw", "a.flac", "a.mp3", "a"]),
)
def test_bytes_that_are_no_sound_are_refused_under_any_name(
    tmp_path: Path, start: bytes, rest: bytes, name: str
) -> None:
    found = read_or_refused(tmp_path / name, start + rest)
    assert found is None or start in (b"ID3", b"")  # what a lenient mp3 decoder may make of noise


def test_floats_that_are_no_samples_are_refused(tmp_path: Path) -> None:
    for value, message in (
        (np.nan, "not finite"),
        (np.inf, "not finite"),
        (32767.0, "up to 3.277e.04 where 1 is full scale"),
    ):
        soundfile.write(tmp_path / "a.wav", np.array([0.5, value]), 16000, subtype="FLOAT")
        with pytest.raises(AudioError, match=rf"a\.wav: samples .*{message}"):
            read_sound(tmp_path / "a.wav")


def test_a_flac_that_promises_more_than_memory_holds_is_refused(tmp_path: Path) -> None:
    content = bytearray(wav_of(np.zeros((5000, 1)), "PCM_16", 16000, "FLAC"))
    content[21] |= 0x0F  # the highest bits of the number of samples: 64 thousand million
    content[22] = 0xFF
    assert read_or_refused(tmp_path / "a.flac", bytes(content)) is None


# Text


_SYLLABLES = st.text(
    st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3), min_size=1, max_size=12
)
_LINES = st.lists(
    _SYLLABLES | st.text(st.sampled_from("abcXYZ019 .,!?/*+"), max_size=8), min_size=1, max_size=4
).map(" ".join)


@inputs(VALID_TEXTS)
@given(text=_LINES, encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp949"]))
def test_korean_in_any_encoding_of_the_field_is_read_as_it_was_written(
    text: str, encoding: str
) -> None:
    assert decode(text.encode(encoding), is_korean=True)[0] == text


@inputs(TEXTS)
@given(
    content=st.binary(max_size=40)
    | st.tuples(_SYLLABLES, st.binary(min_size=1, max_size=3)).map(
        lambda both: both[0].encode("cp949") + both[1]
    )
)
def test_other_bytes_are_refused_with_the_place_or_are_valid_in_the_encoding_taken(
    content: bytes,
) -> None:
    try:
        found, _ = decode(content, is_korean=True)
    except ValueError as error:
        assert not isinstance(error, UnicodeError)
        assert str(error).startswith(("byte ", "control character U+"))
        return
    valid = []
    for encoding in ("utf-8-sig", "cp949", "utf-16"):
        try:
            valid.append(content.decode(encoding).removesuffix("\x1a"))
        except UnicodeDecodeError:
            continue
    assert found in [unicodedata.normalize("NFC", text) for text in valid]
    assert not any(ord(sign) < 32 and sign not in "\t\n\r\x0b\x0c" for sign in found)


# CSV


# Signs that CSV, Unicode or Windows make something of, and some of each script.
_FIELD = st.text(
    st.sampled_from(
        "\",;|\n\t'\\"
        " abzAZ019=+-#éßñ가나힣ㅋ中あЖא😀e\u0301\u200b\u2028\u0085\ufeff\ufffd\u1112\u1161"
    ),
    max_size=15,
)


def csv_of(rows: list[list[str]], quoting: int = csv.QUOTE_MINIMAL) -> bytes:
    content = io.StringIO()
    csv.writer(content, quoting=quoting, lineterminator="\n").writerows(rows)  # type: ignore[arg-type]
    return content.getvalue().encode()


@inputs(VALID_CSVS)
@given(
    texts=st.lists(_FIELD, min_size=2, max_size=4),
    speaker=_FIELD.filter(lambda text: text.strip() != ""),
    votes=st.booleans(),
    emotions=st.lists(st.sampled_from(EMOTIONS), min_size=1, max_size=3, unique=True),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_a_valid_manifest_is_read_as_it_was_written(
    tmp_path: Path, texts: list[str], speaker: str, votes: bool, emotions: list[str], quoting: int
) -> None:
    (tmp_path / "a.wav").touch()
    rows = [
        [
            f"u{n}",
            f"d{n}",
            str(n),
            "s",
            speaker,
            text,
            "a.wav",
            ";".join(emotions),
            "dev" if n else "train",
        ]
        for n, text in enumerate(texts)
    ]
    header = list(HEADER)
    if votes:
        header += ["votes", "valence"]
        rows = [[*row, "|".join(emotions), "2.5"] for row in rows]
    (tmp_path / "manifest.csv").write_bytes(csv_of([header, *rows], quoting))
    manifest = read_manifest(tmp_path / "manifest.csv")
    assert [one.text for one in manifest.utterances] == [text.strip() for text in texts]
    assert {(one.speaker, one.emotions) for one in manifest.utterances} == {
        (speaker.strip(), tuple(emotions))
    }
    assert {(one.votes, one.valence) for one in manifest.utterances} == {
        (tuple((name,) for name in emotions), 2.5) if votes else ((), None)
    }


def refused_or_read(read: Callable[[Path], object], path: Path) -> bool:
    """Whether it was read; a refusal names the file."""
    try:
        read(path)
    except (ManifestError, FileNotFoundError) as error:
        assert str(error).startswith(f"{path}: ")
        assert len(str(error)) > len(str(path)) + 10
        return False
    return True


_NASTY = st.sampled_from(
    [
        "",
        "u1",
        "0",
        "-1",
        "9" * 5000,
        "²",
        "٣",
        "\x00",
        "\x1e",
        "a" * 300,
        "a/b\0c",
        "..",
        "/",
        "joy",
        "happy;",
        ";",
        "train",
        "nan",
        "1e999",
        "\ud7ff",
        "\ufeff",
        "\u2028",
        "=1+1",
        '"',
        "\r",
        "," * 12,
        "neutral|",
        "|",
    ]
)


@inputs(CSVS)
@given(
    rows=st.lists(st.lists(_NASTY | _FIELD, min_size=0, max_size=13), max_size=5),
    header=st.booleans(),
    columns=st.permutations([*COLUMNS, "split", "votes", "arousal"]),
)
def test_any_csv_is_read_or_refused_by_name(
    tmp_path: Path, rows: list[list[str]], header: bool, columns: list[str]
) -> None:
    path = tmp_path / "manifest.csv"
    path.write_bytes(csv_of([columns, *rows] if header else rows))
    refused_or_read(read_manifest, path)
    refused_or_read(Texts().rows, path)
    refused_or_read(lambda source: write_prepared(prepare_csv(source), tmp_path / "out.csv"), path)
    path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 2] + b"\xb0\xff")
    assert not refused_or_read(read_manifest, path)


@inputs(PREPARED)
@given(changes=st.lists(st.tuples(st.integers(0, 3), st.sampled_from(HEADER), _NASTY), max_size=2))
def test_a_manifest_with_nasty_fields_is_refused_with_their_lines(
    tmp_path: Path, changes: list[tuple[int, str, str]]
) -> None:
    (tmp_path / "a.wav").touch()
    rows = [
        [
            f"u{n}",
            f"d{n}",
            "1",
            f"s{n}",
            "A",
            f"text {n}",
            "a.wav",
            "sad",
            "dev" if n == 3 else "train",
        ]
        for n in range(4)
    ]
    for row, column, value in changes:
        rows[row][HEADER.index(column)] = value
    path = tmp_path / "manifest.csv"
    path.write_bytes(csv_of([list(HEADER), *rows]))
    if refused_or_read(read_manifest, path):
        kept = [
            [
                one.utterance_id,
                one.dialogue_id,
                str(one.turn),
                one.session,
                one.speaker,
                one.text,
                one.audio,
                ";".join(one.emotions),
                one.split,
            ]
            for one in read_manifest(path).utterances
        ]
        assert kept == [
            [
                field.strip().removesuffix(";") if place == 7 else field.strip()
                for place, field in enumerate(row)
            ]
            for row in rows
        ]


def test_the_inputs_are_a_thousand_and_a_third_of_them_valid() -> None:
    valid = VALID_WAVS + VALID_TEXTS + VALID_CSVS
    total = valid + FLIPPED_WAVS + CUT_WAVS + HEADERS + BYTES + TEXTS + CSVS + PREPARED
    assert total >= 1000
    assert valid >= total / 3


@pytest.mark.parametrize("before", ["", "sep=;\n"])
def test_a_field_longer_than_the_csv_module_takes_is_one_fault_with_line_and_column(
    tmp_path: Path, before: str
) -> None:
    (tmp_path / "a.wav").touch()
    what = r"'text' holds 200,000 characters, of at most 131,072; is a quote not closed"
    long = "x" * 200_000
    row = [*("u", "d", "0", "s", "who"), f"two\nlines {long[10:]}", "a.wav", "sad", "train"]
    fields = csv_of([list(HEADER), row]).decode()
    (tmp_path / "manifest.csv").write_text(fields)
    with pytest.raises(ManifestError, match=rf"line 2: column {what}"):
        read_manifest(tmp_path / "manifest.csv")
    (tmp_path / "table.csv").write_text(f"{before}path;text;label\na.wav;'ok'\n;hi;sad\n;{long};x")
    line = 4 + len(before.splitlines())
    with pytest.raises(ManifestError, match=rf"line {line}: column {what}"):
        prepare_csv(tmp_path / "table.csv")
    (tmp_path / "turns.csv").write_text(f'audio,text\na.wav,hi\n\na.wav,"{long}')
    with pytest.raises(ValueError, match=rf"turns\.csv: line 4: column {what}"):
        read_dialogue(tmp_path / "turns.csv")
    (tmp_path / "turns.csv").write_text(f"audio,{long}\na.wav,hi\n")
    with pytest.raises(ValueError, match=r"line 1: column 2 holds 200,000 characters"):
        read_dialogue(tmp_path / "turns.csv")
