"""Text as corpora have it: files in one of several encodings, CSVs by position, transcripts with
tags.
"""

import csv
import io
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

from mmm.manifest import ManifestError

_HANGUL = re.compile("[가-힣]")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
# MELD's files went through Windows: C1 control characters stand for cp1252's quotes and dashes.
_C1 = re.compile("[\x80-\x9f]")

# KEMDy20's tags: c/ continuous, n/ noise, N/ heavy noise, u/ unintelligible, l/ filler, b/ breath,
# * partial word, + stutter, and a bare / behind an interjection.
_LETTER_TAG = re.compile("(?<![A-Za-z])[cnNulb]/")
_BARE_SLASH = re.compile("(?<=[0-9A-Za-z])/(?=[0-9A-Za-z])")
_SIGN_TAG = re.compile("[*+/]")
_NOT_PUBLISHED = re.compile("[^가-힣ㄱ-ㅎㅏ-ㅣ !?.,]")
_NOT_DEFAULT = re.compile("[^0-9A-Za-z가-힣ㄱ-ㅎㅏ-ㅣ !?.,]")


def decode(content: bytes, *, is_korean: bool = False) -> str:
    """Text in UTF-8, UTF-16 with a byte order mark, or cp949, composed (NFC). Raises ValueError
    saying why it is none.

    What is valid UTF-8 is UTF-8. But a few syllables of cp949 are valid UTF-8 by accident, as 째 is
    °: in a corpus of which we know that it is Korean, what has Hangul in cp949 alone is cp949.
    """
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        try:
            text = content.decode("utf-16")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"byte {error.start}: not UTF-16 ({error.reason}), as its first bytes say"
            ) from None
    else:
        decoded: dict[str, str] = {}
        faults: dict[str, UnicodeDecodeError] = {}
        for encoding in ("utf-8-sig", "cp949"):
            try:
                decoded[encoding] = content.decode(encoding)
            except UnicodeDecodeError as error:
                faults[encoding] = error
        if not decoded:
            last = max(faults.values(), key=lambda fault: fault.start)
            raise ValueError(f"byte {last.start}: neither UTF-8 nor cp949 ({last.reason})")
        text = decoded.get("utf-8-sig", "")
        if "utf-8-sig" not in decoded or (
            is_korean
            and not text.isascii()
            and not _HANGUL.search(unicodedata.normalize("NFC", text))
            and _HANGUL.search(decoded.get("cp949", ""))
        ):
            text = decoded["cp949"]
    text = text.removesuffix("\x1a")  # how DOS ends a text
    if control := _CONTROL.search(text):
        raise ValueError(f"control character U+{ord(control[0]):04X}; is it a text file?")
    return unicodedata.normalize("NFC", text)


def read_text(path: Path, *, is_korean: bool = False) -> str:
    """Raises FileNotFoundError, or ManifestError naming the byte that is no text."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        return decode(path.read_bytes(), is_korean=is_korean)
    except ValueError as error:
        raise ManifestError(path, [str(error)]) from None


def read_rows(path: Path, *, is_korean: bool = False) -> list[tuple[int, list[str]]]:
    """The fields of a CSV, stripped, each row with the line it starts on; empty rows are left out.

    Raises FileNotFoundError or ManifestError.
    """
    reader = csv.reader(io.StringIO(read_text(path, is_korean=is_korean), newline=""), strict=True)
    rows: list[tuple[int, list[str]]] = []
    line = 1
    try:
        for fields in reader:
            stripped = [field.strip() for field in fields]
            if any(stripped):
                rows.append((line, stripped))
            line = reader.line_num + 1
    except csv.Error as error:
        raise ManifestError(
            path, [f"line {line}: not CSV ({error}); is a quote not closed, or not doubled?"]
        ) from None
    return rows


def from_windows(text: str) -> str:
    """C1 control characters as the cp1252 characters that they stand for."""
    return _C1.sub(lambda found: found[0].encode("latin-1").decode("cp1252", errors="ignore"), text)


def without_tags(text: str) -> str:
    """A transcript without KEMDy's tags."""
    return " ".join(_SIGN_TAG.sub("", _BARE_SLASH.sub(" ", _LETTER_TAG.sub(" ", text))).split())


def _kept(pattern: re.Pattern[str]) -> Callable[[str], str]:
    return lambda text: " ".join(pattern.sub(" ", without_tags(text)).split())


# `published` is what the published work kept; it loses Latin letters and digits.
CLEANINGS: dict[str, Callable[[str], str]] = {
    "default": _kept(_NOT_DEFAULT),
    "published": _kept(_NOT_PUBLISHED),
    "none": lambda text: " ".join(text.split()),
}


def cleaning(name: str) -> Callable[[str], str]:
    """Raises ValueError for an unknown name."""
    if name not in CLEANINGS:
        raise ValueError(f"unknown --text {name!r}; expected one of {', '.join(CLEANINGS)}")
    return CLEANINGS[name]
