"""Which encoding a text file is in: told where that can be known, refused with the readings that it
could have where it cannot.
"""

import codecs
import re
import unicodedata

_HANGUL = re.compile("[가-힣]")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_MARKS = (  # of a byte order mark; UTF-32's begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NO_TEXT = (
    (
        b"PK\x03\x04",
        "a zip, as Excel's .xlsx is; open it and save it as CSV (Excel: File, Save As, CSV UTF-8)",
    ),
    (
        bytes.fromhex("d0cf11e0a1b11ae1"),
        "a workbook of Excel (.xls); open it and save it as CSV (File, Save As, CSV UTF-8)",
    ),
    (b"PAR1", "Parquet; make a CSV of it: pandas.read_parquet(FILE).to_csv(FILE_CSV)"),
    (b"\x1f\x8b", "compressed (gzip); unpack it"),
)
# Bytes that Windows' encodings of Latin letters (cp1250, 1252, 1254, 1257) read alike: quotes,
# dashes, dots, the letters of German, é. What has others, as è, is č in one of them.
AGREED = frozenset(
    b"\x85\x91\x92\x93\x94\x95\x96\x97\xa0\xab\xb0\xbb\xc4\xc9\xd6\xdc\xdf\xe4\xe9\xf6\xfc"
)
# Between letters these are letters of DOS (cp437, cp850); three accents in a row are of another
# script.
_NOT_WESTERN = re.compile(
    rb"[A-Za-z][\x91\x93-\x96\xa0][A-Za-z]|[\xc4\xc9\xd6\xdc\xe4\xe9\xf6\xfc]{3}"
)
_LEAST_COMMON = 0.9  # of the Hangul of a Korean text is among the 2,350 syllables of KS X 1001
_LATIN_FIRST = ("cp1252", "cp1250", "cp1251", "cp949", "gb18030", "shift_jis", "big5")
_LATIN_LAST = ("gb18030", "shift_jis", "big5", "cp949", "cp1251", "cp1252", "cp1250")
_SHOWN = 4
_NO_ENCODINGS = ("escape", "punycode", "idna", "undefined", "utf-7", "mbcs", "oem")


def decode(
    content: bytes, *, is_korean: bool = False, encoding: str | None = None
) -> tuple[str, str]:
    """Text, composed (NFC), and the encoding it was taken to be in. Raises ValueError saying why it
    is none.

    UTF-8, and UTF-16 with its mark, are known for sure. What is neither is read in `encoding` where
    one is named. Otherwise it is cp949 or cp1252 where its bytes fit one of them alone, and refused
    where they could be several. `is_korean` of a corpus of which we know it: what is cp949 is then
    cp949, and a few syllables that are valid UTF-8 by accident, as 째 is °, are too.
    """
    for magic, what in _NO_TEXT:
        if content.startswith(magic):
            raise ValueError(f"byte 0: no text, but {what}")
    text, name = _decoded(content, is_korean, check_encoding(encoding) if encoding else None)
    text = text.removesuffix("\x1a")  # how DOS ends a text
    if control := _CONTROL.search(text):
        utf_16 = content.count(0) > len(content) // 4
        utf_16_hint = "UTF-16 without its mark? then give --encoding utf-16-le"
        hint = utf_16_hint if utf_16 else "a text file?"
        raise ValueError(f"control character U+{ord(control[0]):04X}; is it {hint}")
    return unicodedata.normalize("NFC", text), name


def check_encoding(name: str) -> str:
    """The name as Python writes it. Raises ValueError for what is no encoding of text."""
    try:
        found = codecs.lookup(name).name
        is_text = "a".encode(found) != b"" and not any(part in found for part in _NO_ENCODINGS)
    except (LookupError, UnicodeError, ValueError):
        is_text = False
    if not is_text:
        raise ValueError(
            f"--encoding {name!r}: no such encoding; expected one such as cp949, cp1252, cp1250,"
            " gb18030, shift_jis or utf-16-le"
        )
    return found


