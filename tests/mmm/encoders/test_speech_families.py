"""Each family of speech models: frames and seconds, batches, layers, long recordings. Real classes,
tiny random weights.
"""

import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    Data2VecAudioConfig,
    Data2VecAudioModel,
    HubertConfig,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from mmm.encoders import Running
from mmm.encoders.encodings import Encoding, kept_frame_rate
from mmm.encoders.extract import encode_speech
from mmm.encoders.huggingface_speech import HuggingFaceSpeech
from mmm.encoders.make import make_speech_encoder, speech_encoder_of
from mmm.encoders.options import EncodeOptions
from mmm.encoders.windows import Convolutions, windows
from mmm.features.named import find_store
from mmm.features.store import list_recipes
from mmm.training.features import load_features
from tests.conftest import SAMPLE_RATE_HZ, Corpus
from tests.encode_parts import run_printed
from tests.mmm.encoders.test_huggingface import SPEECH, save_speech_model

pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched:UserWarning")
DEEP = SPEECH | {"num_hidden_layers": 4}
STABLE = DEEP | {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
WHISPER_WINDOW = 16_000  # samples; 30 s in the real ones


def save_whisper(folder: Path) -> Path:
    config = WhisperConfig(
        d_model=16,
        encoder_layers=3,
        encoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=24,
        num_mel_bins=8,
        max_source_positions=50,
        max_target_positions=8,
        vocab_size=16,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    WhisperModel(config).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=8, chunk_length=1).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("families")
    data2vec = {name: value for name, value in DEEP.items() if not name.startswith("num_conv_pos")}
    models = {
        "wav2vec2": Wav2Vec2Model(Wav2Vec2Config(**DEEP)),
        "wav2vec2-layer-norm": Wav2Vec2Model(Wav2Vec2Config(**STABLE)),
        "hubert": HubertModel(HubertConfig(**DEEP)),
        "hubert-layer-norm": HubertModel(HubertConfig(**STABLE)),
        "wavlm": WavLMModel(WavLMConfig(**DEEP)),
        "wavlm-layer-norm": WavLMModel(WavLMConfig(**STABLE)),
        "data2vec-audio": Data2VecAudioModel(
            Data2VecAudioConfig(**data2vec, num_conv_pos_embeddings=2, conv_pos_kernel_size=5)
        ),
        "adapter": Wav2Vec2Model(
            Wav2Vec2Config(**STABLE, add_adapter=True, num_adapter_layers=2, output_hidden_size=16)
        ),
    }
    found = {name: save_speech_model(folder / name, model) for name, model in models.items()}
    return found | {"whisper": save_whisper(folder / "whisper")}


FAMILIES = (
    "wav2vec2",
    "wav2vec2-layer-norm",
    "hubert",
    "hubert-layer-norm",
    "wavlm",
    "wavlm-layer-norm",
    "data2vec-audio",
    "adapter",
    "whisper",
)
MASKED = ("wav2vec2-layer-norm", "hubert-layer-norm", "wavlm-layer-norm", "whisper")


def noise(num_samples: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).normal(0, 0.1, num_samples).astype(np.float32)


def make(folder: Path, **options: Any) -> HuggingFaceSpeech:
    encoder = make_speech_encoder(str(folder), **options)
    assert isinstance(encoder, HuggingFaceSpeech)
    return encoder


def features_of(name: str) -> list[str]:
    return (
        ["hidden_state"]
        if name.startswith(("hubert", "whisper"))
        else ["hidden_state", "extract_feature"]
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_frames_and_widths_are_known_before_encoding(saved: dict[str, Path], name: str) -> None:
    encoder = make(saved[name])
    for num_samples in (1, 399, 400, 719, 720, 5_000, 15_999, 16_000, 16_001, 24_321):
        for feature, values in encoder.encode(noise(num_samples), features_of(name)).items():
            expected = (encoder.num_frames(num_samples, feature), encoder.width(feature))
            assert values.shape == expected, (num_samples, feature)
            assert np.isfinite(values).all()


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "adapter"])
def test_a_second_has_fifty_frames(saved: dict[str, Path], name: str) -> None:
    """Convolutions see 400 samples, so that the last of the 50 lacks 80; Whisper pads."""
    encoder = make(saved[name])
    assert encoder.num_frames(10 * SAMPLE_RATE_HZ, "hidden_state") == (
        500 if name == "whisper" else 499
    )


