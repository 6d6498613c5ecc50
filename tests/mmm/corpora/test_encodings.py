"""A text file is read in the encoding that it is in, or refused with what to type: never as another
script without a word.
"""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from mmm.corpora.csv_file import prepare_csv
from mmm.corpora.decoding import AGREED, check_encoding, decode
from mmm.corpora.iemocap import prepare_iemocap
from mmm.corpora.options import PrepareOptions
from mmm.corpora.write import write_prepared
from mmm.manifest import ManifestError
from mmm.manifest_csv import read_manifest
from tests.conftest import HEADER, write_wav
from tests.mmm.corpora.test_other_corpora import write_iemocap

# Lines of conversation, and the encodings in which people's files have them.
_ENGLISH = (
    "It’s not what I meant",
    "Don’t you dare",
    "We’ll see – they’re late…",
    "“Well,” he said",
)
_TEXTS = {
    "english": (_ENGLISH, ("cp1252", "cp1250", "cp1254", "cp949", "mac_roman", "gb18030")),
    "german": (
        ("Das schwarze Stück Papier", "Heute abend könnte ich es ihm sagen", "Größe und Maß"),
        ("cp1252", "latin-1", "cp1250", "mac_roman", "cp850", "iso8859_15"),
    ),
    "french": (
        ("Ça va très bien, et toi ?", "Où est-il allé ?", "Je ne sais pas, peut-être"),
        ("cp1252", "latin-1", "mac_roman", "cp850"),
    ),
    "spanish": (("¿Qué quieres, niño?", "¡Mañana sí!"), ("cp1252", "latin-1", "cp850")),
    "czech": (("Něco se stalo, že?", "Přijď zítra, prosím"), ("cp1250", "iso8859_2", "cp852")),
    "polish": (("Gdzie byłeś wczoraj?", "Nie wiem, może później"), ("cp1250", "iso8859_2")),
    "turkish": (("Neden böyle söylüyorsun?", "Şimdi gidiyorum ağabey"), ("cp1254", "iso8859_9")),
    "russian": (
        ("Что ты имеешь в виду?", "Я не знаю, может быть"),
        ("cp1251", "koi8_r", "cp866", "iso8859_5"),
    ),
    "greek": (("Τι εννοείς;", "Δεν ξέρω, ίσως αργότερα"), ("cp1253", "iso8859_7")),
    "korean": (
        ("그게 무슨 말이야?", "나도 몰라 ㅋㅋ 이따 보자", "똠방각하가 왔다"),
        ("cp949", "utf-16"),
    ),
    "chinese": (
        ("你这是什么意思？", "我不知道，也许以后再说吧", "别开玩笑了"),
        ("gb18030", "big5hkscs", "utf-16"),
    ),
    "japanese": (
        ("それはどういう意味ですか", "知らないよ、また後で", "カタカナもあります"),
        ("shift_jis", "euc_jp", "iso2022_jp", "utf-16"),
    ),
}
_ALL = [
    (language, encoding) for language, (_, encodings) in _TEXTS.items() for encoding in encodings
]


def table(texts: Sequence[str]) -> str:
    """A manifest whose rows say these texts."""
    out = io.StringIO()
    rows = [
        [f"u{n}", f"d{n}", "0", f"s{n}", "A", text, "a.wav", "sad", "dev" if n % 2 else "train"]
        for n, text in enumerate(texts)
    ]
    csv.writer(out, lineterminator="\n").writerows([HEADER, *rows])
    return out.getvalue()


@pytest.mark.parametrize("number", [1, 30])
@pytest.mark.parametrize(("language", "encoding"), _ALL)
def test_a_table_in_any_encoding_is_read_as_written_or_refused(
    language: str, encoding: str, number: int
) -> None:
    texts = _TEXTS[language][0]
    text = table(texts * number)
    content = text.encode(encoding, errors="ignore")
    written = content.decode(encoding)
    try:
        found, taken = decode(content)
    except ValueError as error:
        assert "--encoding" in str(error) or "control character U+001B" in str(error), error
        found, _ = decode(content, encoding=encoding)
        assert found == written
    else:
        assert found == written, taken


@pytest.mark.parametrize(
    ("language", "encoding", "taken"),
    [
        ("english", "cp1252", "cp1252"),
        ("english", "cp1250", "cp1252"),  # which reads these bytes alike
        ("german", "latin-1", "cp1252"),
        ("german", "cp1250", "cp1252"),
        ("korean", "cp949", "cp949"),
        ("korean", "utf-16", "utf-16"),
        ("chinese", "utf-16", "utf-16"),
        ("english", "utf-8-sig", "utf-8"),
        ("chinese", "utf-8", "utf-8"),
    ],
)
def test_what_can_be_told_is_read_without_a_question(
    language: str, encoding: str, taken: str
) -> None:
    text = table(_TEXTS[language][0])
    assert decode(text.encode(encoding)) == (text, taken)


