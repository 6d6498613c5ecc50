"""`voice` against numbers of the package that its weights are from, its layers, and what it says
where the weights are not there.
"""

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import mmm
from benchmarks.voice_reference import some, waves_by_formula
from mmm.bundle.write import save_run_bundle
from mmm.cli.app import app
from mmm.encoders.encodings import kept_frame_rate
from mmm.encoders.make import make_speech_encoder, speech_encoder_of
from mmm.encoders.voice import Voice
from mmm.features.named import find_store
from mmm.features.recipe import recipe_hash
from mmm.features.store import list_recipes
from mmm.training.features import load_features
from tests.conftest import Corpus, trained
from tests.encode_parts import run_printed

_ROOT = Path(__file__).parents[3]
LAYERS = ("1", "2", "3", "projection")
ALL = [f"hidden_state@{layer}" for layer in LAYERS]


def noise(num_samples: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).normal(0, 0.05, num_samples).astype(np.float32)


@pytest.fixture(scope="module")
def voice() -> Voice:
    encoder = Voice()
    encoder.load()
    return encoder


@pytest.mark.parametrize("wave", ["quiet", "loud"])
def test_frames_and_vectors_are_the_packages_own(voice: Voice, wave: str) -> None:
    """The numbers are of Resemblyzer 0.1.4 and librosa 0.10 (benchmarks/voice_reference.py)."""
    reference = json.loads((_ROOT / "tests/data/voice_reference.json").read_text())
    found = voice.encode(waves_by_formula()[wave], ALL)
    values = {layer: found[f"hidden_state@{layer}"] for layer in LAYERS}
    mean = values["projection"].mean(axis=0)
    values["utterance"] = mean / np.linalg.norm(mean)
    for name, own in values.items():
        expected = reference[f"{wave}/{name}"]
        assert list(own.shape) == expected["shape"], name
        np.testing.assert_allclose(some(own), expected["some"], rtol=0, atol=2e-5, err_msg=name)


def test_frames_are_known_before_encoding_and_finite_even_of_silence(voice: Voice) -> None:
    means = Voice(frame_rate=12.5)
    for num_samples in (0, 1, 159, 160, 400, 25_599, 25_600, 44_639, 44_640, 44_800, 60_001):
        for wave in (noise(num_samples), np.zeros(num_samples, dtype=np.float32)):
            for feature, values in voice.encode(wave, ALL).items():
                expected = (voice.num_frames(num_samples, feature), voice.width(feature))
                assert values.shape == expected, (num_samples, feature)
                assert np.isfinite(values).all()
                kept = -(-len(values) // means.frames_per_mean(feature))
                assert means.num_frames(num_samples, feature) == kept


def test_quiet_speech_is_made_louder_and_loud_speech_stays(voice: Voice) -> None:
    quiet, quieter, loud = (
        voice.encode(noise(8_000) * np.float32(gain), ["hidden_state"])["hidden_state"]
        for gain in (0.1, 0.01, 4.0)
    )
    np.testing.assert_allclose(quieter, quiet, atol=1e-5)
    assert np.abs(loud - quiet).max() > 0.1


def test_several_layers_come_from_one_pass_and_each_is_the_layer_asked_for_alone(
    voice: Voice,
) -> None:
    wave = noise(30_000)
    together = voice.encode(wave, ALL)
    for layer in LAYERS:
        alone, name = Voice(layer=layer), f"hidden_state@{layer}"
        np.testing.assert_array_equal(
            alone.encode(wave, ["hidden_state"])["hidden_state"], together[name]
        )
        assert alone.recipe("hidden_state") == voice.recipe(name)
    assert voice.recipe("hidden_state") == voice.recipe("hidden_state@3")
    assert len({recipe_hash(voice.recipe(feature)) for feature in ALL}) == 4
    norms = np.linalg.norm(together["hidden_state@projection"], axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-6)


def test_a_batch_gives_what_single_files_give(voice: Voice) -> None:
    waves = [noise(length, seed) for seed, length in enumerate((30_000, 1, 48_000, 9_999))]
    for wave, found in zip(waves, voice.encode_batch(waves, ALL), strict=True):
        for feature, alone in voice.encode(wave, ALL).items():
            np.testing.assert_allclose(found[feature], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("layer", ["last", "1", "projection"])
@pytest.mark.parametrize("frame_rate", [None, 25.0])
def test_a_recipe_makes_the_same_encoder_again(layer: str, frame_rate: float | None) -> None:
    made = make_speech_encoder("voice", layer=layer, frame_rate=frame_rate)
    recipe = made.recipe("hidden_state")
    assert recipe.get("frame_rate_hz") == (None if layer == "projection" else frame_rate)
    again = speech_encoder_of(recipe)
    assert again.recipe("hidden_state") == recipe
    np.testing.assert_array_equal(
        again.encode(noise(9_000), ["hidden_state"])["hidden_state"],
        made.encode(noise(9_000), ["hidden_state"])["hidden_state"],
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "4"}, "--layer '4': encoder 'voice' has 1, 2, 3, projection and last, which"),
        ({"layer": "1,2"}, "--layer '1,2': encoder 'voice' has"),
        ({"frame_rate": 30.0}, "--frame-rate 30 does not divide the 100 frames a second of enc"),
        ({"frame_rate": 200.0}, "--frame-rate 200 does not divide"),
        ({"frame_rate": -1.0}, "--frame-rate -1 does not divide"),
    ],
)
def test_what_it_cannot_do_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make_speech_encoder("voice", **options)


