"""The demo corpus: made the same for a seed, sound, and such that speech, text and context each
matter.
"""

import hashlib
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mmm.corpora.generated.demo import SAMPLE_RATE_HZ, make_demo_corpus
from mmm.encoders.extract import encode_speech, encode_text
from mmm.encoders.make import make_speech_encoder, make_text_encoder
from mmm.manifest import EMOTIONS, Manifest
from mmm.manifest_csv import read_manifest
from mmm.training.config import make_config
from mmm.training.features import load_features
from mmm.training.fit import fit
from mmm.training.run import begin
from tests.conftest import names_in
from tests.search.cluster.test_storage import can_mount


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return read_manifest(make_demo_corpus(tmp_path_factory.mktemp("corpus") / "demo"))


@pytest.mark.skipif(not can_mount(), reason="a small disk cannot be mounted")
def test_a_full_disk_is_told_of_and_no_part_of_a_corpus_is_left(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "none", tmp_path], check=True)
    try:
        with pytest.raises(OSError, match="No space left on device") as found:
            make_demo_corpus(tmp_path / "demo", num_sessions=3)
        assert found.value.filename == str(tmp_path / "demo")
        assert names_in(tmp_path) == []
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_seed_always_gives_the_same_corpus(tmp_path: Path) -> None:
    for name, seed in (("once", 5), ("again", 5), ("other", 6)):
        make_demo_corpus(tmp_path / name, num_sessions=3, seed=seed)
    assert contents(tmp_path / "once") == contents(tmp_path / "again")
    assert (
        contents(tmp_path / "once")["manifest.csv"] != contents(tmp_path / "other")["manifest.csv"]
    )


def test_the_manifest_has_no_faults_and_about_a_thousand_utterances(manifest: Manifest) -> None:
    assert manifest.path.name == "manifest.csv"
    assert 900 <= len(manifest.utterances) <= 1200
    assert manifest.classes == EMOTIONS


def test_every_split_has_enough_of_every_emotion_and_neutral_most(manifest: Manifest) -> None:
    for rows in (manifest.rows("train"), manifest.rows("dev"), manifest.sealed_test_rows()):
        counts = {
            name: sum(manifest.utterances[row].emotions == (name,) for row in rows)
            for name in EMOTIONS
        }
        assert min(counts.values()) >= 15, counts
        assert max(counts, key=lambda name: counts[name]) == "neutral"


@pytest.mark.parametrize("seed", range(1, 6))
def test_eight_sessions_are_enough_for_every_emotion_in_every_split(
    tmp_path: Path, seed: int
) -> None:
    small = read_manifest(make_demo_corpus(tmp_path / "demo", num_sessions=8, seed=seed))
    for rows in (small.rows("train"), small.rows("dev"), small.sealed_test_rows()):
        assert {name for row in rows for name in small.utterances[row].emotions} == set(EMOTIONS)


def test_splits_share_no_speaker(manifest: Manifest) -> None:
    homes: dict[str, set[str]] = {}
    for utterance in manifest.utterances:
        homes.setdefault(utterance.speaker, set()).add(utterance.split)
    assert len(homes) == 48
    assert all(len(splits) == 1 for splits in homes.values())


def test_speech_is_16_bit_mono_of_a_second_or_so(manifest: Manifest) -> None:
    for utterance in manifest.utterances[::20]:
        about = soundfile.info(manifest.audio_path(utterance))
        assert (about.samplerate, about.channels, about.subtype) == (SAMPLE_RATE_HZ, 1, "PCM_16")
        assert 0.6 <= about.duration <= 2.0
        wave, _ = soundfile.read(manifest.audio_path(utterance))
        assert 0.001 < np.sqrt(np.mean(wave**2)) < 0.5


def test_a_demo_corpus_is_replaced(tmp_path: Path) -> None:
    make_demo_corpus(tmp_path / "demo", num_sessions=4)
    found = make_demo_corpus(tmp_path / "demo", num_sessions=3)
    assert {utterance.session for utterance in read_manifest(found).utterances} == {
        "session01",
        "session02",
        "session03",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


@pytest.mark.parametrize("foreign", ["notes.txt", "audio/notes.txt", "manifest.csv"])
def test_a_foreign_folder_is_refused_and_untouched(tmp_path: Path, foreign: str) -> None:
    (tmp_path / "mine" / foreign).parent.mkdir(parents=True)
    (tmp_path / "mine" / foreign).write_text("keep me")
    with pytest.raises(ValueError, match="not empty and not just a demo corpus"):
        make_demo_corpus(tmp_path / "mine", num_sessions=3)
    assert list(contents(tmp_path / "mine")) == [foreign]
    assert (tmp_path / "mine" / foreign).read_text() == "keep me"
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("foreign", ["features/recipe.json", "audio/mine.flac"])
def test_a_demo_corpus_with_something_added_is_refused_and_untouched(
    tmp_path: Path, foreign: str
) -> None:
    folder = tmp_path / "demo"
    make_demo_corpus(folder, num_sessions=3)
    (folder / foreign).parent.mkdir(exist_ok=True)
    (folder / foreign).write_text("{}")
    before = contents(folder)
    with pytest.raises(
        ValueError, match=r"not just a demo corpus \(found: .*(features|mine\.flac)"
    ):
        make_demo_corpus(folder, num_sessions=3)
    assert contents(folder) == before


def test_a_relabelled_demo_corpus_is_refused_and_untouched(tmp_path: Path) -> None:
    manifest_path = make_demo_corpus(tmp_path / "demo", num_sessions=3)
    manifest_path.write_text(manifest_path.read_text().replace("neutral", "happy"))
    before = contents(tmp_path / "demo")
    with pytest.raises(ValueError, match=r"manifest\.csv is not as written"):
        make_demo_corpus(tmp_path / "demo", num_sessions=3)
    assert contents(tmp_path / "demo") == before


def test_a_file_in_the_way_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("keep me")
    with pytest.raises(ValueError, match="a file is in the way"):
        make_demo_corpus(tmp_path / "demo")
    assert (tmp_path / "demo").read_text() == "keep me"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_sessions": 2}, "num_sessions=2 is out of range; expected 3 to 999"),
        ({"seed": -1}, "seed=-1 is out of range"),
    ],
)
def test_bad_numbers_are_refused_and_leave_nothing(
    tmp_path: Path, settings: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_demo_corpus(tmp_path / "demo", **settings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_speech_text_and_context_each_raise_macro_f1(manifest: Manifest, tmp_path: Path) -> None:
    for _ in encode_speech(
        manifest, tmp_path, make_speech_encoder("fbank", frame_rate=10.0), ["hidden_state"]
    ):
        pass
    for _ in encode_text(manifest, tmp_path, make_text_encoder("char-ngram"), [1, 3]):
        pass

    def score(**changes: object) -> float:
        settings = {
            "architecture": "vanilla_concat",
            "context": 3,
            "epochs": 9,
            "batch_size": 32,
            "lr": 1e-3,
            "width": 128,
            "classifier_hidden": 128,
            "dropout": 0.2,
            **changes,
        }
        best = []
        for seed in (1, 2):
            config = make_config({**settings, "seed": seed})
            run = begin(config, load_features(manifest, tmp_path, *config.features_key))
            best.append(max(result.metrics["macro_f1"] for result in fit(run)))
        return sum(best) / len(best)

    full = score()
    assert 0.6 < full < 0.95
    assert full - score(inputs="text") >= 0.05, "dropping speech"
    assert full - score(inputs="speech") >= 0.05, "dropping text"
    assert full - score(context=1) >= 0.05, "dropping context"
