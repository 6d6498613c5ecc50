"""Each family of text models: separators, padding, truncation. Real classes and tokenizers built
here, tiny random weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    BertTokenizerFast,
    ElectraConfig,
    ElectraModel,
    RobertaConfig,
    RobertaModel,
    RobertaTokenizer,
    XLMRobertaConfig,
    XLMRobertaModel,
    XLMRobertaTokenizer,
)

from mmm.encoders.extract import encode_speech, encode_text
from mmm.encoders.make import make_speech_encoder, make_text_encoder, text_encoder_of
from mmm.features.encode_command import encode_command
from mmm.manifest import turns_of
from mmm.training.features import load_features
from tests.conftest import Corpus
from tests.mmm.encoders.test_huggingface import WORDS

SIZE = {
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
LETTERS = "abcdefghijklmnopqrstuvwxyz"
BERT_SPECIAL = ("[CLS]", "[SEP]")
ROBERTA_SPECIAL = ("<s>", "</s>")
# Ids 0 to 3 as in the published models: RoBERTa's positions are counted from the padding token's
# id.
ROBERTA_FIRST = ["<s>", "<pad>", "</s>", "<unk>"]
BYTES = [
    *map(chr, range(33, 127)),
    *map(chr, range(161, 173)),
    *map(chr, range(174, 256)),
    *map(chr, range(256, 324)),
]
BYTE_PAIRS = [*ROBERTA_FIRST, *BYTES, "no", "ok", "<mask>"]
PIECES = [*ROBERTA_FIRST, "▁좋아", "▁그래", "▁no", "▁okay", "▁", *LETTERS, "<mask>"]


@dataclass(frozen=True)
class Family:
    """How a tiny model of a family is saved, and its vocabulary in the order of ids."""

    save: Callable[[Path, int], None]
    vocabulary: Sequence[str]
    special: tuple[str, str]  # first token, separator
    words: Callable[[str], list[str]]  # tokens of an utterance of lower-case words, by hand


def by_word(text: str) -> list[str]:
    return text.split()


def by_piece(text: str) -> list[str]:
    return [f"▁{word}" for word in text.split()]


def by_bytes(text: str) -> list[str]:
    """One letter a token but for "no" and "ok"; a space is Ġ."""
    for pair in ("no", "ok"):
        text = text.replace(pair, f"|{pair}|")
    parts = [part for part in text.replace(" ", "Ġ").split("|") if part]
    return [token for part in parts for token in ([part] if part in ("no", "ok") else part)]


def bert_tokenizer(folder: Path, words: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=False).save_pretrained(folder)


def save_bert(folder: Path, positions: int) -> None:
    BertModel(
        BertConfig(vocab_size=len(WORDS), max_position_embeddings=positions, **SIZE)
    ).save_pretrained(folder)
    bert_tokenizer(folder, WORDS)


def save_electra(folder: Path, positions: int) -> None:
    config = ElectraConfig(
        vocab_size=len(WORDS), embedding_size=8, max_position_embeddings=positions, **SIZE
    )
    ElectraModel(config).save_pretrained(folder)
    bert_tokenizer(folder, WORDS)


def save_roberta(folder: Path, positions: int) -> None:
    config = RobertaConfig(
        vocab_size=len(BYTE_PAIRS), max_position_embeddings=positions + 2, type_vocab_size=1, **SIZE
    )
    RobertaModel(config).save_pretrained(folder)
    vocab = {token: number for number, token in enumerate(BYTE_PAIRS)}
    RobertaTokenizer(vocab=vocab, merges=[("n", "o"), ("o", "k")]).save_pretrained(folder)


def save_xlm_roberta(folder: Path, positions: int) -> None:
    config = XLMRobertaConfig(
        vocab_size=len(PIECES), max_position_embeddings=positions + 2, type_vocab_size=1, **SIZE
    )
    XLMRobertaModel(config).save_pretrained(folder)
    XLMRobertaTokenizer(
        vocab=[(piece, -float(len(piece) == 1)) for piece in PIECES]
    ).save_pretrained(folder)


# As klue/roberta-base and others for Korean: RoBERTa behind BERT's tokenizer.
KLUE = ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]", *WORDS[5:]]


def save_klue(folder: Path, positions: int) -> None:
    config = RobertaConfig(
        vocab_size=len(KLUE), max_position_embeddings=positions + 2, type_vocab_size=1, **SIZE
    )
    RobertaModel(config).save_pretrained(folder)
    bert_tokenizer(folder, KLUE)


FAMILIES = {
    "bert": Family(save_bert, WORDS, BERT_SPECIAL, by_word),
    "electra": Family(save_electra, WORDS, BERT_SPECIAL, by_word),
    "roberta": Family(save_roberta, BYTE_PAIRS, ROBERTA_SPECIAL, by_bytes),
    "xlm-roberta": Family(save_xlm_roberta, PIECES, ROBERTA_SPECIAL, by_piece),
    "roberta with bert's tokenizer": Family(save_klue, KLUE, BERT_SPECIAL, by_word),
}
every_family = pytest.mark.parametrize("name", FAMILIES)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("text")
    for name, family in FAMILIES.items():
        family.save(folder / name, 512)
    return {name: folder / name for name in FAMILIES}


def tokens_of(family: Family, turns: Sequence[str], most: int = 128) -> list[str]:
    """What a model is to read of turns, by hand: the first token, and a separator after each turn;
    the last one stays when cut.
    """
    first, separator = family.special
    tokens = [first]
    for turn in turns:
        tokens += [*family.words(turn), separator]
    return tokens if len(tokens) <= most else [*tokens[: most - 1], separator]


def output_of(folder: Path, ids: Sequence[int]) -> np.ndarray:  # type: ignore[type-arg]
    with torch.no_grad():
        return (
            AutoModel.from_pretrained(folder)
            .eval()(torch.tensor([list(ids)]))
            .last_hidden_state[0]
            .numpy()
        )  # type: ignore[no-any-return]


def expected_of(folder: Path, family: Family, tokens: Sequence[str]) -> np.ndarray:  # type: ignore[type-arg]
    return output_of(folder, [family.vocabulary.index(token) for token in tokens])


@every_family
def test_turns_are_joined_by_the_familys_separator(saved: dict[str, Path], name: str) -> None:
    family, encoder = FAMILIES[name], make_text_encoder(str(saved[name]))
    for turns in (
        ["no"],
        ["okay", "no"],
        ["okay no", "no", "okay"],
        ["no", "okay", "no no", "okay", "no"],
    ):
        tokens = tokens_of(family, turns)
        assert encoder.num_tokens([turns]) == [len(tokens)]
        np.testing.assert_allclose(
            encoder.encode(turns), expected_of(saved[name], family, tokens), atol=1e-5
        )
    assert encoder.num_tokens([[""], ["", ""]]) == [2, 3]


@every_family
def test_hangul_is_read_and_separated_too(saved: dict[str, Path], name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(saved[name])
    one, other = (
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("좋아", "그래")
    )
    first, separator = (FAMILIES[name].vocabulary.index(token) for token in FAMILIES[name].special)
    unknown = next(
        FAMILIES[name].vocabulary.index(token)
        for token in ("[UNK]", "<unk>")
        if token in FAMILIES[name].vocabulary
    )
    assert one != other and unknown not in one + other
    found = make_text_encoder(str(saved[name])).encode(["좋아", "그래"])
    expected = output_of(saved[name], [first, *one, separator, *other, separator])
    np.testing.assert_allclose(found, expected, atol=1e-5)


@every_family
def test_padding_does_not_change_features(saved: dict[str, Path], name: str) -> None:
    encoder = make_text_encoder(str(saved[name]))
    turns = [["no"], ["okay no okay", "no", "okay"], ["okay"] * 5]
    for alone, together in zip(
        map(encoder.encode, turns), encoder.encode_batch(turns), strict=True
    ):
        np.testing.assert_allclose(together, alone, atol=1e-5)


def save_with_left_truncation(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.truncation_side = "left"
    tokenizer.save_pretrained(folder)


@every_family
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("positions", [24, 512])
def test_truncation_keeps_the_current_utterance(
    tmp_path: Path, name: str, positions: int, side: str
) -> None:
    """At 128 tokens or at the model's own limit, also where the tokenizer was saved to cut on the
    left.
    """
    torch.manual_seed(0)
    FAMILIES[name].save(tmp_path, positions)
    if side == "left":
        save_with_left_truncation(tmp_path)
    encoder, most = make_text_encoder(str(tmp_path)), min(positions, 128)
    now, before = "okay no okay", "no okay " * 100
    tokens = tokens_of(FAMILIES[name], [now, before], most)
    assert tokens[: len(FAMILIES[name].words(now)) + 1] == [
        FAMILIES[name].special[0],
        *FAMILIES[name].words(now),
    ]
    found = encoder.encode([now, before.strip()])
    assert len(found) == most
    np.testing.assert_allclose(found, expected_of(tmp_path, FAMILIES[name], tokens), atol=1e-5)
    # An utterance that is too long by itself keeps its beginning.
    tokens = tokens_of(FAMILIES[name], ["okay " + "no " * 200], most)
    np.testing.assert_allclose(
        encoder.encode([("okay " + "no " * 200).strip()]),
        expected_of(tmp_path, FAMILIES[name], tokens),
        atol=1e-5,
    )


@every_family
def test_stored_text_is_what_the_encoder_of_its_recipe_gives(
    corpus: Corpus, saved: dict[str, Path], name: str, tmp_path: Path
) -> None:
    list(
        encode_text(
            corpus.manifest, tmp_path, make_text_encoder(str(saved[name])), (3,), batch_tokens=64
        )
    )
    list(
        encode_speech(
            corpus.manifest, tmp_path, make_speech_encoder("fbank", num_mels=16), ["hidden_state"]
        )
    )
    features = load_features(corpus.manifest, tmp_path, "hidden_state", 3)
    again = text_encoder_of(features.text.recipe)
    for index, row in enumerate(features.text_rows.tolist()):
        found = features.text.values[features.text.offsets[row] : features.text.offsets[row + 1]]
        np.testing.assert_allclose(
            found, again.encode(turns_of(corpus.manifest, index, 3)), atol=2e-3
        )


@every_family
def test_a_word_of_hundreds_of_thousands_of_letters_is_cut_as_any_other(
    saved: dict[str, Path], name: str
) -> None:
    encoder = make_text_encoder(str(saved[name]))
    found = encoder.encode(["x" * 200_000])
    assert len(found) <= 128
    np.testing.assert_array_equal(found, encoder.encode(["x" * 1000]))


def says_mean(folder: Path) -> None:
    """As sentence-transformers saves a model."""
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        '{"word_embedding_dimension": 12, "pooling_mode_cls_token": false,'
        ' "pooling_mode_mean_tokens": true}'
    )


@every_family
def test_a_model_that_is_read_by_its_mean_has_the_current_utterances_in_the_first_place(
    tmp_path: Path, name: str
) -> None:
    torch.manual_seed(0)
    family, folder = FAMILIES[name], tmp_path / "model"
    family.save(folder, 512)
    plain = make_text_encoder(str(folder))
    says_mean(folder)
    encoder = make_text_encoder(str(folder))
    batch = [["no"], ["okay no okay", "no", "okay okay"], ["okay " * 300, "no"]]
    found = encoder.encode_batch([[turn.strip() for turn in turns] for turns in batch])
    for turns, one in zip(batch, found, strict=True):
        whole = plain.encode([turn.strip() for turn in turns])
        now = tokens_of(family, [turns[0].strip()])
        assert len(one) == len(whole)
        np.testing.assert_allclose(one[0], whole[: len(now)].mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(one[1:], whole[1:], atol=1e-5)
    # By itself an utterance's is what sentence-transformers gives, before it is normalised.
    ids = [family.vocabulary.index(token) for token in tokens_of(family, ["no"])]
    np.testing.assert_allclose(found[0][0], output_of(folder, ids).mean(axis=0), atol=1e-5)


def test_what_stands_for_the_whole_is_in_the_recipe_and_can_be_asked_for(tmp_path: Path) -> None:
    save_bert(tmp_path / "model", 512)
    place = str(tmp_path / "model")
    before = make_text_encoder(place).recipe()
    assert "pooling" not in before  # recipes of earlier versions have none either
    asked = make_text_encoder(place, pooling="mean").recipe()
    assert asked == {**before, "pooling": "mean"}
    assert "--text-pooling mean" in encode_command("m.csv", "f", [{**asked, "context": 1}])
    assert "--text-pooling" not in encode_command("m.csv", "f", [{**before, "context": 1}])
    says_mean(tmp_path / "model")
    assert make_text_encoder(place).recipe() == asked
    # What was made before a folder was asked is made again with the same.
    assert text_encoder_of({**before, "context": 1}).recipe() == before
    assert "--text-pooling first" in encode_command("m.csv", "f", [{**before, "context": 1}])
