"""Manifests, tables and dialogues: what is accepted is read back row by row or accounted for."""

import csv
import io
import json
import tempfile
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mmm.manifest_csv import read_manifest
from tests.conftest import Corpus
from tests.fuzz.parts import TEXT, content_of, damaged, inputs, told_by

_HEADER = (
    *("utterance_id", "dialogue_id", "turn", "session", "speaker", "text", "audio", "emotion"),
    "split",
)
_SPLITS = ("train", "train", "dev", "dev", "test", "test")
_EXTRA = ("fold", "valence", "arousal", "votes", "note", "text", "", "\x1b[31m")
_FREE = ("text", "speaker", "sentence", "발화")
_TABLE = ("path", "text", "label", "speaker", "dialogue_id", "turn")
_SYNONYMS = {
    "path": ["audio", "파일명", "PATH"],
    "text": ["sentence", "발화"],
    "label": ["emotion"],
}


def _written(rows: Sequence[Sequence[str]], delimiter: str = ",") -> bytes:
    content = io.StringIO()
    csv.writer(content, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return content.getvalue().encode(errors="surrogateescape")


@st.composite
def _changed(draw: st.DrawFn, rows: list[list[str]]) -> list[list[str]]:
    """Some cells are others, most of them texts and speakers; perhaps a column or a row is gone,
    twice, or new.
    """
    rows = [list(row) for row in rows]
    free = [place for place, name in enumerate(rows[0]) if name in _FREE]
    for _ in range(draw(st.integers(0, 3))):
        row = draw(st.sampled_from(rows[1:]))
        row[draw(st.sampled_from(free))] = draw(TEXT)
    if draw(st.integers(0, 2)) == 0:
        row = draw(st.sampled_from(rows))
        row[draw(st.integers(0, len(row) - 1))] = draw(TEXT)
    how = draw(st.integers(0, 19))
    place = draw(st.integers(0, len(rows[0])))
    if how == 0:
        rows = [row[:place] + row[place + 1 :] for row in rows]
    elif how == 1:
        new = draw(st.sampled_from(_EXTRA))
        rows = [
            [*row[:place], draw(TEXT) if n else new, *row[place:]] for n, row in enumerate(rows)
        ]
    elif how == 2:
        rows.append(list(draw(st.sampled_from(rows))))
    elif how == 3:
        rows.insert(draw(st.integers(0, len(rows))), draw(st.lists(TEXT, max_size=10)))
    return rows


def _rows_in(content: bytes, delimiter: str = ",") -> int:
    text = io.StringIO(content.decode("utf-8-sig"), newline="")
    return (
        sum(any(field.strip() for field in row) for row in csv.reader(text, delimiter=delimiter))
        - 1
    )


@inputs(0.12)
@given(data=st.data())
def test_a_manifest_is_read_whole_or_refused(corpus: Corpus, data: st.DataObject) -> None:
    wav = str(corpus.manifest.audio_path(corpus.manifest.utterances[0]))
    rows = [list(_HEADER)] + [
        [
            f"u{n}",
            f"d{n}",
            "0",
            f"s{n}",
            "who",
            f"text {n}",
            wav,
            "sad" if n % 2 else "happy",
            split,
        ]
        for n, split in enumerate(_SPLITS)
    ]
    content = _written(data.draw(_changed(rows)))
    if data.draw(st.integers(0, 9)) == 0:
        content = data.draw(damaged(content))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "manifest.csv"
        path.write_bytes(content)
        told = told_by("manifests", "mmm", "corpus-report", path)
        if told.is_accepted:
            assert len(read_manifest(path).utterances) == _rows_in(content)
        else:
            assert str(path) in told.err
        assert content_of(Path(name)) == {"manifest.csv": content}


_OPTIONS = (
    *("--emotion=sad=", "--emotion=sad=angry", "--emotion=\x1b[31m=x", "--drop-emotion=happy"),
    *("--column=text=", "--column=speaker=\x1b[31m", "--column=x", "--split-by=speaker"),
    *("--split-by=dialogue", "--shares=0.5,0.25,0.25", "--shares=1,0,nan", "--folds=2"),
    *("--folds=all", "--folds=x", "--encoding=cp949", "--encoding=\x9b", "--seed=-1", "--strict"),
    *("--fold-by=dialogue", "--labels-of=crema-d"),
)


@inputs(0.2)
@given(data=st.data())
def test_a_table_becomes_a_manifest_of_all_its_rows_or_is_refused(
    corpus: Corpus, data: st.DataObject
) -> None:
    number = data.draw(st.sampled_from([6, 12]))
    header = [data.draw(st.sampled_from([name, *_SYNONYMS.get(name, [])])) for name in _TABLE]
    wavs = sorted((corpus.manifest.path.parent / "wav").iterdir())
    rows = [header] + [
        [
            str(wavs[n]),
            f"text {n}",
            "sad" if n % 2 else "happy",
            f"who{n % 4}",
            f"d{n // 2}",
            str(n % 2),
        ]
        for n in range(number)
    ]
    with_dialogues = data.draw(st.booleans())
    if not with_dialogues:
        rows = [row[:4] for row in rows]
    delimiter = data.draw(st.sampled_from([",", ",", ";", "\t"]))
    content = _written(data.draw(_changed(rows)), delimiter)
    if data.draw(st.integers(0, 9)) == 0:
        content = data.draw(damaged(content))
    options = data.draw(
        st.lists(st.sampled_from(_OPTIONS), max_size=1)
        | st.lists(st.sampled_from(_OPTIONS), max_size=3)
    )
    with tempfile.TemporaryDirectory() as name:
        source, out = Path(name) / "table.csv", Path(name) / "manifest.csv"
        source.write_bytes(content)
        out.write_bytes(b"old")
        told = told_by(
            "tables for prepare csv", "mmm", "prepare", "csv", source, "-o", out, *options
        )
        files = content_of(Path(name))
        if not told.is_accepted:
            assert files == {"table.csv": content, "manifest.csv": b"old"}
            return
        assert sorted(files) == ["manifest.account.json", "manifest.csv", "table.csv"]
        account = json.loads(files["manifest.account.json"])
        left_out = sum(map(len, account["left_out"].values()))
        utterances = read_manifest(out).utterances
        assert account["num_utterances"] == len(utterances)
        try:
            total = _rows_in(content, delimiter)
        except (UnicodeDecodeError, csv.Error):
            return  # in another encoding; counted by what was read alone
        assert len(utterances) + left_out == total
        assert all(one.text == unicodedata.normalize("NFC", one.text) for one in utterances)


@inputs(0.04)
@given(data=st.data())
def test_a_dialogue_is_answered_turn_by_turn_or_refused(
    corpus: Corpus, bundle: Path, data: st.DataObject
) -> None:
    wav = str(corpus.manifest.audio_path(corpus.manifest.utterances[1]))
    rows = [["audio", "text", "speaker"], [wav, "hi", "A"], ["", "well", "B"], [wav, "no", "A"]]
    content = _written(data.draw(_changed(rows)))
    if data.draw(st.integers(0, 9)) == 0:
        content = data.draw(damaged(content))
    with tempfile.TemporaryDirectory() as name:
        path, out = Path(name) / "turns.csv", Path(name) / "found.csv"
        path.write_bytes(content)
        told = told_by("dialogues", "mmm", "predict", bundle, "--dialogue", path, "-o", out)
        if not told.is_accepted:
            assert content_of(Path(name)) == {"turns.csv": content}
            return
        assert f"{_num_records(content)} utterances" in told.out
        assert _num_records(out.read_bytes()) == _num_records(content)
        told = told_by("dialogues", "mmm", "predict", bundle, "--dialogue", path)
        assert told.is_accepted


def _num_records(content: bytes) -> int:
    text = io.StringIO(content.decode("utf-8-sig"), newline="")
    return sum(bool(row) for row in csv.reader(text)) - 1
