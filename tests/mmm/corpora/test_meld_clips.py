"""A row of MELD gets the clip that its own split's folder has, or none: folders' names are read by
whole words, and two files for one clip are a fault.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mmm.corpora.ai_hub import prepare_ai_hub
from mmm.corpora.meld import prepare_meld
from mmm.corpora.prepared import Prepared
from mmm.manifest import ManifestError
from tests.conftest import write_manifest
from tests.corpus_parts import write_ai_hub

_HEADER = "Utterance,Speaker,Emotion,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"
_HERTZ = {"train": 200, "dev": 400, "test": 800}
_PUBLISHED = {
    "train": "train/train_splits",
    "dev": "dev/dev_splits_complete",
    "test": "test/output_repeated_splits_test",
}


def tone(path: Path, hertz: int, seconds: float = 0.5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(16000 * seconds)) / 16000
    soundfile.write(path, 0.2 * np.sin(2 * np.pi * hertz * time), 16000)


def write_meld(root: Path, folders: dict[str, str]) -> Path:
    """Two dialogues of two utterances each a split, whose clips are tones of the split's pitch."""
    for split, folder in folders.items():
        rows = []
        for dialogue in (0, 1):
            for turn in (0, 1):
                tone(root / folder / f"dia{dialogue}_utt{turn}.wav", _HERTZ[split] + turn)
                times = ("00:00:01,000", "00:00:01,500")
                text = f"{split} {dialogue} {turn}"
                emotion = ("joy", "anger")[turn]
                rows.append([text, "Ann", emotion, str(dialogue), str(turn), "1", "1", *times])
        write_manifest(root / f"{split}_sent_emo.csv", rows, _HEADER.split(","))
    return root


def pitches(prepared: Prepared) -> dict[str, set[int]]:
    """Of each split the pitch of its rows' clips, to the nearest of the three."""
    found: dict[str, set[int]] = {}
    for row in prepared.rows:
        wave, rate = soundfile.read(row["audio"])
        hertz = float(np.argmax(np.abs(np.fft.rfft(wave)))) * rate / len(wave)
        near = min(_HERTZ.values(), key=lambda one: abs(one - hertz))
        found.setdefault(row["split"], set()).add(near)
    return found


@pytest.mark.parametrize(
    "folders",
    [
        _PUBLISHED,
        {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_test"},
        # Each name holds another split's in its letters: latest, contest, device, restrained.
        {split: f"latest/{folder}" for split, folder in _PUBLISHED.items()},
        {"train": "latest/train", "dev": "contest-device/dev", "test": "restrained/test"},
        {"train": "a/Train Splits", "dev": "a/Dev-Splits", "test": "a/TEST"},
        # A folder of one split that stands in another's: the inner one counts.
        {"train": "train", "dev": "train/dev", "test": "train/dev/test"},
        {"train": "train_dev_test/train", "dev": "train_dev_test/dev", "test": "train_test/test"},
    ],
)
def test_each_split_has_its_own_clips(tmp_path: Path, folders: dict[str, str]) -> None:
    prepared, _ = prepare_meld(write_meld(tmp_path / "m", folders), tmp_path / "manifest.csv")
    assert pitches(prepared) == {split: {hertz} for split, hertz in _HERTZ.items()}
    assert len(prepared.rows) == 12


def test_clips_whose_folder_names_no_split_are_left_out_by_name(tmp_path: Path) -> None:
    folder = write_meld(tmp_path / "m", {**_PUBLISHED, "test": "latest"})
    with pytest.raises(ManifestError) as caught:
        prepare_meld(folder, tmp_path / "manifest.csv")
    assert caught.value.faults == (
        "test_sent_emo.csv: none of its 4 utterances has a clip; expected diaN_uttM.wav, .flac or"
        " .mp4 in a folder with the word 'test' in its name",
    )
    (folder / "test_sent_emo.csv").unlink()
    prepared, _ = prepare_meld(folder, tmp_path / "manifest.csv")
    why = "clips in no folder of a split"
    assert prepared.account.left_out[why][0] == "latest/dia0_utt0.wav"


def test_two_files_for_one_clip_are_one_fault_that_names_both(tmp_path: Path) -> None:
    folder = write_meld(tmp_path / "m", _PUBLISHED)
    shutil.copytree(folder / "train", folder / "train_denoised")
    tone(folder / "train_denoised" / "train_splits" / "dia0_utt1.wav", 300)
    with pytest.raises(ManifestError) as caught:
        prepare_meld(folder, tmp_path / "manifest.csv")
    assert caught.value.faults == (
        "two files for one clip: train/train_splits/dia0_utt1.wav and"
        f" train_denoised/train_splits/dia0_utt1.wav; move the one that does not count out of"
        f" {folder}",
    )
    shutil.copy(
        folder / "train" / "train_splits" / "dia0_utt1.wav",
        folder / "train_denoised" / "train_splits" / "dia0_utt1.wav",
    )
    prepared, _ = prepare_meld(folder, tmp_path / "manifest.csv")
    same = prepared.account.left_out["clips that are there twice, with the same content"]
    assert len(same) == 4


def test_a_sound_file_goes_before_the_film_it_was_taken_from(tmp_path: Path) -> None:
    folder = write_meld(tmp_path / "m", _PUBLISHED)
    (folder / "train" / "train_splits" / "dia0_utt0.mp4").write_bytes(b"film")
    prepared, pending = prepare_meld(folder, tmp_path / "manifest.csv")
    assert pending == []
    assert prepared.account.left_out == {
        "clips in another format too, .wav is read": [
            "train/train_splits/dia0_utt0.mp4, beside train/train_splits/dia0_utt0.wav"
        ]
    }


def test_a_clip_far_longer_than_its_times_is_left_out_as_it_holds_other_lines(
    tmp_path: Path,
) -> None:
    folder = write_meld(tmp_path / "m", _PUBLISHED)
    tone(folder / "train" / "train_splits" / "dia1_utt0.wav", 200, 20.0)
    tone(folder / "train" / "train_splits" / "dia0_utt0.wav", 200, 3.0)
    prepared, _ = prepare_meld(folder, tmp_path / "manifest.csv")
    assert prepared.account.left_out == {
        "clips far longer than their times, which hold other lines too": [
            "train_sent_emo.csv line 4 (dia1_utt0): 20.0 s, its times say 0.5 s"
        ]
    }
    assert prepared.account.noted["clips that no row was made of"] == [
        "train dia1_utt0: train/train_splits/dia1_utt0.wav"
    ]


def test_ai_hub_clips_of_one_name_in_two_folders_are_a_fault(tmp_path: Path) -> None:
    folder = write_ai_hub(tmp_path / "hub")
    tone(folder / "more" / "F_000001.wav", 900)
    with pytest.raises(
        ManifestError, match=r"two files for one clip: F_000001\.wav and more/F_000001\.wav; move"
    ):
        prepare_ai_hub(folder)
