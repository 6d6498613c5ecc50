"""`mmm prepare csv` of tables as people have them: path, text and label are enough, any delimiter,
names of columns and labels by option, and every mistake is told once with what to type.
"""

import csv
import io
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

from mmm.corpora.csv_file import prepare_csv
from mmm.corpora.label_sets import LABEL_SETS
from mmm.corpora.options import PrepareOptions
from mmm.corpora.prepared import Prepared
from mmm.corpora.write import write_prepared
from mmm.manifest import Manifest, ManifestError
from mmm.manifest_csv import read_manifest
from tests.conftest import write_wav

_EMOTIONS = ("neutral", "happy", "angry", "sad")


def clips(folder: Path, number: int = 24) -> list[str]:
    """Paths of short clips, each of its own, below the folder."""
    found = [f"wavs/clip{place:02}.wav" for place in range(number)]
    for place, clip in enumerate(found):
        write_wav(folder / clip, 0.05, 200.0, place)
    return found


def write(path: Path, rows: Sequence[Sequence[str]], delimiter: str = ",", first: str = "") -> Path:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, lineterminator="\r\n").writerows(rows)
    path.write_text(first + out.getvalue(), encoding="utf-8", newline="")
    return path


def acted(folder: Path, labels: Sequence[str] = _EMOTIONS) -> list[list[str]]:
    """A table of path, text and label, 24 rows below its header."""
    return [
        ["path", "text", "label"],
        *[[clip, f"line {n}", labels[n % len(labels)]] for n, clip in enumerate(clips(folder))],
    ]


def dialogues(folder: Path) -> list[list[str]]:
    """A manifest without splits: 6 dialogues of 4 turns, each a session of two speakers."""
    header = ["utterance_id", "dialogue_id", "turn", "session", "speaker", "text", "audio", "label"]
    return [
        header,
        *[
            [
                *(f"u{n}", f"d{n // 4}", str(n % 4), f"s{n // 4}", f"p{n // 4}{n % 2}"),
                *(f"line {n}", clip, _EMOTIONS[n % 4]),
            ]
            for n, clip in enumerate(clips(folder))
        ],
    ]


def prepared_of(
    source: Path, *, labels_of: str | None = None, **options: object
) -> tuple[Prepared, Manifest]:
    prepared = prepare_csv(source, PrepareOptions(**options), labels_of=labels_of)  # type: ignore[arg-type]
    write_prepared(prepared, source.parent / "manifest.csv")
    return prepared, read_manifest(source.parent / "manifest.csv")


def faults_of(source: Path, *, labels_of: str | None = None, **options: object) -> list[str]:
    with pytest.raises((ManifestError, ValueError)) as caught:
        prepared_of(source, labels_of=labels_of, **options)
    assert not (source.parent / "manifest.csv").exists()
    error = caught.value
    return list(error.faults) if isinstance(error, ManifestError) else [str(error)]


def test_path_text_and_label_are_enough(tmp_path: Path) -> None:
    prepared, manifest = prepared_of(write(tmp_path / "x.csv", acted(tmp_path)))
    first = manifest.utterances[0]
    assert (first.utterance_id, first.dialogue_id, first.turn) == ("clip00", "clip00", 0)
    assert (first.session, first.speaker, first.text) == ("clip00", "", "line 0")
    assert first.emotions == ("neutral",)
    assert all(one.previous == -1 for one in manifest.utterances)
    splits = [one.split for one in manifest.utterances]
    assert {split: splits.count(split) for split in splits} == {"train": 20, "dev": 2, "test": 2}
    assert prepared.account.noted == {
        "columns read as the manifest's": ["path as audio", "label as emotion"],
        "rows named by their files": ["clip00, ..."],
        "rows without a dialogue, each its own": ["24 rows"],
        "dealt to splits by session, 24 groups, shares 0.8,0.1,0.1, seed 1": [
            "20 train, 2 dev, 2 test"
        ],
        "speakers are not known, so parts may share them; name them: --column speaker=COLUMN": [
            "24 rows"
        ],
    }