def _decoded(content: bytes, is_korean: bool, encoding: str | None) -> tuple[str, str]:
    for mark, name in _MARKS:
        if content.startswith(mark):
            try:
                return content.decode(name), name
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"byte {error.start}: not {name.upper()} ({error.reason}), as its first bytes"
                    " say"
                ) from None
    in_cp949 = _tried(content, "cp949")
    # UTF-16 without its mark, and ISO 2022, are valid UTF-8 to the letter, but no text in it.
    if encoding and (b"\0" in content or b"\x1b" in content):
        return _in(content, encoding), encoding
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        fault = error
    else:
        if (
            is_korean
            and not text.isascii()
            and not _HANGUL.search(unicodedata.normalize("NFC", text))
            and in_cp949 is not None
            and _HANGUL.search(in_cp949)
        ):
            return in_cp949, "cp949"
        return text, "utf-8"
    if encoding:
        return _in(content, encoding), encoding
    if is_korean and in_cp949 is not None:
        return in_cp949, "cp949"
    if is_korean:
        last = max(fault, _fault(content, "cp949"), key=lambda one: one.start)
        raise ValueError(f"byte {last.start}: neither UTF-8 nor cp949 ({last.reason})")
    fits = []
    if in_cp949 is not None and _is_plausible_korean(in_cp949):
        fits.append((in_cp949, "cp949"))
    if {byte for byte in content if byte > 127} <= AGREED and not _NOT_WESTERN.search(content):
        fits.append((content.decode("cp1252"), "cp1252"))
    if len(fits) == 1:
        return fits[0]
    line = content.count(b"\n", 0, fault.start) + 1
    readings = _readings(content, fault.start)
    shown = ", ".join(f"{name} reads {reading!r}" for name, reading in readings)
    if not readings:
        raise ValueError(
            f"byte {fault.start} (line {line}): not UTF-8 ({fault.reason}), nor any other encoding"
            " that is usual; is it a text file?"
        )
    raise ValueError(
        f"byte {fault.start} (line {line}): not UTF-8, and its encoding cannot be told: {shown};"
        f" say which it is, such as --encoding {readings[0][0]}"
    )


def _in(content: bytes, encoding: str) -> str:
    try:
        return content.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"byte {error.start} (line {line}): not {encoding} ({error.reason}), which --encoding"
            " says it is"
        ) from None


def _tried(content: bytes, encoding: str) -> str | None:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        return None


def _fault(content: bytes, encoding: str) -> UnicodeDecodeError:
    try:
        content.decode(encoding)
    except UnicodeDecodeError as error:
        return error
    raise AssertionError(encoding)


def _is_plausible_korean(text: str) -> bool:
    """Whether its letters beyond ASCII are Hangul, and mostly common: text of other languages that
    cp949 reads is hanja, single jamo, or syllables that nobody uses.
    """
    letters = [sign for sign in text if sign > "\x7f" and unicodedata.category(sign)[0] == "L"]
    num_jamo = sum("ㄱ" <= sign <= "ㅣ" for sign in letters)  # of laughter, ㅋㅋ: some, not most
    common = [sign for sign in letters if _HANGUL.match(sign) and _tried_encoding(sign, "euc_kr")]
    return len(common) > num_jamo and len(common) >= _LEAST_COMMON * (len(letters) - num_jamo)


def _tried_encoding(sign: str, encoding: str) -> bool:
    try:
        return len(sign.encode(encoding)) == 2  # others are spelt out in eight
    except UnicodeEncodeError:
        return False


def _readings(content: bytes, start: int) -> list[tuple[str, str]]:
    """What the line with this byte would say in each encoding that fits, each reading once."""
    begin = content.rfind(b"\n", 0, start) + 1
    end = content.find(b"\n", start)
    bare = content[begin : len(content) if end < 0 else end]
    num_high = sum(byte > 127 for byte in bare)
    is_latin = num_high < sum(bytes([byte]).isalpha() for byte in bare) / 2
    found: dict[str, str] = {}
    for name in _LATIN_FIRST if is_latin else _LATIN_LAST:
        if _tried(content, name) is None:
            continue
        line = bare.decode(name, errors="replace")
        first = next((place for place, sign in enumerate(line) if sign > "\x7f"), 0)
        found.setdefault(" ".join(line[max(0, first - 12) : first + 12].split()), name)
    return [(name, reading) for reading, name in found.items()][:_SHOWN]