def test_what_is_agreed_on_is_read_alike_by_all_of_windows_latin_encodings() -> None:
    content = bytes(sorted(AGREED))
    readings = {content.decode(name) for name in ("cp1250", "cp1252", "cp1254", "cp1257")}
    assert len(readings) == 1


def test_a_table_of_windows_is_read_and_the_encoding_is_in_the_account(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", 0.1, 200.0, 1)
    source, out = tmp_path / "x.csv", tmp_path / "manifest.csv"
    source.write_bytes(table(_ENGLISH).encode("cp1252"))
    write_prepared(prepare_csv(source), out)
    assert tuple(one.text for one in read_manifest(out).utterances) == _ENGLISH
    account = json.loads((tmp_path / "manifest.account.json").read_text())
    assert account["encodings"] == {"cp1252": ["x.csv"]}


def test_an_ambiguous_table_is_refused_with_its_readings_and_read_as_the_user_says(
    tmp_path: Path,
) -> None:
    write_wav(tmp_path / "a.wav", 0.1, 200.0, 1)
    source = tmp_path / "x.csv"
    source.write_bytes(table(["Něco se stalo", "Kde jsi"]).encode("cp1250"))
    with pytest.raises(ManifestError) as caught:
        prepare_csv(source)
    assert caught.value.faults == (
        "byte 85 (line 2): not UTF-8, and its encoding cannot be told: cp1252 reads"
        " ',d0,0,s0,A,Nìco se stalo', cp1250 reads ',d0,0,s0,A,Něco se stalo', cp1251 reads"
        " ',d0,0,s0,A,Nмco se stalo', gb18030 reads"
        " ',d0,0,s0,A,N靋o se stalo,'; say which it is, such as --encoding cp1252",
    )
    prepared = prepare_csv(source, PrepareOptions(encoding="cp1250"))
    assert [row["text"] for row in prepared.rows] == ["Něco se stalo", "Kde jsi"]
    assert prepared.account.encodings == {"cp1250": ["x.csv"]}
    with pytest.raises(ManifestError, match=r"not utf_16_le|control character|not utf-16"):
        prepare_csv(source, PrepareOptions(encoding="utf-16-le"))


@pytest.mark.parametrize("name", ["utf8x", "rot13", "unicode_escape", "idna", "base64", ""])
def test_what_is_no_encoding_of_text_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"no such encoding; expected one such as cp949, cp1252"):
        check_encoding(name)


def test_a_named_encoding_is_not_for_files_in_utf_8(tmp_path: Path) -> None:
    """A corpus has files of both: what is UTF-8 would be read as â€™."""
    folder = write_iemocap(tmp_path / "i")
    for session, encoding in ((1, "utf-8"), (2, "cp1252"), (3, "latin-1")):
        file = folder / f"Session{session}/dialog/transcriptions/Ses0{session}F_impro01.txt"
        mark = "’" if encoding != "latin-1" else "ñ"
        file.write_bytes(file.read_text().replace("Line", f"I{mark}m").encode(encoding))
    with pytest.raises(ManifestError, match=r"Ses03F_impro01\.txt: byte .* --encoding cp1252"):
        prepare_iemocap(folder)
    prepared = prepare_iemocap(folder, options=PrepareOptions(encoding="cp1252"))
    texts = {row["session"]: row["text"] for row in prepared.rows}
    assert [texts[f"Session{n}"].split()[0] for n in (1, 2, 3, 4)] == ["I’m", "I’m", "Iñm", "Line"]
    assert prepared.account.encodings == {"cp1252": ["Ses02F_impro01.txt", "Ses03F_impro01.txt"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04rest", r"a zip, as Excel's \.xlsx is; open it and save it as CSV"),
        (bytes.fromhex("d0cf11e0a1b11ae1") + b"rest", r"a workbook of Excel \(\.xls\)"),
        (b"PAR1rest", "Parquet; make a CSV of it"),
        ("a,b\n".encode("utf-16-le"), "UTF-16 without its mark[?] then give --encoding utf-16-le"),
    ],
)
def test_what_is_no_text_is_refused_with_the_way_to_make_it_one(
    tmp_path: Path, content: bytes, message: str
) -> None:
    source = tmp_path / "x.csv"
    source.write_bytes(content)
    with pytest.raises(ManifestError, match=message):
        prepare_csv(source)
