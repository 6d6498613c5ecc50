"""From manifest to stores: encoded once, kept while nothing changes, and nothing half-written."""

import fcntl
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mmm.audio.sound import AudioError, SoundInfo
from mmm.audio.speech import describe_conversions, read_speech
from mmm.encoders.extract import Progress, encode_speech, encode_text
from mmm.encoders.make import (
    make_speech_encoder,
    make_text_encoder,
    speech_encoder_of,
    text_encoder_of,
)
from mmm.features.clips import BadFiles
from mmm.features.named import find_store
from mmm.features.recipe import AUDIO_FEATURES
from mmm.features.store import FeatureStore, list_recipes
from mmm.manifest import Manifest, turns_of
from mmm.manifest_csv import read_manifest
from mmm.training.features import load_features
from tests.conftest import (
    CONTEXTS,
    SAMPLE_RATE_HZ,
    Corpus,
    encode,
    names_in,
    small_speech_encoder,
    small_text_encoder,
    write_corpus,
    write_wav,
)


@pytest.fixture
def own(corpus: Corpus, tmp_path: Path) -> Corpus:
    """A copy of the session's corpus and its features that a test may change."""
    shutil.copytree(corpus.manifest.path.parent, tmp_path / "own")
    return Corpus(read_manifest(tmp_path / "own" / "manifest.csv"), tmp_path / "own" / "features")


def row_of(store: FeatureStore, row: int) -> np.ndarray:  # type: ignore[type-arg]
    return store.values[store.offsets[row] : store.offsets[row + 1]]


def written(features_dir: Path) -> dict[str, int]:
    """When each store's values were written, in ns."""
    return {file.parent.name: file.stat().st_mtime_ns for file in features_dir.glob("*/values.npy")}


def visible(folder: Path) -> list[str]:
    return [name for name in names_in(folder) if name != ".lock"]


@pytest.mark.parametrize("feature", AUDIO_FEATURES)
def test_stored_speech_is_what_the_encoder_gives(corpus: Corpus, feature: str) -> None:
    features, encoder = corpus.features(feature), small_speech_encoder()
    for index, utterance in enumerate(corpus.manifest.utterances):
        expected = encoder.encode(read_speech(corpus.manifest.audio_path(utterance)), [feature])[
            feature
        ]
        found = row_of(features.speech, int(features.speech_rows[index]))
        np.testing.assert_array_equal(found, expected.astype(np.float16))
    assert features.speech.width == (16 if feature == "extract_feature" else 48)


@pytest.mark.parametrize("context", CONTEXTS)
def test_stored_text_is_what_the_encoder_gives_for_the_turn_and_those_before(
    corpus: Corpus, context: int
) -> None:
    features, encoder = corpus.features(context=context), small_text_encoder()
    for index in range(len(corpus.manifest.utterances)):
        expected = encoder.encode(turns_of(corpus.manifest, index, context)).astype(np.float16)
        np.testing.assert_array_equal(
            row_of(features.text, int(features.text_rows[index])), expected
        )


def test_turns_are_the_current_text_then_those_before_it(corpus: Corpus) -> None:
    texts = [utterance.text for utterance in corpus.manifest.utterances]
    assert turns_of(corpus.manifest, 2, 3) == [texts[2], texts[1], texts[0]]
    assert turns_of(corpus.manifest, 0, 3) == [texts[0]]
    assert texts[4] == ""


def test_encoding_again_writes_nothing(own: Corpus) -> None:
    before = written(own.features_dir)
    assert len(before) == 5
    progress = encode(own.manifest, own.features_dir)
    assert written(own.features_dir) == before
    assert [p for p in progress if p.task == "speech"][-1].done == 40


def test_a_changed_wav_is_encoded_again(own: Corpus) -> None:
    before = written(own.features_dir)
    old = own.features("extract_feature")
    write_wav(own.manifest.audio_path(own.manifest.utterances[7]), 0.5, 900.0, seed=99)
    encode(own.manifest, own.features_dir)
    new = own.features("extract_feature")
    texts = {recipe for recipe in before if written(own.features_dir)[recipe] == before[recipe]}
    assert len(texts) == 3
    for index in range(40):
        same = np.array_equal(
            row_of(old.speech, int(old.speech_rows[index])),
            row_of(new.speech, int(new.speech_rows[index])),
        )
        assert same == (index != 7)


