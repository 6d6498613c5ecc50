"""Text as corpora have it: files in one of several encodings, CSVs by position, transcripts with
tags.
"""

import csv
import io
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mmm.corpora.account import Account
from mmm.corpora.decoding import decode
from mmm.faults import csv_fault
from mmm.manifest import ManifestError

_DELIMITERS = (",", ";", "\t", "|")
_SEP = re.compile(r'"?sep=([,;|:]|\\t|\t)"?[ ]*\r?\n', re.IGNORECASE)
# A letter was lost, or UTF-8 was read as cp1252 and saved so.
_BROKEN = re.compile("\ufffd|â€[™œ\x9d“”]|Ã[©¨¤¶¼]")
# MELD's files went through Windows: C1 control characters stand for cp1252's quotes and dashes.
_C1 = re.compile("[\x80-\x9f]")

# KEMDy20's tags: c/ continuous, n/ noise, N/ heavy noise, u/ unintelligible, l/ filler, b/ breath,
# * partial word, + stutter, and a bare / behind an interjection.
_LETTER_TAG = re.compile("(?<![A-Za-z])[cnNulb]/")
_BARE_SLASH = re.compile("(?<=[0-9A-Za-z])/(?=[0-9A-Za-z])")
_SIGN_TAG = re.compile("[*+/]")
_NOT_PUBLISHED = re.compile("[^가-힣ㄱ-ㅎㅏ-ㅣ !?.,]")
_NOT_DEFAULT = re.compile("[^0-9A-Za-z가-힣ㄱ-ㅎㅏ-ㅣ !?.,]")


@dataclass
class Texts:
    """Reads a corpus' text files; what was not in UTF-8 is in the account. `encoding` is the user's
    word on files that are not.
    """

    account: Account = field(default_factory=Account)
    encoding: str | None = None
    is_korean: bool = False

    def decode(self, content: bytes, name: str) -> str:
        """Raises ValueError saying why it is no text."""
        text, encoding = decode(content, is_korean=self.is_korean, encoding=self.encoding)
        if encoding != "utf-8":
            self.account.read_as(encoding, name)
        if _BROKEN.search(text):
            what = "texts that lost letters in an earlier conversion, such as \ufffd or â€™"
            self.account.note(what, name)
        return text

    def read(self, path: Path) -> str:
        """Raises FileNotFoundError, or ManifestError naming the byte that is no text."""
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        try:
            return self.decode(path.read_bytes(), path.name)
        except ValueError as error:
            raise ManifestError(path, [str(error)]) from None

    def rows(self, path: Path) -> list[tuple[int, list[str]]]:
        """The fields of a CSV, stripped, each row with the line it starts on; empty rows are left
        out. What divides fields is what divides the header, or Excel's first line says it, `sep=;`.

        Raises FileNotFoundError or ManifestError.
        """
        text = whole = self.read(path)
        line, delimiter = 1, _delimiter(text)
        if said := _SEP.match(text):
            text, line, delimiter = text[said.end() :], 2, said[1].replace("\\t", "\t")
        if delimiter != ",":
            shown = {"\t": "tabs"}.get(delimiter, repr(delimiter))
            self.account.note(f"fields are divided by {shown}", path.name)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        before = line - 1
        rows: list[tuple[int, list[str]]] = []
        try:
            for fields in reader:
                stripped = [field.strip() for field in fields]
                if any(stripped):
                    rows.append((line, stripped))
                line = before + reader.line_num + 1
        except csv.Error as error:
            header = rows[0][1] if rows else []
            fault = csv_fault(error, whole, line, header, delimiter)
            raise ManifestError(path, [fault]) from None
        return rows


def _delimiter(text: str) -> str:
    """What divides the first line that has text into most fields; a comma where none does."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    counts = {}
    for delimiter in _DELIMITERS:
        try:
            counts[delimiter] = len(next(csv.reader([first], delimiter=delimiter)))
        except csv.Error:
            counts[delimiter] = 0
    return max(counts, key=lambda delimiter: counts[delimiter])


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
