"""`prepare kemdy20`: every defect of the real corpus is repaired or accounted for, and what cannot
be read is refused by name.
"""

from pathlib import Path

import pytest

from mmm.corpora.kemdy20 import prepare_kemdy20
from mmm.corpora.options import PrepareOptions
from mmm.corpora.prepared import Prepared
from mmm.corpora.write import write_prepared
from mmm.manifest import Manifest, ManifestError
from mmm.manifest_csv import read_manifest
from mmm.training.batches import labelled_rows
from tests.corpus_parts import SAMPLE, Kemdy20, needs_sample, write_ai_hub


@pytest.fixture
def layout(tmp_path: Path) -> Kemdy20:
    return Kemdy20(tmp_path / "corpus")


def prepare(folder: Path, **options: object) -> tuple[Prepared, Manifest]:
    """Session 2 is dev, session 3 test; the manifest is written beside the corpus."""
    prepared = prepare_kemdy20(folder, **{"dev_sessions": "2", "test_sessions": "3", **options})  # type: ignore[arg-type]
    out = folder.parent / "manifest.csv"
    write_prepared(prepared, out)
    return prepared, read_manifest(out)


def faults_of(folder: Path, **options: object) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        prepare(folder, **options)
    return list(caught.value.faults)


def by_id(manifest: Manifest) -> dict[str, int]:
    return {utterance.utterance_id: index for index, utterance in enumerate(manifest.utterances)}


def test_a_faultless_corpus_keeps_the_order_of_conversation_and_its_ratings(
    layout: Kemdy20,
) -> None:
    prepared, manifest = prepare(layout.write())
    assert (prepared.account.repaired, prepared.account.left_out, prepared.account.noted) == (
        {},
        {},
        {},
    )
    assert [utterance.utterance_id for utterance in manifest.utterances[:4]] == [
        "Sess01_script01_User001F_001",
        "Sess01_script01_User002M_001",
        "Sess01_script01_User001F_002",
        "Sess01_script01_User002M_002",
    ]
    first = manifest.utterances[1]
    assert (first.dialogue_id, first.turn, first.session, first.speaker) == (
        "Sess01_script01",
        2,
        "Sess01",
        "User002M",
    )
    assert (first.text, first.emotions, first.valence, first.arousal) == (
        "안녕 하세요 1.",
        ("happy",),
        3.2,
        2.9,
    )
    assert first.votes == (("happy",),) * 10
    assert first.audio == "corpus/wav/Session01/Sess01_script01_User002M_001.wav"
    assert manifest.history(3, 3) == [3, 2, 1]
    assert {utterance.session: utterance.split for utterance in manifest.utterances} == {
        "Sess01": "train",
        "Sess02": "dev",
        "Sess03": "test",
    }


def test_preparing_twice_gives_the_same_bytes(layout: Kemdy20, tmp_path: Path) -> None:
    layout.write()
    prepare(layout.folder)
    before = (tmp_path / "manifest.csv").read_bytes()
    prepare(layout.folder)
    assert (tmp_path / "manifest.csv").read_bytes() == before


def test_the_name_of_the_file_wins_over_its_segments(layout: Kemdy20) -> None:
    for row in layout.rows[3]:
        row[3] = row[3].replace("Sess03", "Sess42")
    prepared, manifest = prepare(layout.write())
    assert {one.session for one in manifest.utterances} == {"Sess01", "Sess02", "Sess03"}
    assert (
        len(
            prepared.account.repaired[
                "segments of Sess03_eval.csv named Sess42: the file's name wins"
            ]
        )
        == 4
    )


def test_a_user_number_out_of_sequence_is_kept_and_noted(layout: Kemdy20) -> None:
    for row in layout.rows[2]:
        old = row[3]
        row[3] = old.replace("User003F", "User081F")
        layout.texts[row[3]] = layout.texts.pop(old)
    prepared, manifest = prepare(layout.write())
    assert "User081F" in {one.speaker for one in manifest.utterances}
    assert list(prepared.account.noted) == [
        "user number out of sequence, kept: User081F in session 2"
    ]


