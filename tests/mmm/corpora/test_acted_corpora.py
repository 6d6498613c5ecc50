"""Readers of RAVDESS, CREMA-D, EmoDB and ESD: what file names say, and what was left out."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from mmm.corpora.acted import prepare_crema_d, prepare_emodb, prepare_ravdess
from mmm.corpora.esd import prepare_esd
from mmm.corpora.options import PrepareOptions
from mmm.corpora.prepared import Prepared
from mmm.corpora.write import write_prepared
from mmm.manifest import Manifest, ManifestError
from mmm.manifest_csv import read_manifest
from tests.conftest import write_wav

Reader = Callable[[Path, PrepareOptions | None], Prepared]


def write_clips(folder: Path, names: Sequence[str]) -> Path:
    for number, name in enumerate(names):
        write_wav(folder / name, 0.05, 200.0, number)
    return folder


def read(reader: Reader, folder: Path, **options: object) -> tuple[Prepared, Manifest]:
    prepared = reader(folder, PrepareOptions(**options))  # type: ignore[arg-type]
    write_prepared(prepared, folder.parent / "manifest.csv")
    return prepared, read_manifest(folder.parent / "manifest.csv")


def ravdess(folder: Path) -> Path:
    """Four actors, each emotion once."""
    return write_clips(
        folder,
        [
            f"Actor_{actor:02}/03-01-{emotion:02}-01-{1 + emotion % 2:02}-02-{actor:02}.wav"
            for actor in (1, 2, 11, 12)
            for emotion in range(1, 9)
        ],
    )


def test_ravdess_is_read_by_its_names_and_dealt_by_actor(tmp_path: Path) -> None:
    folder = ravdess(tmp_path / "r")
    write_clips(
        folder,
        [
            "songs/03-02-06-01-01-01-12.wav",
            "films/02-01-06-01-01-01-12.wav",
            "Actor_01/notes.wav",
            "Actor_01/._03-01-06-01-01-01-12.wav",
        ],
    )
    (folder / "Actor_12" / "03-01-06-01-01-01-12.wav").write_bytes(b"")
    (folder / "films" / "01-01-06-01-01-01-12.mp4").write_bytes(b"film")
    prepared, manifest = read(prepare_ravdess, folder)
    assert len(manifest.utterances) == 32
    first = manifest.utterances[0]
    assert (first.utterance_id, first.dialogue_id, first.turn) == (
        "03-01-01-01-02-02-01",
        "03-01-01-01-02-02-01",
        0,
    )
    assert (first.speaker, first.session, first.text) == (
        "Actor_01",
        "Actor_01",
        "Dogs are sitting by the door.",
    )
    assert set(manifest.classes) == {
        *("neutral", "calm", "happy", "sad", "angry", "fear", "disgust", "surprise")
    }
    assert manifest.utterances[5].emotions == ("fear",)
    assert len({(one.speaker, one.split) for one in manifest.utterances}) == 4
    assert prepared.account.left_out == {
        "sound files that are not named as RAVDESS's": ["notes.wav"],
        "stray files": ["Actor_01/._03-01-06-01-01-01-12.wav"],
        "clips as .mp4, which is not read": ["films/01-01-06-01-01-01-12.mp4"],
        "songs (vocal channel 02)": ["songs/03-02-06-01-01-01-12.wav"],
        "films without sound (modality 02)": ["films/02-01-06-01-01-01-12.wav"],
        "unusable audio: cannot be read as audio (Format not recognised.)": [
            "Actor_12/03-01-06-01-01-01-12.wav"
        ],
    }


def test_ravdess_in_two_folders_is_one_corpus_where_its_files_are_the_same(tmp_path: Path) -> None:
    """As its archives are that hold every file twice."""
    folder = ravdess(tmp_path / "r")
    ravdess(folder / "audio_speech_actors_01-24")
    prepared, manifest = read(prepare_ravdess, folder)
    assert len(manifest.utterances) == 32
    same = prepared.account.left_out["clips that are there twice, with the same content"]
    assert len(same) == 32
    write_wav(folder / "Actor_01" / "03-01-01-01-02-02-01.wav", 0.1, 900.0, 99)
    with pytest.raises(ManifestError, match=r"1 fault\n  two files for one clip: Actor_01/03-01"):
        prepare_ravdess(folder)


def test_labels_of_ravdess_take_the_options_of_every_reader(tmp_path: Path) -> None:
    folder = ravdess(tmp_path / "r")
    _, manifest = read(prepare_ravdess, folder, emotion=["calm=neutral"], drop_emotion=["08"])
    assert len(manifest.classes) == 6
    assert sum(not one.emotions for one in manifest.utterances) == 4
    _, manifest = read(prepare_ravdess, folder, folds="all", column=["session=utterance_id"])
    assert [one.fold for one in manifest.utterances[::8]] == [1, 2, 3, 4]
    assert manifest.utterances[0].session == "03-01-01-01-02-02-01"
    (folder / "03-01-09-01-01-01-01.wav").write_bytes(b"")
    (folder / "03-01-09-01-01-01-02.wav").write_bytes(b"")
    with pytest.raises(
        ManifestError,
        match=r"unknown emotion '09' in 2 rows, the first: 03-01-09-01-01-01-01\.wav; expected",
    ):
        prepare_ravdess(folder)


def test_crema_d_has_its_twelve_sentences(tmp_path: Path) -> None:
    codes = ("IEO", "TIE", "IOM", "IWW", "TAI", "MTI", "IWL", "ITH", "DFA", "ITS", "TSI", "WSI")
    levels = ("XX", "LO", "MD", "HI", "X")
    folder = write_clips(
        tmp_path / "c",
        [
            f"AudioWAV/{actor}_{code}_{('ANG', 'DIS', 'FEA', 'HAP', 'NEU', 'SAD')[n % 6]}"
            f"_{levels[n % 5]}.wav"
            for actor in (1001, 1040, 1091)
            for n, code in enumerate(codes)
        ],
    )
    _, manifest = read(prepare_crema_d, folder)
    assert len({one.text for one in manifest.utterances}) == 12
    found = {one.utterance_id: one for one in manifest.utterances}["1040_DFA_FEA_HI"]
    assert (found.speaker, found.text, found.emotions) == (
        "1040",
        "Don't forget a jacket.",
        ("fear",),
    )
    assert len({(one.speaker, one.split) for one in manifest.utterances}) == 3
    write_clips(folder, ["1001_ABC_ANG_XX.wav"])
    with pytest.raises(
        ManifestError, match=r"1001_ABC_ANG_XX\.wav: unknown sentence 'ABC'; expected one of IEO, "
    ):
        prepare_crema_d(folder)


def test_emodb_has_its_ten_sentences_in_german(tmp_path: Path) -> None:
    codes = ("a01", "a02", "a04", "a05", "a07", "b01", "b02", "b03", "b09", "b10")
    folder = write_clips(
        tmp_path / "e",
        [
            f"wav/{speaker}{code}{'WLEAFTN'[n % 7]}b.wav"
            for speaker in ("03", "08", "16")
            for n, code in enumerate(codes)
        ],
    )
    _, manifest = read(prepare_emodb, folder)
    found = {one.utterance_id: one for one in manifest.utterances}
    assert len(found) == 30
    assert found["08a04Eb"].text == "Heute abend könnte ich es ihm sagen."
    assert (found["08a04Eb"].speaker, found["08a04Eb"].emotions) == ("speaker08", ("disgust",))
    assert manifest.classes == (
        *("neutral", "happy", "angry", "sad", "disgust", "fear"),
        "boredom",
    )


@pytest.mark.parametrize(
    ("reader", "example"),
    [
        (prepare_ravdess, "03-01-06-01-02-01-12.wav"),
        (prepare_crema_d, "1001_DFA_ANG_XX.wav"),
        (prepare_emodb, "03a01Fa.wav"),
    ],
)
def test_a_folder_without_clips_is_refused_with_an_example(
    tmp_path: Path, reader: Reader, example: str
) -> None:
    with pytest.raises(ManifestError, match=rf"no clip of .* that can be used; expected {example}"):
        reader(tmp_path, None)
    with pytest.raises(FileNotFoundError, match=rf"no such folder; expected .* such as {example}"):
        reader(tmp_path / "nowhere", None)


def write_esd(folder: Path, encoding: str = "utf-8") -> Path:
    """Speakers 0001, in Chinese, 0011 and 0012, each emotion twice; train and test folders."""
    english = ("Angry", "Happy", "Neutral", "Sad", "Surprise")
    chinese = ("生气", "快乐", "中立", "伤心", "惊喜")
    for place, speaker in enumerate(("0001", "0011", "0012")):
        lines = []
        for n in range(10):
            stem = f"{speaker}_{n + 1:06}"
            label = (english, chinese)[speaker == "0001"][n // 2]
            part = ("train", "test")[n % 2]
            clip = folder / speaker / english[n // 2] / part / f"{stem}.wav"
            write_wav(clip, 0.05, 200.0, 100 * place + n)
            lines.append(f"{stem}\t{'你好' if speaker == '0001' else 'Hello'} {n}\t{label}")
        (folder / speaker / f"{speaker}.txt").write_bytes("\r\n".join(lines).encode(encoding))
    return folder


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-8-sig"])
def test_esd_is_read_by_its_lines_and_dealt_by_speaker(tmp_path: Path, encoding: str) -> None:
    _, manifest = read(prepare_esd, write_esd(tmp_path / "e", encoding))
    assert len(manifest.utterances) == 30
    assert manifest.classes == ("neutral", "happy", "surprise", "angry", "sad")
    first = manifest.utterances[0]
    assert (first.utterance_id, first.text, first.emotions) == (
        "0001_000001",
        "你好 0",
        ("angry",),
    )
    assert first.audio.endswith("e/0001/Angry/train/0001_000001.wav")
    assert len({(one.speaker, one.split) for one in manifest.utterances}) == 3


def test_esd_in_another_encoding_is_read_as_the_user_says(tmp_path: Path) -> None:
    folder = write_esd(tmp_path / "e", "gb18030")
    with pytest.raises(ManifestError, match=r"0001: byte .* gb18030 reads '.*你好 0.*--encoding"):
        prepare_esd(folder)
    prepared, manifest = read(prepare_esd, folder, encoding="gb18030")
    assert manifest.utterances[0].text == "你好 0"
    assert prepared.account.encodings == {"gb18030": ["0001.txt"]}


def test_what_esd_does_not_agree_on_is_left_out_and_faults_are_told_once(tmp_path: Path) -> None:
    folder = write_esd(tmp_path / "e")
    (folder / "0011" / "Angry" / "train" / "0011_000001.wav").unlink()
    write_wav(folder / "0011" / "Sad" / "0011_000099.wav", 0.05, 200.0, 999)
    clip = folder / "0012" / "Angry" / "train" / "0012_000001.wav"
    clip.rename(folder / "0012" / "Happy" / "train" / "0012_000001.wav")
    prepared, manifest = read(prepare_esd, folder)
    assert len(manifest.utterances) == 28
    assert prepared.account.left_out == {
        "no clip": ["0011.txt line 1 (0011_000001)"],
        "clips without a line": ["0011/Sad/0011_000099.wav"],
        "clips in the folder of another emotion than their line's": [
            "0012.txt line 1 (0012_000001): Angry, in Happy/"
        ],
    }
    file = folder / "0011" / "0011.txt"
    file.write_text(file.read_text().replace("\tNeutral", "\tMeh").replace("1 0\t", "1 0 "))
    with pytest.raises(ManifestError) as caught:
        prepare_esd(folder)
    assert caught.value.faults == (
        "0011: unknown emotion 'meh' in 2 rows, the first: line 5; expected neutral, happy,"
        " surprise, angry, sad, disgust, fear, 生气, 快乐, 中立, 伤心, 惊喜; name it with"
        " --emotion meh=NAME, or keep its turns without a label: --drop-emotion meh",
    )
    file.write_text("0011_000001 Hello Angry\n0012_000001\tx\tAngry\n")
    with pytest.raises(
        ManifestError,
        match=r"0011: a line that is not 0011_000001 TAB text TAB emotion in 2 rows, the first: li",
    ):
        prepare_esd(folder)
    with pytest.raises(FileNotFoundError, match="no folder 0001/ in it; expected ESD's folder"):
        prepare_esd(tmp_path)
