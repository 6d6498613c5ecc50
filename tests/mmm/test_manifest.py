"""Reading manifests: what is wrong is listed at once and by line, and what is right is
understood.
"""

import csv
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from mmm.manifest import COLUMNS, ManifestError, natural_key, split_by_session
from mmm.manifest_csv import read_manifest
from tests.conftest import HEADER, Corpus, write_manifest

Row = list[str]


def good_rows() -> list[Row]:
    """Two dialogues of four turns in train, one in dev."""
    return [
        [
            f"u{number}",
            f"d{number // 4}",
            str(number % 4),
            f"s{number // 4}",
            "A",
            f"text {number}",
            "a.wav",
            "neutral",
            "dev" if number >= 8 else "train",
        ]
        for number in range(12)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.wav").touch()
    return tmp_path


def faults_of(path: Path) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    assert str(caught.value).startswith(f"{path}: ")
    for fault in caught.value.faults:
        assert fault in str(caught.value)
    return list(caught.value.faults)


def with_change(folder: Path, row: int, column: str, value: str) -> Path:
    rows = good_rows()
    rows[row][HEADER.index(column)] = value
    return write_manifest(folder / "manifest.csv", rows)


TEN_CHANGES = [
    (0, "utterance_id", "", "utterance_id is empty"),
    (1, "turn", "two", "turn 'two' is not a whole number"),
    (2, "turn", "0", "turn 0 of dialogue 'd0' is already on line {0}"),
    (
        3,
        "emotion",
        "joy|fun",
        "emotion: label 'joy|fun' holds '|', which divides labels; write it another way",
    ),
    (4, "emotion", "happy;happy", "emotion 'happy;happy' names one label twice"),
    (5, "utterance_id", "u4", "utterance_id 'u4' is already on line {4}; ids must be unique"),
    (6, "audio", "b.wav", "audio file 'b.wav' does not exist below {folder}/"),
    (
        7,
        "split",
        "dev",
        (
            "dialogue 'd1' is in split 'dev' here and 'train' on line {4}; a dialogue must not be"
            " divided"
        ),
    ),
    (8, "split", "validation", "split 'validation' is none of train, dev, test"),
    (10, "session", "", "session is empty"),
]


@pytest.mark.parametrize(
    "before", ["", 'two\nlines and a "quote", and a comma', "three\n\nlines\n"]
)
def test_ten_faults_are_listed_at_once_each_with_its_line(folder: Path, before: str) -> None:
    """`before` is the text of a first row, which may push every later row down."""
    rows = good_rows()
    for row, column, value, _ in TEN_CHANGES:
        rows[row][HEADER.index(column)] = value
    rows[8][HEADER.index("dialogue_id")] = "alone"  # or its dialogue would be divided too
    path = write_manifest(
        folder / "manifest.csv",
        [["first", "d9", "0", "s0", "A", before, "a.wav", "sad", "dev"], *rows],
    )
    line_of = [number + 3 + before.count("\n") for number in range(12)]
    expected = [
        f"line {line_of[row]}: {message.format(*line_of, folder=folder)}"
        for row, _, _, message in TEN_CHANGES
    ]
    assert sorted(faults_of(path)) == sorted(expected)
    with pytest.raises(ManifestError, match=r"manifest\.csv: 10 faults\n  line "):
        read_manifest(path)


def test_each_kind_of_fault_is_told_once_with_its_rows_by_the_line_of_the_first(
    folder: Path,
) -> None:
    rows = good_rows()
    changes = {
        "audio": {4: "gone.wav", 1: "lost.wav", 9: "gone.wav"},
        "session": {11: "", 2: "", 7: ""},
        "turn": {3: "x", 6: "y"},
        "split": {8: "val", 9: "val", 10: "val", 11: "dev"},
        "emotion": {0: "a|b", 5: "c|d"},
        "utterance_id": {1: "u0", 2: "u0"},
        "text": {6: "a\x01b", 5: "\x02"},
    }
    for column, values in changes.items():
        for row, value in values.items():
            rows[row][HEADER.index(column)] = value
    path = write_manifest(folder / "manifest.csv", rows)
    assert faults_of(path) == [
        "emotion: label 'a|b' holds '|', which divides labels; write it another way (2 rows alike,"
        " the first: line 2)",
        "utterance_id 'u0' is already on line 2 in 2 rows, the first: line 3; ids must be unique",
        f"audio file 'lost.wav' does not exist below {folder}/ (3 rows alike, the first: line 3)",
        "session is empty in 3 rows, the first: line 4",
        "turn 'x' is not a whole number (2 rows alike, the first: line 5)",
        "text holds the control character U+0002 (2 rows alike, the first: line 7); remove it",
        "split 'val' is none of train, dev, test in 3 rows, the first: line 10",
        "line 13: dialogue 'd2' is in split 'dev' here and 'val' on line 10; a dialogue must not be"
        " divided",
    ]


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("dialogue_id", "", "dialogue_id is empty"),
        ("turn", "", "turn is empty"),
        ("turn", "1.5", "turn '1.5' is not a whole number"),
        ("session", "  ", "session is empty"),
        ("audio", "", "audio is empty"),
        ("emotion", ";", "emotion ';' names no label; leave it empty for a turn without one"),
        ("emotion", "a\tb", "emotion: label 'a\\tb' holds the control character U+0009; remove it"),
        ("emotion", "a\u2028b", "emotion: label 'a\\u2028b' holds the control character U+2028"),
        ("emotion", "a" * 101, f"emotion: label '{'a' * 20}'... has 101 characters, expected at"),
        ("split", "", "split is empty"),
    ],
)
def test_a_faulty_field_is_refused(folder: Path, column: str, value: str, message: str) -> None:
    (fault,) = faults_of(with_change(folder, 11, column, value))
    assert fault.startswith(f"line 13: {message}")


