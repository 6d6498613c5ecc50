"""Hugging Face encoders: transformers' own classes with tiny random weights, saved to folders."""

import contextlib
import os
import pickle
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    BertTokenizerFast,
    ElectraConfig,
    ElectraModel,
    HubertConfig,
    HubertModel,
    PreTrainedModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
)

from mmm.audio.speech import read_speech
from mmm.bundle.read import load_bundle
from mmm.bundle.write import save_run_bundle
from mmm.encoders.extract import encode_speech, encode_text
from mmm.encoders.make import (
    make_speech_encoder,
    make_text_encoder,
    speech_encoder_of,
    text_encoder_of,
)
from mmm.features.recipe import AUDIO_FEATURES
from mmm.predict.predictor import Predictor
from mmm.training.evaluate import probabilities
from tests.conftest import SAMPLE_RATE_HZ, Corpus, trained

WAV2VEC2_HOP = 320  # samples
SPEECH: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "vocab_size": 8,
}
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "그래",
    "좋아",
    "싫어",
    "슬퍼",
    "okay",
    "great",
    "no",
    "turn",
    "!",
    ",",
]
WORDS += [
    f"{prefix}{letter}"
    for prefix in ("", "##")
    for letter in "0123456789abcdefghijklmnopqrstuvwxyz"
]
CPU = torch.device("cpu")


def save_speech_model(
    folder: Path, model: PreTrainedModel, *, sampling_rate: int = SAMPLE_RATE_HZ
) -> Path:
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(
        sampling_rate=sampling_rate, do_normalize=True, return_attention_mask=True
    ).save_pretrained(folder)
    return folder