def test_a_changed_text_is_missed_until_it_is_encoded_again(own: Corpus) -> None:
    path = own.manifest.path
    path.write_text(path.read_text().replace("turn 0", "a new turn 0", 1))
    changed = read_manifest(path)
    with pytest.raises(
        ValueError,
        match=(
            r"no text features for 1 of 40 utterances of .*\(the first: 'u00'\), was the manifest "
            r"changed\? run: mmm encode"
        ),
    ):
        load_features(changed, own.features_dir, "hidden_state", 1)
    encode(changed, own.features_dir)
    load_features(changed, own.features_dir, "hidden_state", 1)


def test_a_second_manifest_keeps_the_features_of_the_first(own: Corpus, tmp_path: Path) -> None:
    def values(of: Corpus) -> list[np.ndarray]:  # type: ignore[type-arg]
        features = of.features(context=2)
        pairs = ((features.speech, features.speech_rows), (features.text, features.text_rows))
        return [row_of(store, int(row)) for store, rows in pairs for row in rows]

    before = values(own)
    second = Corpus(write_corpus(tmp_path / "second", prefix="second-"), own.features_dir)
    encode(second.manifest, own.features_dir)
    assert len(values(second)) == 80
    for one, other in zip(before, values(own), strict=True):
        np.testing.assert_array_equal(one, other)
    stamp = written(own.features_dir)
    for corpus in (own, second):
        encode(corpus.manifest, own.features_dir)
    assert written(own.features_dir) == stamp


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def not_finite(path: Path) -> None:
    wave = np.zeros(8000, dtype=np.float32)
    wave[5] = np.nan
    soundfile.write(path, wave, SAMPLE_RATE_HZ, subtype="FLOAT")


def without_samples(path: Path) -> None:
    soundfile.write(path, np.zeros(0), SAMPLE_RATE_HZ)


def no_audio(path: Path) -> None:
    path.write_text("this is not audio")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncate, r"truncated: the header promises \d+ bytes of samples, \d+ are there"),
        (not_finite, r"samples that are not finite numbers"),
        (without_samples, r"no samples"),
        (no_audio, r"cannot be read as audio \("),
    ],
)
def test_a_spoilt_wav_is_refused_by_name_and_leaves_no_folder(
    own: Corpus, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    utterance = own.manifest.utterances[20]
    path = own.manifest.audio_path(utterance)
    spoil(path)
    with pytest.raises(AudioError, match=rf"{utterance.audio}: {message}"):
        read_speech(path)
    features_dir = tmp_path / "features"
    with pytest.raises(
        BadFiles,
        match=(
            rf"1 of 40 audio files cannot be used; repair them, or leave them out with mmm encode"
            rf" --skip-bad\n"
            rf"  utterance '{utterance.utterance_id}' \({utterance.audio}\): .*{message}"
        ),
    ):
        list(encode_speech(own.manifest, features_dir, small_speech_encoder(), AUDIO_FEATURES))
    assert visible(features_dir) == []


def test_a_missing_wav_is_refused_by_name_and_leaves_no_folder(own: Corpus, tmp_path: Path) -> None:
    path = own.manifest.audio_path(own.manifest.utterances[20])
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"{path}: no such audio file"):
        read_speech(path)
    with pytest.raises(FileNotFoundError, match=f"{path}: no such audio file"):
        list(
            encode_speech(
                own.manifest, tmp_path / "features", small_speech_encoder(), AUDIO_FEATURES
            )
        )
    assert not (tmp_path / "features").exists() or visible(tmp_path / "features") == []