def test_disqust_is_read_as_disgust_in_totals_and_votes(layout: Kemdy20) -> None:
    layout.rows[1][1][4] = "disqust"
    layout.rows[1][1][7] = "disqust"
    layout.rows[1][2][10] = "disqust;fear"
    prepared, manifest = prepare(layout.write())
    assert manifest.utterances[1].emotions == ("disgust",)
    assert manifest.utterances[1].votes[0] == ("disgust",)
    assert manifest.utterances[2].votes[1] == ("disgust", "fear")
    assert len(prepared.account.repaired["label disqust read as disgust"]) == 2


def test_tied_votes_become_several_emotions_and_soft_labels_come_from_the_votes(
    layout: Kemdy20,
) -> None:
    row = layout.rows[1][1]
    row[4] = "happy;neutral"
    for rater in range(10):
        row[7 + 3 * rater] = ["happy", "neutral", "happy;neutral", "fear", ""][rater // 2]
    prepared, manifest = prepare(layout.write())
    assert manifest.utterances[1].emotions == ("happy", "neutral")
    assert manifest.utterances[1].shares == pytest.approx(
        {"happy": 3 / 8, "neutral": 3 / 8, "fear": 2 / 8}
    )
    shares = labelled_rows(manifest, [1], "soft").shares[0]
    assert dict(zip(manifest.classes, shares.tolist(), strict=True)) == {
        "neutral": 0.5,
        "happy": 0.5,
        "angry": 0.0,
    }
    assert len(prepared.account.noted["tied votes, kept as several emotions"]) == 1


@pytest.mark.parametrize("text", ["n/ u/\n", "b/", "", "N/ * +\n"])
def test_a_line_of_tags_alone_leaves_the_speech_with_an_empty_text(
    layout: Kemdy20, text: str
) -> None:
    layout.texts["Sess01_script01_User001F_002"] = text.encode("cp949")
    prepared, manifest = prepare(layout.write())
    assert manifest.utterances[2].text == ""
    assert (
        len(
            prepared.account.repaired[
                "transcripts of tags alone: the speech stays, with an empty text"
            ]
        )
        == 1
    )


@pytest.mark.parametrize(
    ("written", "default", "published"),
    [
        ("b/ 너한테 그 말을 들으니까.", "너한테 그 말을 들으니까.", "너한테 그 말을 들으니까."),
        (
            "l/ 어 c/ 보잘것없는+ 선물* 아/ 네",
            "어 보잘것없는 선물 아 네",
            "어 보잘것없는 선물 아 네",
        ),
        ("n/u/ TV 3번 봤어?", "TV 3번 봤어?", "번 봤어?"),
        ("N/ 24/7 club/ ㅋㅋ~", "24 7 club ㅋㅋ", "ㅋㅋ"),
        ("“정말”… (웃음), 네!", "정말 웃음 , 네!", "정말 웃음 , 네!"),
    ],
)
def test_tags_go_and_letters_stay(
    layout: Kemdy20, written: str, default: str, published: str
) -> None:
    layout.texts["Sess01_script01_User001F_001"] = written.encode(
        "cp949" if "…" not in written else "utf-8"
    )
    layout.write()
    assert prepare(layout.folder)[1].utterances[0].text == default
    assert prepare(layout.folder, text="published")[1].utterances[0].text == published
    assert prepare(layout.folder, text="none")[1].utterances[0].text == written


@pytest.mark.parametrize("encoding", ["cp949", "utf-8", "utf-8-sig", "utf-16"])
def test_transcripts_and_annotations_may_be_in_any_encoding_of_the_field(
    layout: Kemdy20, encoding: str
) -> None:
    for identity in layout.texts:
        layout.texts[identity] = "째깍째깍 뷁".encode(encoding)
    _, manifest = prepare(layout.write(encoding=encoding))
    assert {one.text for one in manifest.utterances} == {"째깍째깍 뷁"}


def test_text_that_is_valid_in_both_encodings_is_read_as_hangul(layout: Kemdy20) -> None:
    assert "째".encode("cp949").decode("utf-8") == "°"
    layout.texts["Sess01_script01_User001F_001"] = "째".encode("cp949")
    assert prepare(layout.write())[1].utterances[0].text == "째"


def test_stray_files_are_left_out_and_listed(layout: Kemdy20) -> None:
    folder = layout.write() / "wav" / "Session01"
    for name in (".DS_Store", "Thumbs.db", "._Sess01_script01_User001F_001.wav", "notes.pdf"):
        (folder / name).write_bytes(b"\0\1")
    (folder / "Sess01_script01_User001F_009.wav").write_bytes(
        (folder / "Sess01_script01_User001F_001.wav").read_bytes()
    )
    (folder.parent / "Session09").mkdir()
    (folder.parent / "music").mkdir()
    prepared, manifest = prepare(layout.folder)
    assert len(manifest.utterances) == 12
    assert prepared.account.left_out == {
        "stray files": [
            f"wav/Session01/{name}"
            for name in (
                ".DS_Store",
                "._Sess01_script01_User001F_001.wav",
                "Thumbs.db",
                "notes.pdf",
            )
        ],
        "files without annotation": ["wav/Session01/Sess01_script01_User001F_009.wav"],
        "session without annotations": ["wav/Session09/"],
    }
    assert prepared.account.noted == {
        "folders that are not a session's were not read": ["wav/music/"]
    }


def test_a_segment_that_cannot_be_used_is_left_out_with_the_reason_and_turns_keep_their_numbers(
    layout: Kemdy20,
) -> None:
    layout.rows[1][0][4] = " "
    folder = layout.write() / "wav"
    (folder / "Session01" / "Sess01_script01_User002M_001.wav").unlink()
    (folder / "Session02" / "Sess02_script01_User003F_001.txt").unlink()
    (folder / "Session02" / "Sess02_script01_User004M_001.txt").write_bytes(b"\xb0\xa1\xff\xff\xff")
    damaged = folder / "Session03" / "Sess03_script01_User005F_001.wav"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    prepared, manifest = prepare(layout.folder)
    assert [utterance.turn for utterance in manifest.utterances] == [1, 3, 4, 3, 4, 2, 3, 4]
    assert [bool(one.emotions) for one in manifest.utterances] == [False] + 7 * [True]
    left_out = prepared.account.left_out
    where = "Sess0{0}_eval.csv line {1} (Sess0{0}_script01_User{2}_001)"
    unlabelled = "no total emotion: a turn without a label, kept as context"
    assert prepared.account.noted[unlabelled] == [where.format(1, 3, "001F")]
    assert left_out == {
        "no audio file": [where.format(1, 4, "002M")],
        "no transcript": [where.format(2, 3, "003F")],
        "transcript is not text: byte 2: neither UTF-8 nor cp949 (illegal multibyte sequence)": [
            where.format(2, 4, "004M")
        ],
        "unusable audio: truncated: the header promises 3200 bytes of samples, 956 are there": [
            where.format(3, 3, "005F")
        ],
    }


def test_a_clip_of_another_length_than_annotated_is_noted(layout: Kemdy20) -> None:
    layout.rows[1][3][2] = "9.5"
    layout.rows[1][3][1] = "1.5"
    prepared, _ = prepare(layout.write())
    assert list(prepared.account.noted) == [
        "starts before the segment above it; the order of rows is kept",
        "clip and annotated times differ by more than 0.5 s",
    ]


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (
            3,
            "Sess01_script07_User001F_001",
            "segment id 'Sess01_script07_User001F_001'; expected one such as Sess01_script01",
        ),
        (
            4,
            "joyful",
            (
                "unknown emotion 'joyful'; expected neutral, happy, surprise, angry, sad, disgust,"
                " fear; name it with --emotion joyful=NAME, or keep its turns without a label:"
                " --drop-emotion joyful"
            ),
        ),
        (7, "happy;meh", "unknown emotion 'meh'; expected neutral"),
        (5, "3,2", "valence '3,2' is not a number"),
        (1, "nan", "start 'nan' is not a number"),
        (
            3,
            "Sess01_script01_User001F_001",
            "segment Sess01_script01_User001F_001 is already on line 3",
        ),
    ],
)
def test_a_fault_names_file_and_line(
    layout: Kemdy20, column: int, value: str, message: str
) -> None:
    layout.rows[1][2][column] = value
    layout.rows[3][1].append("38th")
    faults = faults_of(layout.write())
    assert faults[0].startswith(f"annotation/Sess01_eval.csv: line 5: {message}")
    assert faults[1] == "annotation/Sess03_eval.csv: line 4: 38 columns; expected 37"