def test_it_gives_no_extract_feature(voice: Voice) -> None:
    for ask in (voice.width, voice.recipe, lambda feature: voice.num_frames(1, feature)):
        with pytest.raises(ValueError, match="no convolutional features; use --audio-feature hid"):
            ask("extract_feature")


def test_where_the_weights_are_missing_the_command_that_installs_them_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(
        FileNotFoundError,
        match=(
            r"^encoder 'voice' needs the weights that come in the package resemblyzer 0\.1\.4,"
            r" which is not installed; run: "
        ),
    ) as caught:
        Voice()
    command = shlex.split(str(caught.value).partition("; run: ")[2])
    assert command == [*(sys.executable, "-m", "pip", "install", "--no-deps", "resemblyzer==0.1.4")]
    pinned = (_ROOT / "constraints.txt").read_text().splitlines()
    assert command[-1] in pinned  # and so `make install` takes the same


def test_other_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "resemblyzer-0.1.4.dist-info").mkdir()
    (tmp_path / "resemblyzer-0.1.4.dist-info" / "METADATA").write_text("Name: resemblyzer\n")
    (tmp_path / "resemblyzer").mkdir()
    (tmp_path / "resemblyzer" / "pretrained.pt").write_bytes(b"others")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        ValueError,
        match=(
            r"pretrained\.pt: not the weights of resemblyzer 0\.1\.4 \(SHA-256 [0-9a-f]{64},"
            r" expected [0-9a-f]{64}\); run: .* --force-reinstall --no-deps resemblyzer==0\.1\.4$"
        ),
    ):
        Voice()


def encode(*words: str) -> str:
    done = CliRunner().invoke(app, ["encode", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_mmm_encode_needs_no_other_option_and_its_errors_repair_themselves(
    corpus: Corpus, tmp_path: Path
) -> None:
    features, manifest = tmp_path / "features", str(corpus.manifest.path)
    to_it = (manifest, "--features", str(features), "--audio-encoder", "voice", "--context", "1")
    encode(*to_it)
    store = find_store(features, "audio", feature="hidden_state")
    assert store.recipe == Voice(frame_rate=12.5).recipe("hidden_state")
    assert (store.width, store.recipe["layer"]) == (256, "3")
    made = set(list_recipes(features))
    with pytest.raises(FileNotFoundError, match=r"no text features for context=2 ") as caught:
        load_features(corpus.manifest, features, "hidden_state", 2)
    run_printed(str(caught.value))
    assert len(set(list_recipes(features)) - made) == 1


@pytest.mark.parametrize("options", [["--layer", "1", "--frame-rate", "0"], ["projection"]])
def test_a_bundle_on_it_predicts(corpus: Corpus, tmp_path: Path, options: list[str]) -> None:
    options = ["--layer", *options] if len(options) == 1 else options
    features, manifest = tmp_path / "features", corpus.manifest
    encode(
        *(str(manifest.path), "--features", str(features)),
        *("--audio-encoder", "voice", "--context", "1", *options),
    )
    run = trained(Corpus(manifest, features), "vanilla_concat", lr=1e-2, context=1)
    save_run_bundle(run, tmp_path / "bundle", name="b")
    found = mmm.load(tmp_path / "bundle").predict(manifest.audio_path(manifest.utterances[2]), "a")
    assert sum(found.values()) == pytest.approx(1)


def test_a_projection_in_the_folder_says_nothing_of_the_frame_rate(
    corpus: Corpus, tmp_path: Path
) -> None:
    features = tmp_path / "features"
    to_it = (str(corpus.manifest.path), "--features", str(features), "--context", "1")
    encode(*to_it, "--audio-encoder", "voice", "--layer", "projection")
    assert kept_frame_rate(features, "voice", None) == 12.5
    encode(*to_it, "--audio-encoder", "voice", "--frame-rate", "50")
    assert kept_frame_rate(features, "voice", None) == 50.0
    assert kept_frame_rate(features, "voice", 0) is None
