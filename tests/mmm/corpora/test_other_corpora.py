"""`prepare` of KEMDy19, AI Hub, MELD and IEMOCAP, on layouts made here from what is published about
them; cp949 in `prepare csv`.
"""

import csv
import io
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from mmm.corpora.ai_hub import prepare_ai_hub
from mmm.corpora.csv_file import prepare_csv
from mmm.corpora.iemocap import prepare_iemocap
from mmm.corpora.kemdy19 import prepare_kemdy19
from mmm.corpora.meld import extract_sound, prepare_meld
from mmm.corpora.options import PrepareOptions
from mmm.corpora.prepared import Prepared
from mmm.corpora.write import write_prepared
from mmm.manifest import Manifest, ManifestError
from mmm.manifest_csv import read_manifest
from tests.conftest import HEADER, write_manifest, write_wav
from tests.corpus_parts import SAMPLE, needs_sample, write_ai_hub


def written(prepared: Prepared, folder: Path) -> Manifest:
    write_prepared(prepared, folder / "manifest.csv")
    return read_manifest(folder / "manifest.csv")


# KEMDy19


def write_kemdy19(folder: Path) -> Path:
    """Three sessions of one dialogue, F and M in turn; both files of a session list all four
    segments.
    """
    (folder / "annotation").mkdir(parents=True)
    for session in (1, 2, 3):
        name = f"Sess{session:02}_impro01"
        ids = [f"{name}_{sex}{number:03}" for number in (1, 2) for sex in "FM"]
        for file_sex in "FM":
            rows = [["Numb", *[" "] * 42], [" ", *["x"] * 42]]
            for place, identity in enumerate(ids):
                own = identity.split("_")[-1][0] == file_sex
                label = (
                    "anger" if own else "fear"
                )  # what a file says of the other's segments must not be read
                rows.append(
                    [
                        str(place),
                        f"{place}.1",
                        f"{place}.2",
                        *["0"] * 6,
                        identity,
                        label,
                        "3.1",
                        "2.2",
                        *[label, "3", "2"] * 10,
                    ]
                )
            content = io.StringIO()
            csv.writer(content).writerows(rows)
            (folder / "annotation" / f"Session{session:02}_{file_sex}_res.csv").write_text(
                content.getvalue(), encoding="utf-8"
            )
        for number, identity in enumerate(ids):
            clip = folder / "wav" / f"Session{session:02}" / name / f"{identity}.wav"
            write_wav(clip, 0.1, 200.0, number)
            clip.with_suffix(".txt").write_text(f"b/ 말 {number}", encoding="utf-8")
    return folder


def test_kemdy19_takes_each_speakers_rows_from_the_own_file_in_order_of_conversation(
    tmp_path: Path,
) -> None:
    prepared = prepare_kemdy19(write_kemdy19(tmp_path / "k"), dev_sessions="2", test_sessions="3")
    manifest = written(prepared, tmp_path)
    assert [
        (one.utterance_id, one.turn, one.text, one.emotions) for one in manifest.utterances[:4]
    ] == [
        (
            f"Sess01_impro01_{sex}00{number}",
            2 * number - 1 + "FM".index(sex),
            f"말 {2 * number - 2 + 'FM'.index(sex)}",
            ("angry",),
        )
        for number in (1, 2)
        for sex in "FM"
    ]
    assert {one.speaker for one in manifest.utterances} == {
        f"Sess0{session}_{sex}" for session in (1, 2, 3) for sex in "FM"
    }
    assert (manifest.utterances[0].valence, manifest.utterances[0].votes) == (
        3.1,
        (("angry",),) * 10,
    )
    assert manifest.history(3, 4) == [3, 2, 1, 0]


def test_kemdy19_accounts_for_a_speaker_without_annotations_and_refuses_faults(
    tmp_path: Path,
) -> None:
    folder = write_kemdy19(tmp_path / "k")
    (folder / "annotation" / "Session01_M_res.csv").unlink()
    prepared = prepare_kemdy19(folder, dev_sessions="2", test_sessions="3")
    assert prepared.account.left_out == {
        "speaker without annotations: no SessionNN_M_res.csv": ["Session01"],
        "clips without annotation": ["Sess01_impro01_M001.wav", "Sess01_impro01_M002.wav"],
    }
    assert len(prepared.rows) == 10
    file = folder / "annotation" / "Session02_F_res.csv"
    file.write_text(file.read_text().replace("Sess02_impro01_F002", "Sess05_impro01_F002"))
    with pytest.raises(
        ManifestError,
        match=(
            r"Session02_F_res\.csv: line 5: segment id 'Sess05_impro01_F002'; expected one such as"
        ),
    ):
        prepare_kemdy19(folder, dev_sessions="2", test_sessions="3")
    with pytest.raises(
        FileNotFoundError, match="no annotation/ in it; expected the folder with KEMDy19's"
    ):
        prepare_kemdy19(tmp_path)