def test_missing_headers_are_refused(layout: Kemdy20) -> None:
    assert (
        faults_of(layout.write(header=[["Numb"] * 37]))[0]
        == "annotation/Sess01_eval.csv: line 1: expected two header rows above the first segment"
    )


def test_a_session_whose_wavs_are_not_there_is_refused(layout: Kemdy20) -> None:
    layout.write()
    (layout.folder / "wav" / "Session03").rename(layout.folder / "wav" / "session_3")
    assert faults_of(layout.folder) == [
        "annotation/Sess03_eval.csv: none of its 4 segments can be used; are the wav and txt files"
        " in wav/Session03/?"
    ]
    assert not (layout.folder.parent / "manifest.csv").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"test_sessions": "33-40"},
            (
                r"--test-sessions asks for session 33-40, which the corpus does not have \(found:"
                r" 1-3\); name others"
            ),
        ),
        (
            {"dev_sessions": "2,5"},
            r"--dev-sessions asks for session 5, which the corpus does not have \(found: 1-3\)",
        ),
        ({"dev_sessions": "3"}, "session 3 is in --dev-sessions and in --test-sessions"),
        ({"dev_sessions": "1-2"}, "leave no session to train on"),
        (
            {"dev_sessions": "two"},
            (
                "--dev-sessions 'two': 'two' is no session; expected numbers and ranges, such as"
                " 29-32,35"
            ),
        ),
        ({"dev_sessions": "3-2"}, "--dev-sessions '3-2': the range 3-2 is empty"),
        ({"text": "nice"}, "unknown --text 'nice'; expected one of default, published, none"),
    ],
)
def test_options_that_do_not_fit_the_corpus_are_refused(
    layout: Kemdy20, options: dict[str, str], message: str
) -> None:
    layout.write()
    with pytest.raises(ValueError, match=message):
        prepare(layout.folder, **options)