def raw(folder: Path, edit: Callable[[list[str]], None]) -> Path:
    """A good manifest whose lines were edited by hand."""
    lines = write_manifest(folder / "manifest.csv", good_rows()).read_text().splitlines()
    edit(lines)
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder / "manifest.csv"


@pytest.mark.parametrize("surplus", ["x", "x,y", "x,y,z", ""])
@pytest.mark.parametrize("row", [1, 5, 12])
def test_surplus_fields_are_reported_not_shifted(folder: Path, surplus: str, row: int) -> None:
    def edit(lines: list[str]) -> None:
        lines[row] += f",{surplus}"

    assert faults_of(raw(folder, edit)) == [
        f"line {row + 1}: more fields than the header's 9; is a text with a comma not quoted?"
    ]


def test_surplus_fields_in_every_row_are_one_fault(folder: Path) -> None:
    def edit(lines: list[str]) -> None:
        lines[1:] = [f"{line},x" for line in lines[1:]]

    assert faults_of(raw(folder, edit)) == [
        "more fields than the header's 9 in 12 rows, the first: line 2; is a text with a comma not"
        " quoted?"
    ]


@pytest.mark.parametrize("row", [1, 5, 12])
def test_missing_fields_are_reported(folder: Path, row: int) -> None:
    def edit(lines: list[str]) -> None:
        lines[row] = lines[row].rsplit(",", 2)[0]

    assert faults_of(raw(folder, edit)) == [
        f"line {row + 1}: fewer fields than the header's 9; is a quote or comma missing?"
    ]


@pytest.mark.parametrize("blank", ["", ",,,,,,,,", "  "])
def test_an_empty_line_is_reported(folder: Path, blank: str) -> None:
    assert faults_of(raw(folder, lambda lines: lines.insert(5, blank)))[0].startswith("line 6: ")