# AI Hub


@needs_sample
def test_ai_hub_alone_keeps_a_sentence_in_one_split(tmp_path: Path) -> None:
    manifest = written(prepare_ai_hub(SAMPLE / "wav" / "emotion_dialogue"), tmp_path)
    assert len(manifest.utterances) == 45
    homes: dict[str, set[str]] = {}
    for one in manifest.utterances:
        homes.setdefault(one.text, set()).add(one.split)
    assert all(len(splits) == 1 for splits in homes.values())
    assert {one.split for one in manifest.utterances} == {"train", "dev", "test"}


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            "기쁨",
            "환희",
            (
                "line 2: unknown emotion '환희'; expected 기쁨, .*; name it with --emotion"
                " '환희=NAME', or keep its turns without a label: --drop-emotion '환희'"
            ),
        ),
        ("F_000002", "F_000001", r"line 3: clip 'F_000001\.wav' is already on line 2"),
        ("F_000002", "clip7", r"line 3: clip 'clip7\.wav'; expected one such as F_000001\.wav"),
        (
            "감정_대분류",
            "감정x",
            (
                r"line 1: no column for emotion \(found: file, text, 감정x\); name it: --column"
                " emotion=COLUMN"
            ),
        ),
        ('"문장, 2"', "문장, 2", "line 3: 4 columns; expected 3, as the header has"),
        ('"문장, 2"', '"문장, 2', r"line 3: not CSV \("),
    ],
)
def test_faults_of_ai_hubs_labels_are_named(
    tmp_path: Path, before: str, after: str, message: str
) -> None:
    folder = write_ai_hub(tmp_path / "hub")
    labels = folder / "labels.csv"
    labels.write_text(labels.read_text().replace(before, after, 1))
    with pytest.raises(ManifestError, match=rf"labels\.csv: [0-9]+ faults?\n  {message}"):
        prepare_ai_hub(folder)


def test_clips_without_label_and_labels_without_clip_are_left_out(tmp_path: Path) -> None:
    folder = write_ai_hub(tmp_path / "hub")
    write_wav(folder / "F_000099.wav", 0.1, 200.0, 1)
    (folder / "M_000001.wav").unlink()
    (folder / "M_000002.wav").write_bytes(b"")
    account = prepare_ai_hub(folder).account
    assert account.left_out["clips without a label"] == ["F_000099.wav"]
    assert account.left_out["no audio file"] == ["labels.csv line 8 (M_000001.wav)"]
    assert account.left_out["unusable audio: cannot be read as audio (Format not recognised.)"] == [
        "labels.csv line 9 (M_000002.wav)"
    ]
    (folder / "other.csv").write_text("x")
    with pytest.raises(
        FileNotFoundError,
        match=(
            r"expected one CSV with the labels, found labels\.csv, other\.csv; name it with"
            r" --labels"
        ),
    ):
        prepare_ai_hub(folder)
    assert len(prepare_ai_hub(folder, labels=folder / "labels.csv").rows) == 10


# MELD


_MELD_HEADER = [
    "Sr No.",
    "Utterance",
    "Speaker",
    "Emotion",
    "Sentiment",
    "Dialogue_ID",
    "Utterance_ID",
    "Season",
    "Episode",
]


def write_meld(folder: Path, suffix: str = ".wav") -> Path:
    for split, where in (
        ("train", "train_splits"),
        ("dev", "dev_splits_complete"),
        ("test", "output_repeated_splits_test"),
    ):
        rows = []
        for number in range(4):
            emotion = ["joy", "neutral", "anger", "sadness"][number]
            rows.append(
                [
                    str(number),
                    f"It\x92s line {number}",
                    "Ross",
                    emotion,
                    "x",
                    "0",
                    str(number),
                    "1",
                    {"train": "1", "dev": "2", "test": "3"}[split],
                ]
            )
            write_wav(folder / where / f"dia0_utt{number}.wav", 0.2, 200.0, number + len(split))
            if suffix != ".wav":
                clip = folder / where / f"dia0_utt{number}"
                subprocess.run(
                    [
                        "ffmpeg",
                        "-v",
                        "error",
                        "-i",
                        f"{clip}.wav",
                        "-c:a",
                        "aac",
                        f"{clip}{suffix}",
                    ],
                    check=True,
                )
                clip.with_suffix(".wav").unlink()
        write_manifest(folder / f"{split}_sent_emo.csv", rows, header=_MELD_HEADER)
    return folder