def test_sessions_may_be_lists_and_ranges(tmp_path: Path) -> None:
    _, manifest = prepare(
        Kemdy20(tmp_path / "corpus", 6).write(), dev_sessions="1, 3", test_sessions="4-5"
    )
    splits = {one.session: one.split for one in manifest.utterances}
    assert list(splits.values()) == ["dev", "train", "dev", "test", "test", "train"]


def test_the_folder_above_the_corpus_will_do_and_another_is_refused(layout: Kemdy20) -> None:
    root = layout.write()
    assert len(prepare_kemdy20(root.parent, dev_sessions="2", test_sessions="3").rows) == 12
    with pytest.raises(
        FileNotFoundError,
        match=r"wav: no annotation/ in it \(found: Session01, Session02, Session03\)",
    ):
        prepare_kemdy20(root / "wav")
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        prepare_kemdy20(root / "nowhere")


def test_clips_of_ai_hub_are_dealt_to_sessions_evenly_and_by_default_to_train_alone(
    tmp_path: Path,
) -> None:
    corpus, clips = Kemdy20(tmp_path / "corpus", 6).write(), write_ai_hub(tmp_path / "hub")
    _, manifest = prepare(corpus, ai_hub=clips)
    added = [one for one in manifest.utterances if one.utterance_id.startswith("AIHub")]
    assert len(added) == 12
    assert {one.split for one in added} == {"train"}
    assert [sum(one.session == f"Sess{n:02}" for one in added) for n in (1, 4, 5, 6)] == [
        3,
        3,
        3,
        3,
    ]
    assert {one.emotions[0] for one in added} == {"happy", "angry", "sad", "fear", "surprise"}
    assert all(one.previous == -1 and one.votes == () and one.valence is None for one in added)
    _, published = prepare(corpus, ai_hub=clips, ai_hub_sessions="all")
    sessions = [one.session for one in published.utterances if one.utterance_id.startswith("AIHub")]
    assert sorted(sessions) == sorted([f"Sess{n:02}" for n in range(1, 7)] * 2)
    again = [
        one.session
        for one in prepare(
            corpus, ai_hub=clips, ai_hub_sessions="all", options=PrepareOptions(seed=2)
        )[1].utterances
    ][-12:]
    assert sorted(again) == sorted(sessions) != again