@pytest.mark.parametrize("encode_one", ["speech", "text"])
def test_encoding_that_is_abandoned_shows_no_store_and_goes_on_where_it_was(
    corpus: Corpus, tmp_path: Path, encode_one: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "mmm.encoders.jobs._LOOP_BUDGET", 2.0
    )  # a batch is small: 40 utterances are several

    def start() -> Iterator[Progress]:
        if encode_one == "speech":
            return encode_speech(
                corpus.manifest, tmp_path / "features", small_speech_encoder(), AUDIO_FEATURES
            )
        return encode_text(corpus.manifest, tmp_path / "features", small_text_encoder(), CONTEXTS)

    progress = start()
    first = next(step for step in progress if step.task != "checking audio" and step.done)
    assert 0 < first.done < 40
    progress.close()  # type: ignore[attr-defined]
    assert list_recipes(tmp_path / "features") == {}
    rest = [step for step in start() if step.task == first.task]
    assert first.done <= rest[0].done < rest[-1].done == 40
    for path in list_recipes(tmp_path / "features"):
        for file in names_in(path):
            assert (path / file).read_bytes() == (
                corpus.features_dir / path.name / file
            ).read_bytes(), file
    assert visible(tmp_path / "features") == sorted(
        path.name for path in list_recipes(tmp_path / "features")
    )