def test_meld_is_read_by_its_own_splits_and_windows_quotes_are_restored(tmp_path: Path) -> None:
    folder = write_meld(tmp_path / "meld")
    (folder / "dev_splits_complete" / "dia0_utt3.wav").unlink()
    (folder / "output_repeated_splits_test" / "final_videos_testdia0_utt0.wav").write_bytes(
        b"stray"
    )
    prepared, pending = prepare_meld(folder, tmp_path / "manifest.csv")
    manifest = written(prepared, tmp_path)
    assert pending == []
    assert len(manifest.utterances) == 11
    first = manifest.utterances[0]
    assert (first.utterance_id, first.dialogue_id, first.turn, first.session, first.speaker) == (
        "train_dia0_utt0",
        "train_dia0",
        0,
        "s1e1",
        "Ross",
    )
    assert (first.text, first.emotions, first.split) == ("It’s line 0", ("happy",), "train")
    assert prepared.account.left_out == {"no clip": ["dev_sent_emo.csv line 5 (dia0_utt3)"]}
    assert len(prepared.account.repaired["quotes and dashes of Windows restored"]) == 11
    assert prepared.account.noted == {}
    account = json.loads((tmp_path / "manifest.account.json").read_text())
    assert account["leaks"][0] == "1 speaker is in more than one split: Ross (train, dev, test)"


@pytest.mark.skipif(
    shutil.which("ffmpeg") is None,
    reason="ffmpeg is not installed, which takes the sound out of mp4",
)
def test_the_sound_of_meld_s_mp4_clips_is_taken_out_beside_the_manifest(tmp_path: Path) -> None:
    folder, out = write_meld(tmp_path / "meld", ".mp4"), tmp_path / "out" / "manifest.csv"
    (folder / "train_splits" / "dia0_utt3.mp4").write_bytes(b"no video")
    _, pending = prepare_meld(folder, out)
    assert len(pending) == 12
    for clip, target in pending:
        extract_sound(clip, target)
    prepared, again = prepare_meld(folder, out)
    assert [clip.name for clip, _ in again] == ["dia0_utt3.mp4"]
    write_prepared(prepared, out)
    manifest = read_manifest(out)
    assert len(manifest.utterances) == 11
    assert manifest.utterances[0].audio == "meld_audio/train/dia0_utt0.wav"
    assert prepared.account.left_out == {
        "no sound could be taken out of the clip": ["train_sent_emo.csv line 5 (dia0_utt3)"]
    }


def test_faults_of_meld_are_named(tmp_path: Path) -> None:
    folder = write_meld(tmp_path / "meld")
    table = folder / "train_sent_emo.csv"
    table.write_text(
        table.read_text().replace("anger", "rage").replace("joy,x,0,0", "joy,x,zero,0")
    )
    with pytest.raises(ManifestError) as caught:
        prepare_meld(folder, tmp_path / "manifest.csv")
    assert list(caught.value.faults) == [
        "train_sent_emo.csv: line 2: Dialogue_ID 'zero', Utterance_ID '0'; expected whole numbers",
        (
            "train_sent_emo.csv: line 4: unknown emotion 'rage'; expected neutral, happy, surprise,"
            " angry, sad, disgust, fear; name it with --emotion rage=NAME, or keep its turns"
            " without a label: --drop-emotion rage"
        ),
    ]
    table.unlink()
    with pytest.raises(FileNotFoundError, match=r"expected one train_sent_emo\.csv, found none"):
        prepare_meld(folder, tmp_path / "manifest.csv")


# IEMOCAP


_EVALUATION = """% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]

[14.8872 - 18.0175]\tSes0{0}F_impro01_F001\tneu\t[2.5000, 2.5000, 2.5000]
C-E2:\tNeutral;\t()
C-E3:\tNeutral; Sadness;\t()
C-F1:\tNeutral;\t(curious)
A-E3:\tval 2; act 2; dom  2;\t()

[6.2901 - 8.2357]\tSes0{0}F_impro01_F000\texc\t[4.0000, 3.5000, 2.5000]
C-E2:\tExcited;\t()

[19.2900 - 20.7875]\tSes0{0}F_impro01_M000\txxx\t[2.5000, 3.0000, 3.0000]
C-E2:\tFrustration;\t()

[21.3257 - 24.7400]\tSes0{0}F_impro01_M001\tfru\t[2.5000, 3.5000, 3.5000]
C-E2:\tFrustration;\t()
"""