def test_a_speaker_is_the_session_of_rows_without_dialogues(tmp_path: Path) -> None:
    header, *rows = acted(tmp_path)
    source = write(
        tmp_path / "x.csv",
        [[*header, "actor"], *[[*row, f"actor{n % 6}"] for n, row in enumerate(rows)]],
    )
    _, manifest = prepared_of(source)
    assert {(one.session, one.speaker) for one in manifest.utterances} == {
        (f"actor{n}", f"actor{n}") for n in range(6)
    }
    homes = {(one.speaker, one.split) for one in manifest.utterances}
    assert len(homes) == 6


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    rows = [["path", "text", "label"]]
    for n in range(12):
        clip = f"actor{n}/take1.wav"
        write_wav(tmp_path / clip, 0.05, 200.0, n)
        rows.append([clip, "x", "sad"])
    _, manifest = prepared_of(write(tmp_path / "x.csv", rows))
    assert manifest.utterances[3].utterance_id == "actor3/take1"
    rows[2][0] = rows[1][0]
    (tmp_path / "manifest.csv").unlink()
    assert faults_of(write(tmp_path / "x.csv", rows)) == [
        "audio that another row has too in 2 rows, the first: line 2; rows without an id are named"
        " by their files; give them ids in a column utterance_id"
    ]


@pytest.mark.parametrize(
    ("delimiter", "first", "encoding"),
    [
        (",", "", "utf-8"),
        (";", "", "utf-8"),
        ("\t", "", "utf-8"),
        ("|", "", "utf-8"),
        (",", "sep=,\r\n", "utf-8-sig"),
        (";", "sep=;\r\n", "cp949"),
        ("\t", "sep=\t\r\n", "utf-16"),
        ("\t", "", "utf-16"),
    ],
)
def test_tables_of_any_delimiter_and_of_excel_are_read_alike(
    tmp_path: Path, delimiter: str, first: str, encoding: str
) -> None:
    rows = dialogues(tmp_path)
    rows[1][5], rows[2][5] = "안녕, 하세요; 네", "여러\r\n줄"
    source = write(tmp_path / "x.csv", rows, delimiter, first)
    source.write_bytes(source.read_bytes().decode().encode(encoding))
    _, manifest = prepared_of(source)
    assert [one.text for one in manifest.utterances] == [
        " ".join(row[5].split("\r\n")) if row[5] != "여러\r\n줄" else "여러\r\n줄"
        for row in rows[1:]
    ]
    rows[5][7] = "sad;sad;glad;" + "x" * 200
    source = write(tmp_path / "x.csv", rows, delimiter, first)
    (tmp_path / "manifest.csv").unlink()
    line = 7 + bool(first)  # a text above has two lines
    assert faults_of(source)[0].startswith(f"line {line}: emotion: label ")


def test_spreadsheets_turns_index_columns_and_paths_of_windows_are_repaired(tmp_path: Path) -> None:
    header, *rows = dialogues(tmp_path)
    source = write(
        tmp_path / "x.csv",
        [
            ["", *header],
            *[
                [str(n), *row[:2], f"{row[2]}.0", *row[3:6], row[6].replace("/", "\\"), row[7]]
                for n, row in enumerate(rows)
            ],
        ],
    )
    prepared, manifest = prepared_of(source)
    assert [one.turn for one in manifest.utterances[:5]] == [0, 1, 2, 3, 0]
    assert manifest.utterances[0].audio == "wavs/clip00.wav"
    assert set(prepared.account.repaired) == {
        "turns such as 1.0 read as 1",
        "paths with \\ read with /",
    }
    assert (tmp_path / "manifest.csv").read_text().splitlines()[0] == (
        "utterance_id,dialogue_id,turn,session,speaker,text,audio,emotion,split"
    )


def test_columns_are_named_by_option(tmp_path: Path) -> None:
    _, *rows = acted(tmp_path)
    source = write(
        tmp_path / "x.csv",
        [
            ["clip", "said", "text", "Emo Name", "note"],
            *[[row[0], row[1], "not this", row[2], "n"] for row in rows],
        ],
    )
    _, manifest = prepared_of(source, column=["text=said", "emotion=emo name"])
    assert manifest.utterances[2].text == "line 2"
    assert manifest.utterances[2].emotions == ("angry",)
    table = (tmp_path / "manifest.csv").read_text().splitlines()
    assert table[0].endswith(",split,note")
    _, silent = prepared_of(source, column=["text=", "emotion=Emo Name"])
    assert {one.text for one in silent.utterances} == {""}