def test_an_adapter_halves_the_frames_of_hidden_states_alone(saved: dict[str, Path]) -> None:
    encoder = make(saved["adapter"])
    assert (
        encoder.num_frames(16_000, "extract_feature"),
        encoder.num_frames(16_000, "hidden_state"),
    ) == (49, 13)


def test_a_frame_tells_of_its_own_time(saved: dict[str, Path]) -> None:
    """A click changes the convolutional features where it is and nowhere else."""
    encoder = make(saved["data2vec-audio"])  # without a norm over time
    wave = noise(16_000)
    clicked = wave.copy()
    clicked[8_000] += 1e-3
    one, other = (
        encoder._run([w], ["extract_feature"])[0]["extract_feature"] for w in (wave, clicked)
    )
    changed = np.flatnonzero(np.abs(one - other).max(axis=1))
    # Frame t sees the samples from 320 t to 320 t + 400.
    assert changed.tolist() == [t for t in range(49) if 320 * t <= 8_000 < 320 * t + 400]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_batch_gives_what_single_files_give(saved: dict[str, Path], name: str) -> None:
    encoder = make(saved[name])
    assert encoder.batching == ("masked" if name in MASKED else "equal")
    lengths = (
        (400, 3_000, 9_999, 16_000, 20_000)
        if encoder.batching == "masked"
        else (9_999, 9_999, 9_999)
    )
    waves = [noise(length, seed) for seed, length in enumerate(lengths)]
    together = encoder.encode_batch(waves, features_of(name))
    for wave, found in zip(waves, together, strict=True):
        for feature, alone in encoder.encode(wave, features_of(name)).items():
            np.testing.assert_allclose(
                found[feature], alone, rtol=0, atol=1e-3 * np.abs(alone).max()
            )


@pytest.mark.parametrize("name", ["wav2vec2", "data2vec-audio"])
def test_padding_does_change_what_is_batched_by_equal_lengths_alone(
    saved: dict[str, Path], name: str
) -> None:
    """The reason for the rule: were this not so, these models could be padded too."""
    encoder = make(saved[name])
    encoder.batching = "masked"
    waves = [noise(5_000, 1), noise(16_000, 2)]
    found, alone = (
        encoder.encode_batch(waves, ["hidden_state"])[0],
        encoder.encode(waves[0], ["hidden_state"]),
    )
    assert (
        np.abs(found["hidden_state"] - alone["hidden_state"]).max()
        > 1e-3 * np.abs(alone["hidden_state"]).max()
    )


@pytest.mark.parametrize(
    "name", ["wav2vec2", "wav2vec2-layer-norm", "hubert", "wavlm", "data2vec-audio"]
)
def test_layers_are_the_hidden_states_of_the_whole_model(saved: dict[str, Path], name: str) -> None:
    whole = make(saved[name])
    wave = noise(6_000)
    with torch.inference_mode():
        states = whole.model(
            torch.from_numpy(whole._normal(wave))[None], output_hidden_states=True
        ).hidden_states
    states = [state[0].numpy() for state in states]
    for layer, expected in (
        ("0", states[0]),
        ("2", states[2]),
        ("4", states[4]),
        ("1,3", np.concatenate([states[1], states[3]], axis=1)),
        ("mean:1-3", np.mean([states[1], states[2], states[3]], axis=0)),
    ):
        encoder = make(saved[name], layer=layer)
        found = encoder.encode(wave, ["hidden_state"])["hidden_state"]
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert encoder.width("hidden_state") == found.shape[1]
        assert encoder.recipe("hidden_state")["layer"] == layer.replace("1-3", "1,2,3")
        assert "layer" not in encoder.recipe("extract_feature")