def test_labels_of_ai_hub_can_be_read_as_another_emotion_or_left_out(tmp_path: Path) -> None:
    corpus, clips = (
        Kemdy20(tmp_path / "corpus").write(),
        write_ai_hub(tmp_path / "hub", encoding="cp949"),
    )
    prepared, manifest = prepare(
        corpus, ai_hub=clips, options=PrepareOptions(emotion=["상처=fear", "당황="])
    )
    added = [
        one.emotions[0] for one in manifest.utterances if one.utterance_id.startswith("AIHub_F")
    ]
    assert added == ["happy", "angry", "sad", "fear", "fear"]
    assert len(prepared.account.left_out["labelled 당황, left out as asked"]) == 2
    for change in ("상처", "=sad", "상처=glum;sad"):
        with pytest.raises(ValueError, match=f"--emotion '{change}': "):
            prepare(corpus, ai_hub=clips, options=PrepareOptions(emotion=[change]))


@needs_sample
def test_the_shared_sample_gives_285_utterances_and_an_account_of_its_defects(
    tmp_path: Path,
) -> None:
    prepared = prepare_kemdy20(
        SAMPLE, dev_sessions="12", test_sessions="17", ai_hub=SAMPLE / "wav" / "emotion_dialogue"
    )
    write_prepared(prepared, tmp_path / "manifest.csv")
    manifest = read_manifest(tmp_path / "manifest.csv")
    assert len(manifest.utterances) == 285
    counts = {
        what: len(cases)
        for what, cases in (prepared.account.repaired | prepared.account.noted).items()
    }
    assert counts == {
        "segments of Sess17_eval.csv named Sess42: the file's name wins": 40,
        "transcripts cleaned of tags and other characters": 77,
        "transcripts of tags alone: the speech stays, with an empty text": 2,
        "user number out of sequence, kept: User081F in session 12": 20,
        "tied votes, kept as several emotions": 10,
        "clips of AI Hub added (45 train, 0 dev, 0 test)": 45,
        "texts of 4 words or more that train has too, word for word": 1,
    }
    assert prepared.account.left_out == {
        "stray files": ["wav/Session03/.DS_Store", "wav/Session03/Thumbs.db"]
    }
    speakers = {
        split: {one.speaker for one in manifest.utterances if one.split == split}
        for split in ("train", "dev", "test")
    }
    assert (len(speakers["train"]), len(speakers["dev"]), len(speakers["test"])) == (10, 2, 2)
    assert speakers["train"].isdisjoint(speakers["dev"] | speakers["test"])
    assert manifest.utterances[by_id(manifest)["Sess03_script01_User005F_009"]].text == ""