@pytest.mark.parametrize(
    ("header", "options", "message"),
    [
        (
            "path,said,label",
            {},
            "line 1: no column for text (found: path, said, label); name it: --column"
            " text=COLUMN, or say that there is none: --column text=",
        ),
        (
            "a,text,emotion",
            {},
            "line 1: no column for audio (found: a, text, emotion); name it: --column audio=COLUMN",
        ),
        (
            "path,file,label",
            {"column": ["text="]},
            "line 1: columns 'path' and 'file' could be audio; say which: --column audio=path",
        ),
        ("path,text,text", {}, "line 1: column 'text' occurs more than once"),
        (
            "path,text,label",
            {"column": ["text=sentence"]},
            "line 1: no column 'sentence' for text (found: path, text, label)",
        ),
        (
            "path,text,label",
            {"column": ["texts=text"]},
            "--column 'texts=text': expected the manifest's column, =, and the table's, such as"
            " text=sentence; columns of the manifest are utterance_id, dialogue_id, turn, session,"
            " speaker, text, audio, emotion, split, valence, arousal, votes, fold",
        ),
        (
            "path,text,label",
            {"emotion": ["angry"]},
            "--emotion 'angry': expected NAME=EMOTION, or NAME= to leave its rows out",
        ),
        (
            "path,text,label",
            {"emotion": ["angri=angry"]},
            "--emotion names 'angri', which is no label of the corpus (found: neutral, happy,"
            " angry, sad)",
        ),
        (
            "path,text,label",
            {"drop_emotion": ["xxx"]},
            "--drop-emotion names 'xxx', which is no label of the corpus (found: neutral, happy,"
            " angry, sad)",
        ),
        (
            "path,text,label",
            {"encoding": "utf8x"},
            "byte 0: --encoding 'utf8x': no such encoding; expected one such as cp949, cp1252,"
            " cp1250, gb18030, shift_jis or utf-16-le",
        ),
    ],
)
def test_a_mistake_of_columns_or_options_is_told_with_what_to_type(
    tmp_path: Path, header: str, options: dict[str, object], message: str
) -> None:
    rows = [header.split(","), *acted(tmp_path)[1:]]
    told = faults_of(write(tmp_path / "x.csv", rows), **options)
    assert [text.removeprefix("byte 0: ") for text in told] == [message.removeprefix("byte 0: ")]


def test_every_kind_of_fault_is_told_once_with_its_rows_and_first_line(tmp_path: Path) -> None:
    rows = acted(tmp_path, ("ang", "calm", "hap", "sad"))
    rows[5].append("more")
    rows[6].append("more")
    del rows[9][2]
    assert faults_of(write(tmp_path / "x.csv", rows), labels_of="crema-d") == [
        "unknown emotion 'calm' in 5 rows, the first: line 3; expected ang, dis, fea, hap, neu,"
        " sad; name it with --emotion calm=NAME, or keep its turns without a label: --drop-emotion"
        " calm",
        "more fields than the header's 3 in 2 rows, the first: line 6; is a text with the delimiter"
        " in it not quoted?",
        "line 10: fewer fields than the header's 3; is a quote or a delimiter missing?",
    ]


def test_what_is_printed_for_an_unknown_label_is_what_mends_it(tmp_path: Path) -> None:
    source = write(tmp_path / "x.csv", acted(tmp_path, ("ang", "it's calm", "hap", "상처")))
    faults = faults_of(source, labels_of="crema-d")
    typed = [
        re.findall(r"--(emotion|drop-emotion) ('.*?'\S*|\S+?)(?:,|$)", text) for text in faults
    ]
    renames = [
        shlex.split(words)[0] for found in typed for name, words in found if name == "emotion"
    ]
    drops = [shlex.split(words)[0] for found in typed for name, words in found if name != "emotion"]
    assert drops == ["it's calm", "상처"]
    _, manifest = prepared_of(
        source, labels_of="crema-d", emotion=[one.replace("NAME", "hurt") for one in renames]
    )
    assert manifest.classes == ("happy", "angry", "hurt")
    prepared_of(source, labels_of="crema-d", drop_emotion=drops)