def write_iemocap(folder: Path) -> Path:
    for session in range(1, 6):
        dialogue, root = f"Ses0{session}F_impro01", folder / f"Session{session}"
        for name, content in (
            ("EmoEvaluation", _EVALUATION.format(session)),
            (
                "transcriptions",
                "".join(
                    f"{dialogue}_{turn} [006.2901-008.2357]: Line of {turn}.\n"
                    for turn in ("F000", "F001", "M000", "M001")
                ),
            ),
        ):
            (root / "dialog" / name).mkdir(parents=True, exist_ok=True)
            (root / "dialog" / name / f"{dialogue}.txt").write_text(content)
        (root / "dialog" / "EmoEvaluation" / f"._{dialogue}.txt").write_bytes(b"\0\5\26\7")
        for number, turn in enumerate(("F000", "F001", "M000", "M001")):
            write_wav(
                root / "sentences" / "wav" / dialogue / f"{dialogue}_{turn}.wav", 0.1, 200.0, number
            )
    return folder


def test_iemocap_is_ordered_by_time_and_turns_without_a_counterpart_are_context(
    tmp_path: Path,
) -> None:
    write_wav(
        write_iemocap(tmp_path / "i")
        / "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_M009.wav",
        0.1,
        200.0,
        9,
    )
    prepared = prepare_iemocap(tmp_path / "i")
    manifest = written(prepared, tmp_path)
    assert [
        (one.utterance_id, one.emotions, one.turn, one.valence, one.text)
        for one in manifest.utterances[:2]
    ] == [
        ("Ses01F_impro01_F000", ("happy",), 1, 4.0, "Line of F000."),
        ("Ses01F_impro01_F001", ("neutral",), 2, 2.5, "Line of F001."),
    ]
    assert manifest.utterances[1].votes == (("neutral",), ("neutral", "sad"), ("neutral",))
    assert {one.session: one.split for one in manifest.utterances} == {
        "Session1": "train",
        "Session2": "train",
        "Session3": "train",
        "Session4": "dev",
        "Session5": "test",
    }
    assert {why: len(cases) for why, cases in prepared.account.left_out.items()} == {
        "stray files": 5,
        "clips without evaluation": 1,
    }
    assert {why: len(cases) for why, cases in prepared.account.noted.items()} == {
        "labelled xxx: a turn without a label, kept as context": 5,
        "labelled fru: a turn without a label, kept as context": 5,
    }
    assert [one.emotions for one in manifest.utterances[2:4]] == [(), ()]
    assert manifest.history(3, 4) == [3, 2, 1, 0]
    assert manifest.rows("dev") == [12, 13]
    frustrated = prepare_iemocap(tmp_path / "i", options=PrepareOptions(emotion=["fru=angry"]))
    assert [
        (row["utterance_id"], row["speaker"], row["votes"]) for row in frustrated.rows[3:4]
    ] == [("Ses01F_impro01_M001", "Ses01_M", "angry")]


def test_faults_of_iemocap_are_named(tmp_path: Path) -> None:
    folder = write_iemocap(tmp_path / "i")
    file = folder / "Session2" / "dialog" / "EmoEvaluation" / "Ses02F_impro01.txt"
    file.write_text(file.read_text().replace("\tneu\t", "\tmeh\t").replace("[6.2901 - ", "[six - "))
    (folder / "Session3" / "dialog" / "transcriptions" / "Ses03F_impro01.txt").unlink()
    with pytest.raises(ManifestError) as caught:
        prepare_iemocap(folder)
    assert [fault[:75] for fault in caught.value.faults] == [
        "Session2/dialog/EmoEvaluation/Ses02F_impro01.txt: line 9: '[six - 8.2357]\\tSes"[:75],
        "Session2/dialog/EmoEvaluation/Ses02F_impro01.txt: line 3: unknown emotion 'meh"[:75],
        "Session3/dialog/transcriptions/Ses03F_impro01.txt: no such file; expected the di"[:75],
    ]
    with pytest.raises(
        FileNotFoundError,
        match="no Session1/dialog/EmoEvaluation/ in it; expected IEMOCAP's folder",
    ):
        prepare_iemocap(tmp_path)


# any CSV


def test_a_csv_in_cp949_becomes_a_manifest(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", 0.1, 200.0, 1)
    rows = [
        ["u", "d", "1", "s", "A", "안녕", "a.wav", "joy", "train"],
        ["v", "e", "1", "t", "B", "네", "a.wav", "disqust", "val"],
    ]
    source = write_manifest(tmp_path / "source.csv", rows, header=HEADER)
    source.write_bytes(source.read_text(encoding="utf-8").encode("cp949"))
    prepared = prepare_csv(source)
    manifest = written(prepared, tmp_path)
    assert prepared.account.encodings == {"cp949": ["source.csv"]}
    assert prepared.account.repaired == {"label disqust read as disgust": ["line 3"]}
    assert prepared.account.noted == {"split val read as dev": ["line 3"]}
    assert [(one.text, one.emotions) for one in manifest.utterances] == [
        ("안녕", ("happy",)),
        ("네", ("disgust",)),
    ]
