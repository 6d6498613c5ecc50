"""Text with who speaks before each turn, and of up to 16 turns: features of their own, cut where
the model's limit is, the oldest turns first.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from mmm.cli.app import app
from mmm.encoders.extract import encode_text
from mmm.encoders.make import make_text_encoder, text_encoder_of
from mmm.features.encode_command import encode_command
from mmm.features.keys import keys_of
from mmm.features.named import find_store
from mmm.features.recipe import CONTEXTS, MAX_CONTEXT, recipe_hash
from mmm.features.store import DamagedStore, list_recipes, open_store
from mmm.manifest import speech_key, text_key, turns_of, with_speaker
from mmm.training.features import load_features
from tests.conftest import Corpus, encode, small_text_encoder
from tests.encode_parts import run_printed
from tests.mmm.encoders.test_text_families import FAMILIES, expected_of, tokens_of

BERT = FAMILIES["bert"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("bert")
    BERT.save(folder, 512)
    return folder


def test_a_line_has_who_speaks_before_it_and_none_where_nobody_knows(corpus: Corpus) -> None:
    assert with_speaker("MONICA", "Hi!") == "MONICA: Hi!"
    assert with_speaker("", "Hi!") == "Hi!"
    manifest = corpus.manifest
    now, before = manifest.utterances[2], manifest.utterances[1]
    assert turns_of(manifest, 2, 2, with_speakers=True) == [
        f"{now.speaker}: {now.text}",
        f"{before.speaker}: {before.text}",
    ]


def test_keys_without_speakers_are_those_of_before_and_those_with_are_others(
    corpus: Corpus,
) -> None:
    manifest, indices = corpus.manifest, range(40)
    for context in (1, 3):
        plain = keys_of(manifest, {"kind": "text", "context": context})
        named = keys_of(manifest, {"kind": "text", "context": context, "speakers": True})
        assert plain == [text_key(manifest, index, context) for index in indices]
        assert plain == find_store(corpus.features_dir, "text", context=context).keys.tolist()
        assert not set(plain) & set(named)
    assert keys_of(manifest, {"kind": "audio"}) == [speech_key(manifest, i) for i in indices]


def test_features_with_speakers_are_stores_of_their_own_that_are_trained_on(
    corpus: Corpus, tmp_path: Path
) -> None:
    words = ["encode", str(corpus.manifest.path), "--features", str(tmp_path), "--context", "1,3"]
    words += ["--frame-rate", "10", "--num-mels", "16", "--text-width", "32"]
    done = CliRunner().invoke(app, [*words, "--with-speakers"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    recipes = {path.name: recipe for path, recipe in list_recipes(tmp_path).items()}
    of_text = [recipe for recipe in recipes.values() if recipe["kind"] == "text"]
    assert [recipe["speakers"] for recipe in of_text] == [True, True]
    assert not set(recipes) & {
        path.name for path, recipe in list_recipes(corpus.features_dir).items() if recipe in of_text
    }
    # A store of the same without speakers has the name that it had before there were any.
    plain = {name: value for name, value in of_text[0].items() if name != "speakers"}
    assert (corpus.features_dir / recipe_hash(plain)).is_dir()  # type: ignore[arg-type]
    features = load_features(corpus.manifest, tmp_path, "hidden_state", 3)
    encoder = text_encoder_of(features.text.recipe)
    for index, row in enumerate(features.text_rows.tolist()):
        found = features.text.values[features.text.offsets[row] : features.text.offsets[row + 1]]
        turns = turns_of(corpus.manifest, index, 3, with_speakers=True)
        np.testing.assert_array_equal(found, encoder.encode(turns).astype(np.float16))
    command = encode_command("m.csv", "f", list_recipes(tmp_path).values())
    assert command.endswith("--text-width 32 --with-speakers --context 1,3")


def test_what_is_missing_of_features_with_speakers_is_made_with_the_printed_command(
    corpus: Corpus, tmp_path: Path
) -> None:
    encode(corpus.manifest, tmp_path)
    for path, recipe in list_recipes(tmp_path).items():
        if recipe["kind"] == "text":
            for file in path.iterdir():
                file.unlink()
            path.rmdir()
    list(encode_text(corpus.manifest, tmp_path, small_text_encoder(), (1, 2), with_speakers=True))
    with pytest.raises(FileNotFoundError) as missing:
        load_features(corpus.manifest, tmp_path, "hidden_state", 9)
    assert "--with-speakers --context 9" in str(missing.value)
    run_printed(str(missing.value))
    load_features(corpus.manifest, tmp_path, "hidden_state", 9)
    file = find_store(tmp_path, "text", context=9).path / "recipe.json"
    content = json.loads(file.read_text())
    del content["speakers"]
    file.write_text(json.dumps(content))
    with pytest.raises(DamagedStore) as damaged:
        list_recipes(tmp_path, corpus.manifest.path)
    run_printed(str(damaged.value))
    load_features(corpus.manifest, tmp_path, "hidden_state", 9)


def test_any_context_up_to_16_can_be_encoded_and_1_to_5_are_where_nothing_is_said(
    corpus: Corpus, tmp_path: Path
) -> None:
    assert (CONTEXTS, MAX_CONTEXT) == ((1, 2, 3, 4, 5), 16)
    list(encode_text(corpus.manifest, tmp_path, small_text_encoder(), (16,)))
    (store,) = (open_store(path) for path in list_recipes(tmp_path))
    assert store.recipe == {**small_text_encoder().recipe(), "context": 16}
    longest = max(range(40), key=lambda index: len(corpus.manifest.history(index, 16)))
    turns = turns_of(corpus.manifest, longest, 16)
    assert len(turns) == 8  # a whole dialogue
    row = store.find([text_key(corpus.manifest, longest, 16)])[0]
    found = store.values[store.offsets[row] : store.offsets[row + 1]]
    np.testing.assert_array_equal(found, small_text_encoder().encode(turns).astype(np.float16))


@pytest.mark.parametrize("positions", [512, 200, 64])
def test_a_model_reads_what_it_has_positions_for_and_the_oldest_turns_are_cut(
    tmp_path: Path, positions: int
) -> None:
    """Up to context 5 at most 128 tokens, as published; of more turns at most 512, of which 128 are
    kept. What is cut is cut within a turn.
    """
    torch.manual_seed(0)
    BERT.save(tmp_path, positions)
    base = make_text_encoder(str(tmp_path))
    turns = ["okay no okay", *(["no okay no no okay " * 9] * 15)]
    for context in (1, 5, 6, 16):
        encoder = base.for_context(context)
        most = min(128 if context <= 5 else 512, positions)
        assert encoder.recipe()["max_tokens"] == (128 if context <= 5 else 512)
        tokens = tokens_of(BERT, [turn.strip() for turn in turns[:context]], most)
        assert len(tokens) == min(most, 5 + 46 * (context - 1))
        found = encoder.encode(turns[:context])
        assert len(found) == min(len(tokens), 128) == encoder.num_tokens([turns[:context]])[0]
        expected = expected_of(tmp_path, BERT, tokens)[:128]
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_what_a_longer_context_adds_is_seen_by_the_first_token(bert: Path) -> None:
    encoder = make_text_encoder(str(bert))
    turns = ["no", *(["okay no okay " * 12] * 9)]
    other = [*turns[:-1], "no no no"]  # beyond 128 tokens
    found, changed = (encoder.for_context(10).encode(one) for one in (turns, other))
    assert found.shape == changed.shape == (128, 12)
    assert np.abs(found[0] - changed[0]).max() > 1e-5
    cut, same = (encoder.for_context(5).encode(one) for one in (turns, other))
    np.testing.assert_array_equal(cut, same)


def test_stores_of_short_and_long_contexts_come_from_one_encoder_again(
    corpus: Corpus, bert: Path, tmp_path: Path
) -> None:
    list(encode_text(corpus.manifest, tmp_path, make_text_encoder(str(bert)), (5, 8)))
    for recipe in list_recipes(tmp_path).values():
        encoder = text_encoder_of(recipe)
        assert {**encoder.recipe(), "context": recipe["context"]} == recipe
    command = encode_command("m.csv", "f", list_recipes(tmp_path).values())
    assert "--max-tokens" not in command
    assert command.endswith("--context 5,8")


def test_the_oldest_words_are_cut_of_a_built_in_encoder_too() -> None:
    encoder = make_text_encoder("char-ngram", width=32, max_tokens=48)
    turns = ["now this", *(f"turn {number} of many" for number in range(15))]
    found = encoder.encode(turns)
    assert len(found) == encoder.num_tokens([turns])[0] == 48
    # The first token has every word; of the others those of the oldest turns are not kept.
    shorter = encoder.encode(turns[:12])
    np.testing.assert_array_equal(found[1:], shorter[1:])
    assert np.abs(found[0] - shorter[0]).max() > 1e-3