def test_labels_of_any_corpus_are_its_classes_and_options_rename_drop_and_leave_out(
    tmp_path: Path,
) -> None:
    labels = ("기쁨", "Excited", "xxx", "frustrated", "noise")
    source = write(tmp_path / "x.csv", acted(tmp_path, labels))
    _, manifest = prepared_of(source)
    assert set(manifest.classes) == {"기쁨", "excited", "xxx", "frustrated", "noise"}
    prepared, manifest = prepared_of(
        source, emotion=["기쁨=happy", "noise=", "excited=Thrilled"], drop_emotion=["XXX"]
    )
    assert set(manifest.classes) == {"happy", "Thrilled", "frustrated"}
    assert [one.emotions for one in manifest.utterances[:4]] == [
        ("happy",),
        ("Thrilled",),
        (),
        ("frustrated",),
    ]
    assert len(manifest.utterances) == 24 - 4
    assert prepared.account.left_out == {
        "labelled noise, left out as asked": ["line 6", "line 11", "line 16", "line 21"]
    }
    dropped = "labelled xxx: a turn without a label, kept as context"
    assert len(prepared.account.noted[dropped]) == 5


def test_empty_labels_are_turns_without_one(tmp_path: Path) -> None:
    rows = dialogues(tmp_path)
    for row in rows[3::4]:
        row[7] = ""
    _, manifest = prepared_of(write(tmp_path / "x.csv", rows))
    assert manifest.utterances[2].emotions == ()
    assert manifest.history(3, 2) == [3, 2]


@pytest.mark.parametrize(
    ("labels", "note"),
    [
        (
            ("ANG", "HAP", "SAD", "DIS", "FEA"),
            "labels are codes of crema-d; names: --labels-of crema-d",
        ),
        (("0", "1", "2"), "labels are numbers; names are given so: --emotion 0=neutral"),
        (
            ("angry",) * 21 + ("sad", "sad", "agnry"),
            "label agnry is spelt like angry; where it means that: --emotion agnry=angry",
        ),
    ],
)
def test_labels_that_may_be_meant_otherwise_are_told(
    tmp_path: Path, labels: tuple[str, ...], note: str
) -> None:
    prepared, _ = prepared_of(write(tmp_path / "x.csv", acted(tmp_path, labels)))
    assert note in prepared.account.noted


def test_numbers_of_mosei_are_sentiments_by_their_sign(tmp_path: Path) -> None:
    source = write(tmp_path / "x.csv", acted(tmp_path, ("-3", "0.0", "2.333", "-0.33")))
    _, manifest = prepared_of(source, labels_of="mosei-sentiment")
    assert [one.emotions[0] for one in manifest.utterances[:4]] == [
        "negative",
        "neutral",
        "positive",
        "negative",
    ]
    (tmp_path / "manifest.csv").unlink()
    source = write(tmp_path / "x.csv", acted(tmp_path, ("-3", "4")))
    assert "unknown emotion '4' in 12 rows" in faults_of(source, labels_of="mosei-sentiment")[0]
    assert faults_of(source, labels_of="mosey") == [
        f"unknown --labels-of 'mosey'; expected one of {', '.join(LABEL_SETS)}"
    ]


def test_a_table_in_melds_columns_is_read_with_its_turns_named(tmp_path: Path) -> None:
    header = ["Sr No.", "Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID", "audio"]
    rows = [
        [str(n), f"line {n}", "AB"[n % 2], "joy", str(n // 4), str(n % 4), clip]
        for n, clip in enumerate(clips(tmp_path))
    ]
    source = write(tmp_path / "x.csv", [header, *rows])
    assert faults_of(source) == [
        f"line 1: no column for turn (found: {', '.join(header)}); name it: --column turn=COLUMN,"
        " or take the order of the rows: --column turn="
    ]
    assert faults_of(source, column=["turn="]) == [
        "line 6: utterance_id '0' is already on line 2; where it counts turns: --column"
        " turn=COLUMN; where rows have none of their own: --column utterance_id="
    ]
    _, manifest = prepared_of(source, column=["turn=Utterance_ID"])
    assert manifest.utterances[5].utterance_id == "clip05"
    assert (manifest.utterances[5].dialogue_id, manifest.utterances[5].turn) == ("1", 1)
    _, manifest = prepared_of(source, column=["turn=", "utterance_id="])
    assert manifest.utterances[5].turn == 1


def test_a_turn_without_a_dialogue_is_refused_with_both_ways_out(tmp_path: Path) -> None:
    header, *rows = acted(tmp_path)
    source = write(tmp_path / "x.csv", [[*header, "turn"], *[[*row, "1"] for row in rows]])
    assert faults_of(source) == [
        "line 1: a column for turn, but none for dialogue_id; name it: --column"
        " dialogue_id=COLUMN, or say that rows are no dialogues: --column turn="
    ]
    prepared_of(source, column=["turn="])