def save_wav2vec2(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    return save_speech_model(folder, Wav2Vec2Model(Wav2Vec2Config(**SPEECH)))


def save_electra(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    config = ElectraConfig(
        vocab_size=len(WORDS),
        embedding_size=8,
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=128,
    )
    ElectraModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def wav2vec2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_wav2vec2(tmp_path_factory.mktemp("models") / "wav2vec2")


@pytest.fixture(scope="module")
def electra(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_electra(tmp_path_factory.mktemp("models") / "electra")


def tone(num_samples: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.sin(np.arange(num_samples) / 7).astype(np.float32)


def test_speech_gives_both_audio_features(wav2vec2: Path) -> None:
    encoder = make_speech_encoder(str(wav2vec2))
    found = encoder.encode(tone(16_000), AUDIO_FEATURES)
    # 49 frames of a second: the convolutions see 400 samples every 320.
    assert {name: values.shape for name, values in found.items()} == {
        "hidden_state": (49, 16),
        "extract_feature": (49, 8),
    }
    assert {values.dtype for values in found.values()} == {np.dtype(np.float32)}
    alone = encoder.encode(tone(16_000), ["extract_feature"])
    np.testing.assert_array_equal(alone["extract_feature"], found["extract_feature"])
    assert list(alone) == ["extract_feature"]


def test_speech_features_are_the_models_own_outputs(wav2vec2: Path) -> None:
    wave = tone(5_000)
    found = make_speech_encoder(str(wav2vec2)).encode(wave, AUDIO_FEATURES)
    normal = (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)
    with torch.no_grad():
        output = Wav2Vec2Model.from_pretrained(wav2vec2).eval()(torch.from_numpy(normal)[None])
    np.testing.assert_allclose(found["hidden_state"], output.last_hidden_state[0], atol=1e-5)
    np.testing.assert_allclose(found["extract_feature"], output.extract_features[0], atol=1e-5)


@pytest.mark.parametrize("num_samples", [1, 200, 399, 400, 719])
def test_speech_shorter_than_a_frame_gives_one_frame(wav2vec2: Path, num_samples: int) -> None:
    found = make_speech_encoder(str(wav2vec2)).encode(tone(num_samples), AUDIO_FEATURES)
    assert [len(values) for values in found.values()] == [1, 1]
    assert np.isfinite(found["hidden_state"]).all()


@pytest.mark.filterwarnings("ignore:Support for mismatched:UserWarning")
def test_wavlm_gives_both_features_and_hubert_says_that_it_has_one(tmp_path: Path) -> None:
    wavlm = make_speech_encoder(
        str(save_speech_model(tmp_path / "wavlm", WavLMModel(WavLMConfig(**SPEECH))))
    )
    assert wavlm.encode(tone(4_000), AUDIO_FEATURES)["extract_feature"].shape == (12, 8)
    hubert = make_speech_encoder(
        str(save_speech_model(tmp_path / "hubert", HubertModel(HubertConfig(**SPEECH))))
    )
    assert hubert.encode(tone(4_000), ["hidden_state"])["hidden_state"].shape == (12, 16)
    with pytest.raises(
        ValueError,
        match=r"hubert' gives no convolutional features; use --audio-feature hidden_state",
    ):
        hubert.encode(tone(4_000), AUDIO_FEATURES)


def test_speech_at_another_rate_is_refused(tmp_path: Path) -> None:
    folder = save_speech_model(
        tmp_path / "low", Wav2Vec2Model(Wav2Vec2Config(**SPEECH)), sampling_rate=8_000
    )
    with pytest.raises(ValueError, match=r"low' wants 8000 Hz speech; expected 16000 Hz"):
        make_speech_encoder(str(folder))


def test_turns_are_joined_by_the_separator_and_cut_at_128_tokens(electra: Path) -> None:
    encoder = make_text_encoder(str(electra))
    found = encoder.encode(["좋아 great!", "그래", "no"])
    ids = [
        WORDS.index(word)
        for word in ("[CLS]", "좋아", "great", "!", "[SEP]", "그래", "[SEP]", "no", "[SEP]")
    ]
    with torch.no_grad():
        expected = (
            ElectraModel.from_pretrained(electra).eval()(torch.tensor([ids])).last_hidden_state[0]
        )
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert encoder.encode([""]).shape == (2, 12)
    assert encoder.encode(["okay " * 500]).shape == (128, 12)


def test_a_recipe_gives_the_same_encoder_again(wav2vec2: Path, electra: Path) -> None:
    speech, text = make_speech_encoder(str(wav2vec2)), make_text_encoder(str(electra))
    for feature in AUDIO_FEATURES:
        again = speech_encoder_of(speech.recipe(feature)).encode(tone(3_000), [feature])[feature]
        np.testing.assert_array_equal(again, speech.encode(tone(3_000), [feature])[feature])
    again = text_encoder_of({**text.recipe(), "context": 3}).encode(["okay", "no"])
    np.testing.assert_array_equal(again, text.encode(["okay", "no"]))


def test_changed_weights_are_refused(tmp_path: Path) -> None:
    folder = save_wav2vec2(tmp_path / "speech")
    recipe = make_speech_encoder(str(folder)).recipe("hidden_state")
    save_wav2vec2(folder, seed=1)
    with pytest.raises(
        ValueError,
        match=(
            r"speech' is not the one that made the features \(files_sha256: '\w+' instead of"
            r" '\w+'\)"
        ),
    ):
        speech_encoder_of(recipe)
    folder = save_electra(tmp_path / "text")
    recipe = make_text_encoder(str(folder)).recipe()
    save_electra(folder, seed=1)
    with pytest.raises(
        ValueError, match=r"text' is not the one that made the features \(files_sha256: "
    ):
        text_encoder_of({**recipe, "context": 1})


@pytest.fixture(scope="module")
def encoded(
    corpus: Corpus, wav2vec2: Path, electra: Path, tmp_path_factory: pytest.TempPathFactory
) -> Corpus:
    features_dir = tmp_path_factory.mktemp("hf") / "features"
    list(
        encode_speech(
            corpus.manifest, features_dir, make_speech_encoder(str(wav2vec2)), AUDIO_FEATURES
        )
    )
    list(encode_text(corpus.manifest, features_dir, make_text_encoder(str(electra)), (2,)))
    return Corpus(corpus.manifest, features_dir)


def test_stored_features_have_the_encoders_widths_and_lengths(encoded: Corpus) -> None:
    hidden, extract = (encoded.features(feature, 2) for feature in AUDIO_FEATURES)
    assert (hidden.speech.width, extract.speech.width, hidden.text.width) == (16, 8, 12)
    np.testing.assert_array_equal(hidden.speech.offsets, extract.speech.offsets)
    wave = read_speech(encoded.manifest.audio_path(encoded.manifest.utterances[0]))
    row = int(hidden.speech_rows[0])
    assert (
        hidden.speech.offsets[row + 1] - hidden.speech.offsets[row]
        == (len(wave) - 400) // WAV2VEC2_HOP + 1
    )


@pytest.mark.parametrize("audio_feature", AUDIO_FEATURES)
@pytest.mark.parametrize("architecture", ["three_way_concat", "mlp_mixer"])
def test_prediction_end_to_end_is_what_evaluation_gives(
    encoded: Corpus, tmp_path: Path, architecture: str, audio_feature: str
) -> None:
    run = trained(encoded, architecture, context=2, audio_feature=audio_feature, lr=1e-2)
    save_run_bundle(run, tmp_path / "bundle", name="hf")
    bundle, manifest = load_bundle(tmp_path / "bundle"), encoded.manifest
    predictor, expected = Predictor(bundle), probabilities(bundle.model, run.dev, CPU)
    for row, index in enumerate(run.dev.indices.tolist()):
        now, *before = (manifest.utterances[place] for place in manifest.history(index, 2))
        history = [(manifest.audio_path(turn), turn.text) for turn in before]
        found = predictor.predict(manifest.audio_path(now), now.text, history)
        np.testing.assert_allclose(list(found.values()), expected[row], rtol=0, atol=1e-3)


def test_an_unknown_id_is_a_clear_error_at_once() -> None:
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    started = time.perf_counter()
    for make in (make_speech_encoder, make_text_encoder):
        with pytest.raises(
            ValueError,
            match=(
                r"encoder 'nobody/no-such-model' cannot be loaded: .*; give a Hugging Face id that"
                r" can be downloaded or is "
                r"cached, the folder of a downloaded model, or a built-in encoder \(fbank,"
                r" voice, char-ngram\)"
            ),
        ):
            make("nobody/no-such-model")
    assert time.perf_counter() - started < 10


def test_a_bundle_whose_hub_encoder_is_not_here_says_how_to_get_it() -> None:
    speech = {
        "kind": "audio",
        "encoder": "nobody/no-such-model",
        "revision": "0123abc",
        "version": 1,
        "feature": "hidden_state",
    }
    with pytest.raises(
        FileNotFoundError,
        match=(
            r"is not on this machine; get it with: hf download nobody/no-such-model --revision"
            r" 0123abc"
        ),
    ):
        speech_encoder_of(speech)
    with pytest.raises(
        FileNotFoundError,
        match=r"is not on this machine; get it with: hf download nobody/no-such-model",
    ):
        text_encoder_of(
            {
                "kind": "text",
                "encoder": "nobody/no-such-model",
                "revision": None,
                "version": 1,
                "max_tokens": 128,
            }
        )


def test_an_encoder_in_a_folder_may_move_and_must_be_the_same(
    wav2vec2: Path, electra: Path, tmp_path: Path
) -> None:
    for encoder, encoder_of, feature, option in (
        (
            make_speech_encoder(str(wav2vec2)),
            speech_encoder_of,
            ["hidden_state"],
            "--audio-encoder",
        ),
        (make_text_encoder(str(electra)), text_encoder_of, [], "--text-encoder"),
    ):
        moved = tmp_path / option
        shutil.copytree(encoder.recipe(*feature)["encoder"], moved)
        recipe = {**encoder.recipe(*feature), "encoder": str(tmp_path / "gone")}
        with pytest.raises(
            FileNotFoundError,
            match=rf"gone: the folder of the encoder .* say where it is: {option} FOLDER",
        ):
            encoder_of(recipe)
        assert encoder_of(recipe, moved).recipe(*feature)["files_sha256"] == recipe["files_sha256"]
        (moved / "config.json").write_text((moved / "config.json").read_text() + " ")
        with pytest.raises(
            ValueError, match=r"is not the one that made the features \(files_sha256: "
        ):
            encoder_of(recipe, moved)


def test_a_folder_without_a_model_is_a_clear_error(tmp_path: Path) -> None:
    for make in (make_speech_encoder, make_text_encoder):
        with pytest.raises(ValueError, match=rf"encoder '{tmp_path}' cannot be loaded: "):
            make(str(tmp_path))


def as_bin(folder: Path) -> Path:
    """Replace the safetensors by the older format."""
    state = Wav2Vec2Model.from_pretrained(folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    return folder


def test_weights_in_the_older_format_load(tmp_path: Path) -> None:
    expected = make_speech_encoder(str(save_wav2vec2(tmp_path / "a"))).encode(
        tone(3_000), AUDIO_FEATURES
    )
    encoder = make_speech_encoder(str(as_bin(save_wav2vec2(tmp_path / "b"))))
    found = encoder.encode(tone(3_000), AUDIO_FEATURES)
    for feature in AUDIO_FEATURES:
        np.testing.assert_allclose(found[feature], expected[feature], atol=1e-6)


@pytest.mark.parametrize("kept", [0, 5, 2_000])
def test_damaged_weights_are_a_clear_error(tmp_path: Path, kept: int) -> None:
    for folder, file in (
        (save_wav2vec2(tmp_path / "new"), "model.safetensors"),
        (as_bin(save_wav2vec2(tmp_path / "old")), "pytorch_model.bin"),
    ):
        (folder / file).write_bytes((folder / file).read_bytes()[:kept])
        with pytest.raises(
            ValueError, match=rf"{folder.name}' cannot be loaded: its weights file is damaged"
        ):
            make_speech_encoder(str(folder))


class _Code:
    """A pickle of this runs `touch` where it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.target}'",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
@pytest.mark.parametrize("plain_pickle", [True, False], ids=["pickle", "torch.save"])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, plain_pickle: bool) -> None:
    folder = as_bin(save_wav2vec2(tmp_path / "model"))
    if plain_pickle:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Code(tmp_path / "ran")))
    else:
        torch.save({"weight": _Code(tmp_path / "ran")}, folder / "pytorch_model.bin")
    with pytest.raises(
        ValueError,
        match=r"model' cannot be loaded: its weights file is damaged, or holds more than weights",
    ):
        make_speech_encoder(str(folder))
    assert not (tmp_path / "ran").exists()
    # The trap works: whoever loads it without care runs it.
    with contextlib.suppress(RuntimeError):
        torch.load(folder / "pytorch_model.bin", weights_only=False)
    assert (tmp_path / "ran").exists()


def test_a_folder_with_code_of_its_own_is_not_run(tmp_path: Path) -> None:
    folder = save_wav2vec2(tmp_path / "model")
    (folder / "own.py").write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
    )
    config = folder / "config.json"
    config.write_text(
        config.read_text()
        .replace('"model_type": "wav2vec2"', '"model_type": "own"')
        .replace("{", '{\n  "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"},', 1)
    )
    with pytest.raises(ValueError, match=r"model' cannot be loaded: "):
        make_speech_encoder(str(folder))
    assert not (tmp_path / "ran").exists()