def test_a_quote_that_is_never_closed_is_reported(folder: Path) -> None:
    def edit(lines: list[str]) -> None:
        lines[5] = lines[5].replace("text 4", '"text 4')

    assert faults_of(raw(folder, edit)) == [
        "line 6: not CSV (unexpected end of data); is a quote not closed, or not doubled?"
    ]


def test_a_quote_that_is_not_doubled_is_reported(folder: Path) -> None:
    def edit(lines: list[str]) -> None:
        lines[5] = lines[5].replace("text 4", '"okay" he said')

    (fault,) = faults_of(raw(folder, edit))
    assert fault.startswith("line 6: not CSV (")


@pytest.mark.parametrize("content", ["", "\n"])
def test_an_empty_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.csv").write_text(content)
    (fault,) = faults_of(tmp_path / "manifest.csv")
    assert fault.startswith(
        "line 1: the file is empty; expected a header with utterance_id, dialogue_id"
    )


def test_a_header_alone_is_refused(tmp_path: Path) -> None:
    assert faults_of(write_manifest(tmp_path / "manifest.csv", [])) == [
        "no utterances below the header"
    ]


def test_missing_columns_are_named(folder: Path) -> None:
    path = write_manifest(folder / "manifest.csv", [["u", "d"]], header=["utterance_id", "dialog"])
    assert faults_of(path) == [
        "line 1: no column dialogue_id, turn, session, speaker, text, audio, emotion "
        "(found: utterance_id, dialog)"
    ]


def test_a_column_that_occurs_twice_is_refused(folder: Path) -> None:
    path = write_manifest(
        folder / "manifest.csv", [[*row, "x"] for row in good_rows()], header=[*HEADER, "text"]
    )
    assert faults_of(path) == ["line 1: column 'text' occurs more than once"]


@pytest.mark.parametrize("position", [5, 20_000, 300_000])
def test_a_file_that_is_not_utf8_is_refused_with_the_position(folder: Path, position: int) -> None:
    rows = good_rows()
    rows[0][HEADER.index("text")] = "x" * 400_000
    path = write_manifest(folder / "manifest.csv", rows)
    content = bytearray(path.read_bytes())
    content[position] = 0xB0
    path.write_bytes(content)
    assert faults_of(path) == [f"byte {position}: not UTF-8 (invalid start byte); save it as UTF-8"]


def test_a_missing_manifest_is_refused_with_the_way_to_one(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"none\.csv: no such manifest; make one with: mmm prepare csv"
    ):
        read_manifest(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("split", "empty"), [("train", "dev"), ("dev", "train"), ("test", "train")]
)
def test_an_empty_split_is_refused(folder: Path, split: str, empty: str) -> None:
    rows = [[*row[:-1], split] for row in good_rows()]
    assert (
        f"line 1: the split column leaves {empty} empty; every sweep needs train and dev"
        in faults_of(write_manifest(folder / "manifest.csv", rows))
    )


def test_two_rows_of_one_dialogue_and_turn_are_refused(folder: Path) -> None:
    assert faults_of(with_change(folder, 3, "turn", "02")) == [
        "line 5: turn 2 of dialogue 'd0' is already on line 4"
    ]


