"""A speech model in the place of a text model, or the other way round, is refused before anything
is encoded, with a command that puts it where it belongs. Real classes with tiny random weights.
"""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)
from typer.testing import CliRunner

from mmm.cli.app import app
from mmm.encoders.make import make_speech_encoder, make_text_encoder
from mmm.encoders.pretrained import WrongEncoder
from mmm.features.store import list_recipes
from mmm.manifest_csv import read_manifest
from mmm.training.features import load_features
from tests.conftest import Corpus
from tests.encode_parts import run_printed
from tests.mmm.encoders.test_huggingface import SPEECH
from tests.mmm.encoders.test_text_families import save_bert


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    Wav2Vec2Model(Wav2Vec2Config(**SPEECH)).save_pretrained(folder / "wav2vec2")
    Wav2Vec2FeatureExtractor().save_pretrained(folder / "wav2vec2")
    parts = ("encoder_layers", "decoder_layers", "encoder_attention_heads")
    heads = dict.fromkeys((*parts, "decoder_attention_heads"), 2)
    sizes = {"d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "vocab_size": 8}
    ids = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0)
    config = WhisperConfig(
        **heads, **sizes, **ids, decoder_start_token_id=1, max_source_positions=1500
    )
    WhisperModel(config).save_pretrained(folder / "whisper")
    WhisperFeatureExtractor().save_pretrained(folder / "whisper")
    save_bert(folder / "a bert", 512)
    return {name: folder / name for name in ("wav2vec2", "whisper", "a bert")}


@pytest.fixture
def own(corpus: Corpus, tmp_path: Path) -> Corpus:
    """Not encoded yet, and of two utterances: enough here."""
    shutil.copytree(corpus.manifest.path.parent, tmp_path / "own")
    shutil.rmtree(tmp_path / "own" / "features")
    path = tmp_path / "own" / "manifest.csv"
    header, *rows = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([header, rows[0], rows[25]]) + "\n", encoding="utf-8")
    return Corpus(read_manifest(path), tmp_path / "own" / "features")


def test_each_says_what_it_found(models: dict[str, Path]) -> None:
    for name in ("whisper", "wav2vec2"):
        with pytest.raises(
            WrongEncoder, match=rf"is a speech model \({name}\); expected a text model"
        ):
            make_text_encoder(str(models[name]), lazy=True).load(weights=False)
    with pytest.raises(
        WrongEncoder, match=r"is a text model \(bert\); expected one of wav2vec2, hubert, "
    ):
        make_speech_encoder(str(models["a bert"]), lazy=True).load(weights=False)
    with pytest.raises(WrongEncoder, match="'fbank' is a speech encoder; expected a text encoder"):
        make_text_encoder("fbank")
    with pytest.raises(
        WrongEncoder, match="'char-ngram' is a text encoder; expected a speech encoder"
    ):
        make_speech_encoder("char-ngram")


@pytest.mark.parametrize(
    ("options", "speech", "text"),
    [
        (("--text-encoder", "whisper"), "whisper", "char-ngram"),
        (("--audio-encoder", "a bert"), "fbank", "a bert"),
        (("--audio-encoder", "a bert", "--text-encoder", "wav2vec2"), "wav2vec2", "a bert"),
        (("--audio-encoder", "wav2vec2", "--text-encoder", "whisper"), "wav2vec2", "char-ngram"),
        (("--audio-encoder", "char-ngram", "--text-encoder", "fbank"), "fbank", "char-ngram"),
        (("--audio-encoder", "char-ngram", "--text-encoder", "a bert"), "fbank", "a bert"),
        (("--audio-encoder", "a bert", "--layer", "9"), "fbank", "a bert"),
    ],
)
def test_the_printed_command_puts_it_where_it_belongs(
    own: Corpus, models: dict[str, Path], options: tuple[str, ...], speech: str, text: str
) -> None:
    given = [str(models.get(word, word)) for word in options]
    words = ["encode", str(own.manifest.path), "--features", str(own.features_dir), *given]
    words += ["--context", "1,2", "--with-speakers", "--precision", "float32"]
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, ValueError)
    message = str(done.exception)
    assert "; run: mmm encode " in message
    assert not own.features_dir.exists()  # not one file was encoded
    run_printed(message)
    recipes = list_recipes(own.features_dir).values()
    assert {recipe["encoder"] for recipe in recipes if recipe["kind"] == "audio"} == {
        str(models.get(speech, speech))
    }
    assert {
        (recipe["encoder"], recipe["context"], recipe["speakers"])
        for recipe in recipes
        if recipe["kind"] == "text"
    } == {(str(models.get(text, text)), context, True) for context in (1, 2)}
    load_features(own.manifest, own.features_dir, "hidden_state", 2)


def test_what_cannot_be_put_anywhere_is_refused_all_the_same(
    own: Corpus, tmp_path: Path, models: dict[str, Path]
) -> None:
    """A model that reads pictures."""
    shutil.copytree(models["a bert"], tmp_path / "odd")
    config = tmp_path / "odd" / "config.json"
    config.write_text(config.read_text().replace('"model_type": "bert"', '"model_type": "vit"'))
    for option, expected in (
        ("--audio-encoder", "odd' is a vit; expected one of wav2vec2"),
        ("--text-encoder", "odd' is a vit; expected a text model; run: mmm encode"),
    ):
        words = ["encode", str(own.manifest.path), "--features", str(own.features_dir)]
        done = CliRunner().invoke(app, [*words, option, str(tmp_path / "odd")])
        assert isinstance(done.exception, ValueError)
        assert expected in str(done.exception)
        assert not own.features_dir.exists()