def test_a_second_writer_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    with open(tmp_path / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for progress in (
            encode_speech(corpus.manifest, tmp_path, small_speech_encoder(), AUDIO_FEATURES),
            encode_text(corpus.manifest, tmp_path, small_text_encoder(), CONTEXTS),
        ):
            with pytest.raises(
                ValueError,
                match="another mmm encode is writing here; wait for it or use another folder",
            ):
                next(progress)


def test_stereo_at_44100_hz_becomes_mono_at_16000_hz(tmp_path: Path) -> None:
    time_s = np.arange(44_100) / 44_100
    tone = 0.5 * np.sin(2 * np.pi * 440 * time_s)
    soundfile.write(
        tmp_path / "stereo.wav", np.stack([tone, 0.5 * tone], axis=1), 44_100, subtype="FLOAT"
    )
    found = read_speech(tmp_path / "stereo.wav")
    assert (found.shape, found.dtype) == ((16_000,), np.float32)
    expected = 0.375 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    np.testing.assert_allclose(found[200:-200], expected[200:-200], atol=2e-3)


@pytest.mark.parametrize(
    ("coding", "expected"),
    [
        ("WAV PCM 16", "44100 Hz stereo"),
        ("WAV PCM 24", "44100 Hz stereo 24-bit"),
        ("FLAC PCM_24", "44100 Hz stereo 24-bit"),
        ("AIFF PCM_S8", "44100 Hz stereo 8-bit"),
        ("WAV mu-law 8", "44100 Hz stereo mu-law 8"),
        ("OGG VORBIS", "44100 Hz stereo vorbis"),
    ],
)
def test_a_format_is_said_in_words(coding: str, expected: str) -> None:
    assert SoundInfo(1, 44_100, 2, coding).describe() == expected


def test_rare_formats_are_counted_together() -> None:
    files = [
        SoundInfo(1, rate_hz, 1, "WAV PCM 16")
        for rate_hz in (8_000, 8_000, *range(22_050, 22_058), 16_000)
    ]
    assert (
        describe_conversions(files)
        == "converted 10 of 11 files to 16 kHz mono: 2 from 8000 Hz mono, 1 from 22050 Hz mono, 1"
        " from 22051 Hz mono, 1 from 22052 Hz mono, 1 from 22053 Hz mono, 1 from 22054 Hz mono,"
        " 3 from other formats"
    )


def test_flac_reads_as_wav_does(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", 0.4, 300.0, seed=0)
    wave, rate_hz = soundfile.read(tmp_path / "a.wav", dtype="int16")
    soundfile.write(tmp_path / "a.flac", wave, rate_hz)
    np.testing.assert_array_equal(read_speech(tmp_path / "a.flac"), read_speech(tmp_path / "a.wav"))


def test_one_clip_may_serve_several_utterances(own: Corpus, tmp_path: Path) -> None:
    path = own.manifest.path
    path.write_text(path.read_text().replace("wav/01.wav", "wav/00.wav"))
    shared = Corpus(read_manifest(path), tmp_path / "features")
    encode(shared.manifest, shared.features_dir)
    features = shared.features()
    rows = [row_of(features.speech, int(features.speech_rows[index])) for index in (0, 1)]
    np.testing.assert_array_equal(*rows)


def speech_only(manifest: Manifest, features_dir: Path, frame_rate: float) -> None:
    list(
        encode_speech(
            manifest,
            features_dir,
            make_speech_encoder("fbank", frame_rate=frame_rate),
            AUDIO_FEATURES,
        )
    )


def test_features_that_are_missing_are_named_with_what_is_there_and_what_to_run(
    corpus: Corpus,
) -> None:
    with pytest.raises(
        FileNotFoundError,
        match=r"no text features for context=5 in .*features/ \(found: 1, 2, 3\); run: mmm "
        r"encode .*manifest\.csv --features .*features --frame-rate 10 --num-mels 16 "
        r"--text-width 32 --context 5",
    ):
        corpus.features(context=5)


def test_of_two_encoders_in_one_folder_one_has_to_be_named(own: Corpus) -> None:
    speech_only(own.manifest, own.features_dir, frame_rate=20)
    with pytest.raises(
        ValueError,
        match=r"holds speech features of several encoders \(fbank-10hz, fbank-20hz\); say which:"
        r" --speech fbank-10hz",
    ):
        find_store(own.features_dir, "audio", feature="hidden_state")
    for rate in (10, 20):
        store = find_store(
            own.features_dir, "audio", feature="hidden_state", name=f"fbank-{rate}hz"
        )
        assert store.recipe["frame_rate_hz"] == rate


def test_a_recipe_gives_the_same_encoder_again(corpus: Corpus) -> None:
    features = corpus.features(context=2)
    wave = read_speech(corpus.manifest.audio_path(corpus.manifest.utterances[0]))
    again = speech_encoder_of(features.speech.recipe).encode(wave, ["hidden_state"])["hidden_state"]
    np.testing.assert_array_equal(
        again, small_speech_encoder().encode(wave, ["hidden_state"])["hidden_state"]
    )
    turns = turns_of(corpus.manifest, 2, 2)
    np.testing.assert_array_equal(
        text_encoder_of(features.text.recipe).encode(turns), small_text_encoder().encode(turns)
    )


def test_a_recipe_of_another_version_is_refused(corpus: Corpus) -> None:
    features = corpus.features()
    for make, recipe in (
        (speech_encoder_of, features.speech.recipe),
        (text_encoder_of, features.text.recipe),
    ):
        with pytest.raises(
            ValueError, match=r"is not the one that made the features \(version: 1 instead of 0\)"
        ):
            make(recipe | {"version": 0})


@pytest.mark.parametrize("num_samples", [1, 100, 1599, 1600, 1601, 16_000])
def test_speech_of_any_length_has_frames(num_samples: int) -> None:
    wave = np.random.default_rng(0).normal(size=num_samples).astype(np.float32)
    found = small_speech_encoder().encode(wave, AUDIO_FEATURES)
    assert (
        1 <= len(found["hidden_state"]) == len(found["extract_feature"]) <= num_samples // 1600 + 1
    )
    assert all(np.isfinite(values).all() for values in found.values())


def test_text_has_a_token_a_word_and_at_most_128() -> None:
    encoder = small_text_encoder()
    assert encoder.encode([""]).shape == (1, 32)
    assert encoder.encode(["정말 좋아!"]).shape == (1 + 3, 32)
    assert encoder.encode(["now", "just before", "then"]).shape == (1 + 1 + 1 + 2 + 1 + 1, 32)
    assert encoder.encode(["word " * 500]).shape == (128, 32)
    assert not np.array_equal(encoder.encode(["a", "b"])[0], encoder.encode(["b", "a"])[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: make_speech_encoder("fbank", frame_rate=30),
            "--frame-rate 30 does not divide 100; try 50, 25, 20",
        ),
        (lambda: make_speech_encoder("fbank", frame_rate=0), "--frame-rate 0 does not divide 100"),
        (
            lambda: make_speech_encoder("fbank", num_mels=4),
            "--num-mels 4 is out of range; expected 8 to 128",
        ),
        (
            lambda: make_text_encoder("char-ngram", width=8),
            "--text-width 8 is out of range; expected 16 to 4096",
        ),
    ],
)
def test_encoder_settings_out_of_range_are_refused(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make()