def test_a_layer_of_whisper_is_its_encoders(saved: dict[str, Path]) -> None:
    whole = make(saved["whisper"])
    found = make(saved["whisper"], layer="3").encode(noise(4_000), ["hidden_state"])["hidden_state"]
    np.testing.assert_allclose(
        found, whole.encode(noise(4_000), ["hidden_state"])["hidden_state"], atol=1e-5
    )
    assert not np.allclose(
        found,
        make(saved["whisper"], layer="1").encode(noise(4_000), ["hidden_state"])["hidden_state"],
        atol=1e-3,
    )


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("5", r"--layer 5: encoder '.*wav2vec2' has layers 0 to 4"),
        (
            "6-",
            r"--layer '6-' is not understood; expected last, a layer \(9\), several side by side",
        ),
        ("9-6", r"--layer '9-6' is not understood"),
        ("1,1", r"--layer '1,1' names a layer twice"),
        ("max:1", r"--layer 'max:1' is not understood"),
    ],
)
def test_layers_that_cannot_be_are_refused(
    saved: dict[str, Path], layer: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(saved["wav2vec2"], layer=layer)


def test_whisper_takes_long_speech_in_its_windows(saved: dict[str, Path]) -> None:
    encoder = make(saved["whisper"])
    wave = noise(2 * WHISPER_WINDOW + 5_000)
    found = encoder.encode(wave, ["hidden_state"])["hidden_state"]
    parts = [
        encoder.encode(wave[start : start + WHISPER_WINDOW], ["hidden_state"])["hidden_state"]
        for start in range(0, len(wave), WHISPER_WINDOW)
    ]
    np.testing.assert_allclose(found, np.concatenate(parts), atol=1e-5)
    assert len(found) == 50 + 50 + 16


def test_whispers_shorter_windows_are_the_same_model_on_less_silence(
    saved: dict[str, Path],
) -> None:
    """The reference is transformers' own class, made with so many positions."""
    folder, wave = saved["whisper"], noise(3_000)
    whole = make(folder, layer="2")
    short = make(folder, layer="2", running=Running(padding_s=0.0))
    assert [short._padded_length(count) for count in (0, 1, 8_000, 8_001)] == [
        8000,
        8000,
        8000,
        16000,
    ]
    config = WhisperConfig.from_pretrained(folder, max_source_positions=25)
    reference = WhisperEncoder(config).eval()
    state = whole.model.state_dict()
    positions = state["embed_positions.weight"][:25]
    state = make(folder).model.state_dict() | {"embed_positions.weight": positions}
    reference.load_state_dict(state)
    mel = whole.extractor(
        wave, sampling_rate=16_000, max_length=8_000, return_tensors="pt"
    ).input_features
    with torch.inference_mode():
        expected = reference(mel, output_hidden_states=True).hidden_states[2][0, :10].numpy()
    found = short.encode(wave, ["hidden_state"])["hidden_state"]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(found - whole.encode(wave, ["hidden_state"])["hidden_state"]).max() > 1e-4
    # Where speech and silence fill the window, it is the whole one.
    np.testing.assert_array_equal(
        make(folder, running=Running(padding_s=0.9)).encode(wave, ["hidden_state"])["hidden_state"],
        make(folder).encode(wave, ["hidden_state"])["hidden_state"],
    )


def test_a_batch_in_whispers_shorter_windows_gives_what_single_files_give(
    saved: dict[str, Path],
) -> None:
    encoder = make(saved["whisper"], running=Running(padding_s=0.1))
    waves = [noise(length, length) for length in (1, 12_000, 500, 40_000, 16_000, 6_000)]
    together = encoder.encode_batch(waves, ["hidden_state"])
    for wave, found in zip(waves, together, strict=True):
        alone = encoder.encode(wave, ["hidden_state"])["hidden_state"]
        assert len(alone) == encoder.num_frames(len(wave), "hidden_state")
        np.testing.assert_allclose(found["hidden_state"], alone, rtol=0, atol=1e-5)


def test_less_silence_is_another_recipe_and_all_of_it_is_the_recipe_of_before(
    saved: dict[str, Path],
) -> None:
    before = make(saved["whisper"]).recipe("hidden_state")
    assert "padding_s" not in before
    short = make(saved["whisper"], running=Running(padding_s=0.5)).recipe("hidden_state")
    assert short == before | {"padding_s": 0.5}
    assert speech_encoder_of(short).recipe("hidden_state") == short
    with pytest.raises(
        ValueError,
        match=r"--whisper-padding 2 is for Whisper alone; encoder '.*hubert' is a hubert, and its",
    ):
        make(saved["hubert"], running=Running(padding_s=2.0))


def test_long_speech_is_stitched_without_a_frame_twice_or_missing(saved: dict[str, Path]) -> None:
    """data2vec's convolutions have no norm over time: their stitched features are those of the
    whole.
    """
    whole = make(saved["data2vec-audio"])
    chunked = make(saved["data2vec-audio"], running=Running(chunk_s=6.0))
    wave = noise(int(23.7 * SAMPLE_RATE_HZ))
    features = ["hidden_state", "extract_feature"]
    one, other = whole.encode(wave, features), chunked.encode(wave, features)
    np.testing.assert_allclose(one["extract_feature"], other["extract_feature"], atol=1e-5)
    assert one["hidden_state"].shape == other["hidden_state"].shape
    assert chunked.recipe("hidden_state")["chunk_s"] == 6.0
    short = noise(int(6.0 * SAMPLE_RATE_HZ))
    np.testing.assert_array_equal(
        whole.encode(short, features)["hidden_state"],
        chunked.encode(short, features)["hidden_state"],
    )


@pytest.mark.parametrize("num_samples", [96_000, 96_001, 96_320, 130_000, 200_000, 999_999])
def test_windows_take_each_frame_once_and_far_from_a_cut(num_samples: int) -> None:
    convolutions = Convolutions((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))
    assert (convolutions.hop, convolutions.receptive) == (320, 400)
    limit, overlap = 96_000, 64_000
    cut = windows(num_samples, convolutions, limit=limit, overlap=overlap)
    taken = [frame for window in cut for frame in range(window.first, window.end)]
    assert taken == list(range(convolutions.num_frames(num_samples)))
    for number, window in enumerate(cut):
        assert window.start_sample == 320 * window.start_frame
        assert window.end_sample - window.start_sample <= limit
        assert window.end - window.start_frame <= convolutions.num_frames(
            window.end_sample - window.start_sample
        )
        if number:
            assert 320 * window.first - window.start_sample >= overlap // 2 - 320
        if number < len(cut) - 1:
            assert window.end_sample - 320 * window.end >= overlap // 2 - 320


def test_another_family_is_refused(tmp_path: Path) -> None:
    from transformers import UniSpeechConfig, UniSpeechModel

    folder = save_speech_model(tmp_path / "other", UniSpeechModel(UniSpeechConfig(**SPEECH)))
    with pytest.raises(
        ValueError,
        match=(
            r"other' is a unispeech; expected one of wav2vec2, hubert, wavlm, data2vec-audio,"
            r" whisper"
        ),
    ):
        make(folder)


def test_bf16_is_near_float32_and_another_recipe(saved: dict[str, Path]) -> None:
    plain, half = (
        make(saved["wav2vec2-layer-norm"]),
        make(saved["wav2vec2-layer-norm"], running=Running(precision="bf16")),
    )
    one, other = (
        encoder.encode(noise(8_000), ["hidden_state"])["hidden_state"] for encoder in (plain, half)
    )
    assert 0 < np.abs(one - other).max() < 0.1 * np.abs(one).max()
    assert (
        plain.recipe("hidden_state")["precision"],
        half.recipe("hidden_state")["precision"],
    ) == ("float32", "bf16")


@pytest.mark.parametrize(
    "words",
    [
        ["--audio-feature", "hidden_state"],
        ["--layer", "mean:1-2", "--precision", "bf16", "--chunk-seconds", "5"],
        ["--whisper-padding", "0.5", "--layer", "2"],
    ],
)
def test_the_printed_command_has_all_of_a_pretrained_encoder(
    corpus: Corpus, saved: dict[str, Path], tmp_path: Path, words: list[str]
) -> None:
    """HuBERT, which has no convolutional features; a Wav2Vec2 and a Whisper otherwise than by
    default.
    """
    family = {"--audio-feature": "hubert", "--layer": "wav2vec2"}.get(words[0], "whisper")
    features = tmp_path / "my features"
    run_printed(
        "; run: "
        + shlex.join(
            [
                "mmm",
                "encode",
                str(corpus.manifest.path),
                "--features",
                str(features),
                "--audio-encoder",
                str(saved[family]),
                *words,
                "--context",
                "1",
            ]
        )
    )
    made = {path.name for path in list_recipes(features)}
    if family == "wav2vec2":
        shutil.rmtree(find_store(features, "audio", feature="extract_feature").path)
        with pytest.raises(
            FileNotFoundError,
            match=r"no audio features for feature=extract_feature .*; run: mmm encode ",
        ) as caught:
            load_features(corpus.manifest, features, "extract_feature", 1)
        run_printed(str(caught.value))
        assert {path.name for path in list_recipes(features)} == made
    with pytest.raises(FileNotFoundError, match=r"no text features for context=2 ") as caught:
        load_features(corpus.manifest, features, "hidden_state", 2)
    run_printed(str(caught.value))
    added = {path.name for path in list_recipes(features)} - made
    assert [list_recipes(features)[features / name]["context"] for name in added] == [2]
    load_features(corpus.manifest, features, "hidden_state", 2)


@pytest.mark.parametrize("name", ["hubert", "whisper", "wav2vec2"])
def test_without_audio_feature_what_the_encoder_has_is_kept(
    saved: dict[str, Path], name: str
) -> None:
    options = EncodeOptions(audio_encoder=str(saved[name]))
    encoding = Encoding("speech", options)
    assert encoding.speech_features(options.make_speech()) == features_of(name)
    asked = replace(encoding, options=replace(options, audio_feature="extract_feature"))
    # Which may be refused.
    assert asked.speech_features(options.make_speech()) == ["extract_feature"]


@pytest.mark.parametrize("name", ["wav2vec2-layer-norm", "whisper", "adapter"])
def test_at_a_frame_rate_a_store_keeps_means_of_neighbours_and_pools_every_frame(
    saved: dict[str, Path], name: str, corpus: Corpus, tmp_path: Path
) -> None:
    rate = 12.5 / (4 if name == "adapter" else 1)
    whole, kept = make(saved[name]), make(saved[name], frame_rate=rate)
    for encoder, folder in ((whole, tmp_path / "whole"), (kept, tmp_path / "kept")):
        list(encode_speech(corpus.manifest, folder, encoder, ["hidden_state"]))
    stores = [
        find_store(tmp_path / folder, "audio", feature="hidden_state")
        for folder in ("whole", "kept")
    ]
    assert ("frame_rate_hz" in stores[0].recipe, stores[1].recipe["frame_rate_hz"]) == (False, rate)
    np.testing.assert_array_equal(stores[1].pooled, stores[0].pooled)
    for row in range(len(stores[0].keys)):
        frames, means = (
            store.values[store.offsets[row] : store.offsets[row + 1]] for store in stores
        )
        assert len(means) == -(-len(frames) // 4)
        expected = [
            frames[start : start + 4].astype(np.float32).mean(axis=0)
            for start in range(0, len(frames), 4)
        ]
        np.testing.assert_allclose(means, np.array(expected), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("rate", [30.0, 100.0, -1.0])
def test_a_frame_rate_that_does_not_divide_the_encoders_is_refused(
    saved: dict[str, Path], rate: float
) -> None:
    encoder = make(saved["whisper"], frame_rate=rate, lazy=True)
    with pytest.raises(
        ValueError,
        match=(
            rf"--frame-rate {rate:g} does not divide the 50 frames a second of encoder '.*whisper';"
            r" try 50 or 25"
        ),
    ):
        encoder.load(weights=False)


def test_the_frame_rate_is_the_folders_own_else_12_5_and_0_is_every_frame(
    saved: dict[str, Path], corpus: Corpus, tmp_path: Path
) -> None:
    folder, name = tmp_path / "features", str(saved["whisper"])
    assert kept_frame_rate(folder, name, None) == 12.5
    assert kept_frame_rate(folder, name, 0) is None
    assert kept_frame_rate(folder, "published", None) is None
    assert (kept_frame_rate(folder, "fbank", None), kept_frame_rate(folder, "fbank", 10)) == (
        None,
        10,
    )
    list(encode_speech(corpus.manifest, folder, make(saved["whisper"]), ["hidden_state"]))
    assert kept_frame_rate(folder, name, None) is None  # the same command adds to its stores
    assert kept_frame_rate(folder, str(saved["wavlm"]), None) == 12.5