def test_audio_is_not_looked_for_where_only_features_are(folder: Path) -> None:
    path = with_change(folder, 0, "audio", "elsewhere.wav")
    assert read_manifest(path, check_audio=False).utterances[0].audio == "elsewhere.wav"


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_byte_order_mark_and_windows_newlines_are_accepted(folder: Path, newline: str) -> None:
    path = folder / "manifest.csv"
    with open(path, "w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, lineterminator=newline).writerows([HEADER, *good_rows()])
    assert read_manifest(path).utterances[0].utterance_id == "u0"
    path.write_bytes(
        path.read_bytes()
        .replace(b"text 0", b'"two' + newline.encode() + b'lines"')
        .replace(b"u5", b"")
    )
    assert faults_of(path) == ["line 8: utterance_id is empty"]


def test_words_that_pandas_takes_for_missing_are_texts(folder: Path) -> None:
    for word in ("NA", "null", "None", "nan", ""):
        assert read_manifest(with_change(folder, 4, "text", word)).utterances[4].text == word


def test_surplus_columns_are_ignored_and_columns_may_be_in_any_order(folder: Path) -> None:
    header = [*reversed(HEADER), "note"]
    path = write_manifest(
        folder / "manifest.csv", [[*reversed(row), "x"] for row in good_rows()], header=header
    )
    (folder / "plain").mkdir()
    (folder / "plain" / "a.wav").touch()
    plain = read_manifest(write_manifest(folder / "plain" / "manifest.csv", good_rows()))
    assert read_manifest(path).utterances == plain.utterances


def test_history_is_most_recent_first_whatever_the_order_of_the_rows(folder: Path) -> None:
    rows = good_rows()
    random.Random(3).shuffle(rows)
    manifest = read_manifest(write_manifest(folder / "manifest.csv", rows))
    ids = [utterance.utterance_id for utterance in manifest.utterances]
    assert [ids[index] for index in manifest.history(ids.index("u7"), 3)] == ["u7", "u6", "u5"]
    assert [ids[index] for index in manifest.history(ids.index("u7"), 9)] == [
        "u7",
        "u6",
        "u5",
        "u4",
    ]
    assert [ids[index] for index in manifest.history(ids.index("u8"), 3)] == ["u8"]
    assert manifest.history(2, 1) == [2]


def test_turns_may_be_numbered_with_gaps(folder: Path) -> None:
    manifest = read_manifest(with_change(folder, 3, "turn", "100"))
    assert manifest.history(3, 2) == [3, 2]


def test_several_emotions_are_kept_in_order_and_classes_in_the_published_order(
    folder: Path,
) -> None:
    rows = good_rows()
    rows[1][HEADER.index("emotion")] = "sad; happy"
    manifest = read_manifest(write_manifest(folder / "manifest.csv", rows))
    assert manifest.utterances[1].emotions == ("sad", "happy")
    assert manifest.classes == ("neutral", "happy", "sad")


def test_the_test_split_is_sealed(corpus: Corpus) -> None:
    with pytest.raises(
        AssertionError, match=r".test. is sealed; mmm\.bundle\.sealed_test reads it"
    ):
        corpus.manifest.rows("test")
    seen = {*corpus.manifest.rows("train"), *corpus.manifest.rows("dev")}
    assert seen.isdisjoint(corpus.manifest.sealed_test_rows())
    assert (
        len(seen) + len(corpus.manifest.sealed_test_rows()) == len(corpus.manifest.utterances) == 40
    )


def test_without_a_split_column_whole_sessions_are_dealt(folder: Path) -> None:
    rows = []
    for number in range(40):
        session = number % 10 + 1  # rows of a session are not together
        rows.append(
            [
                f"u{number}",
                f"d{session}",
                str(number),
                f"session{session}",
                "A",
                "x",
                "a.wav",
                "neutral",
            ]
        )
    manifest = read_manifest(write_manifest(folder / "manifest.csv", rows, header=COLUMNS))
    split_of = {utterance.session: utterance.split for utterance in manifest.utterances}
    assert split_of == {
        f"session{number}": "train" if number <= 7 else "dev" if number == 8 else "test"
        for number in range(1, 11)
    }
    assert all(split_of[utterance.session] == utterance.split for utterance in manifest.utterances)


def test_without_a_split_column_too_few_sessions_are_refused(folder: Path) -> None:
    rows = [row[:-1] for row in good_rows()]
    for row in rows:
        row[3] = "s1"
    assert faults_of(write_manifest(folder / "manifest.csv", rows, header=COLUMNS)) == [
        "line 1: no split column, and needs at least 3 sessions to split by session, found 1; "
        "add a split column (train/dev/test)"
    ]


def test_without_a_split_column_a_dialogue_must_be_in_one_session(folder: Path) -> None:
    rows = [row[:-1] for row in good_rows()]
    rows[6][3] = "s2"
    assert faults_of(write_manifest(folder / "manifest.csv", rows, header=COLUMNS)) == [
        "line 8: dialogue 'd1' is in session 's2' here and 's1' on line 6; a dialogue must not be"
        " divided"
    ]


def test_forty_sessions_are_split_as_kemdy20_is() -> None:
    splits = split_by_session(f"Session{number:02}" for number in range(1, 41))
    assert [session for session, split in splits.items() if split == "test"] == [
        f"Session{n}" for n in range(33, 41)
    ]
    assert [session for session, split in splits.items() if split == "dev"] == [
        f"Session{n}" for n in range(29, 33)
    ]


def test_session2_comes_before_session10() -> None:
    names = ["session10", "session2", "1", "10", "2", "b", "a1b2", "a1b10"]
    assert sorted(names, key=natural_key) == [
        "1",
        "2",
        "10",
        "a1b2",
        "a1b10",
        "b",
        "session2",
        "session10",
    ]
    assert list(split_by_session(["session10", "session2", "session1"])) == [
        "session1",
        "session2",
        "session10",
    ]


def test_sessions_of_like_number_are_ordered_by_name() -> None:
    names = [f"s{'0' * zeros}1" for zeros in range(12)]
    assert list(split_by_session(reversed(names))) == sorted(names) == list(split_by_session(names))


RATED = [*HEADER, "valence", "arousal", "votes"]


def rated(folder: Path, valence: str, arousal: str, votes: str) -> Path:
    rows = [[*row, "", "", ""] for row in good_rows()]
    rows[1][-3:] = [valence, arousal, votes]
    return write_manifest(folder / "manifest.csv", rows, header=RATED)


def test_ratings_are_read_where_they_are_there(folder: Path) -> None:
    one = read_manifest(rated(folder, "3.2", "2", "neutral|sad; fear||neutral")).utterances[1]
    assert (one.valence, one.arousal) == (3.2, 2.0)
    assert one.votes == (("neutral",), ("sad", "fear"), (), ("neutral",))
    assert one.shares == pytest.approx({"neutral": 2 / 3, "sad": 1 / 6, "fear": 1 / 6})
    other = read_manifest(folder / "manifest.csv").utterances[0]
    assert (other.valence, other.arousal, other.votes, other.shares) == (
        None,
        None,
        (),
        {"neutral": 1.0},
    )


@pytest.mark.parametrize(
    ("ratings", "message"),
    [
        (("high", "", ""), "valence 'high' is not a number"),
        (("", "inf", ""), "arousal 'inf' is not a number"),
        (("", "", "neutral|a\tb"), "votes: label 'a\\tb' holds the control character U+0009"),
    ],
)
def test_faulty_ratings_are_refused(
    folder: Path, ratings: tuple[str, str, str], message: str
) -> None:
    (fault,) = faults_of(rated(folder, *ratings))
    assert fault.startswith(f"line 3: {message}")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("text", "a\x1eb", "text holds the control character U+001E; remove it"),
        ("speaker", "A\x00", "speaker holds the control character U+0000; remove it"),
        ("turn", "9" * 5000, f"turn '{'9' * 5000}' is not a whole number of up to 9 digits"),
        ("audio", "a" * 5000, f"audio file '{'a' * 5000}' does not exist below"),
    ],
)
def test_fields_that_would_break_a_later_step_are_refused(
    folder: Path, column: str, value: str, message: str
) -> None:
    (fault,) = faults_of(with_change(folder, 0, column, value))
    assert fault.startswith(f"line 2: {message}")


def test_sessions_may_have_any_digits_in_their_names() -> None:
    assert list(split_by_session(["²", "9" * 5000, "٣", "1"])) == ["1", "9" * 5000, "²", "٣"]
