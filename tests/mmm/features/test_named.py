"""Several encoders in one features folder: their names, which one is meant, adding, renaming and
removing one.
"""

import json
import shutil
from pathlib import Path

import pytest

from mmm.features.named import encoders_in, find_store, find_store_of
from mmm.features.names import NAMES
from mmm.features.store import list_recipes
from mmm.training.features import load_features
from tests.conftest import Corpus, names_in
from tests.encode_parts import run_printed
from tests.sweep_parts import call_inside

FIRST = ("--frame-rate", 10, "--num-mels", 16, "--text-width", 32)


def encode(corpus: Corpus, features: Path, *options: object, status: int = 0) -> str:
    words = ("encode", corpus.manifest.path, "--features", features, *options)
    done = call_inside("mmm", *words, status=status)
    return done.stderr if status else done.stdout


@pytest.fixture
def several(corpus: Corpus, tmp_path: Path) -> Corpus:
    """Two speech and two text encoders."""
    features = tmp_path / "features"
    shutil.copytree(corpus.features_dir, features)
    encode(corpus, features, "--frame-rate", 20, "--num-mels", 8, "--speech-only")
    encode(corpus, features, "--text-width", 16, "--text-only", "--context", "1,2", "--name", "few")
    return Corpus(corpus.manifest, features)


def names(features: Path) -> list[str]:
    return [one.name for one in encoders_in(features)]


def test_a_folder_without_names_has_them_made_of_model_and_layer(corpus: Corpus) -> None:
    assert NAMES not in names_in(corpus.features_dir)
    assert names(corpus.features_dir) == ["fbank", "char-ngram"]


def test_encoders_are_added_one_after_another_and_keep_their_names(several: Corpus) -> None:
    assert names(several.features_dir) == ["fbank", "fbank-20hz", "char-ngram", "few"]
    speech, _, text, few = encoders_in(several.features_dir)
    assert speech.audio_features == ("hidden_state", "extract_feature")
    assert (text.contexts, few.contexts) == ((1, 2, 3), (1, 2))


def test_encoding_again_without_encoder_options_takes_the_encoders_of_the_folder(
    several: Corpus,
) -> None:
    before = set(list_recipes(several.features_dir))
    said = encode(several, several.features_dir)
    assert set(list_recipes(several.features_dir)) == before
    assert "(fbank, fbank-20hz, char-ngram, few)" in said
    # One row more is encoded by all of them.
    lines = several.manifest.path.read_text().splitlines()
    longer = several.manifest.path.with_name("longer.csv")
    longer.write_text("\n".join([*lines, lines[1].replace("u00", "new").replace("s1d0", "x")]))
    call_inside("mmm", "encode", longer, "--features", several.features_dir)
    longer.unlink()
    found = encoders_in(several.features_dir)
    stores = [find_store_of(several.features_dir, r) for one in found for r in one.stores.values()]
    assert {len(store.keys) for store in stores} == {41}


def test_a_missing_context_of_one_of_several_is_added_by_the_printed_command(
    several: Corpus,
) -> None:
    with pytest.raises(FileNotFoundError, match="no text features for context=3 of few") as error:
        several.features(context=3, speech="fbank", text="few")
    run_printed(str(error.value))
    several.features(context=3, speech="fbank", text="few")
    assert names(several.features_dir) == ["fbank", "fbank-20hz", "char-ngram", "few"]


def test_a_damaged_store_of_one_of_several_is_made_again_by_the_printed_command(
    several: Corpus,
) -> None:
    before = set(list_recipes(several.features_dir))
    store = find_store(several.features_dir, "audio", name="fbank", feature="extract_feature")
    content = bytearray((store.path / "keys.npy").read_bytes())
    content[-1] ^= 1
    (store.path / "keys.npy").write_bytes(content)
    with pytest.raises(ValueError, match="damaged") as error:
        several.features("extract_feature", speech="fbank", text="few")
    assert "--audio-encoder fbank --frame-rate 10 --num-mels 16" in str(error.value)
    run_printed(str(error.value))
    several.features("extract_feature", speech="fbank", text="few")
    assert set(list_recipes(several.features_dir)) == before


def test_an_encoder_is_named_or_its_name_is_refused_with_those_there_are(several: Corpus) -> None:
    with pytest.raises(ValueError, match=r"several encoders \(fbank, fbank-20hz\); say which:"):
        several.features(text="few")
    with pytest.raises(FileNotFoundError, match=r"'fbonk' \(found: fbank, fbank-20hz\)"):
        several.features(speech="fbonk", text="few")
    rates = {
        name: several.features(speech=name, text="few").speech.recipe["frame_rate_hz"]
        for name in ("fbank", "fbank-20hz")
    }
    assert rates == {"fbank": 10, "fbank-20hz": 20}


def test_an_identity_names_an_encoder_whatever_it_is_called(several: Corpus) -> None:
    speech = encoders_in(several.features_dir)[1]
    call_inside("mmm", "features", several.features_dir, "--rename", "fbank-20hz=fast")
    assert names(several.features_dir) == ["fast", "fbank", "char-ngram", "few"]
    found = several.features(speech=speech.identity, text="few")
    assert found.speech.recipe["frame_rate_hz"] == 20


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--rename", "fbank=few"], "has another encoder named few"),
        (["--rename", "fbank"], "expected NAME=NEW"),
        (["--rename", "fbank=a/b"], "'a/b' is no name for an encoder"),
        (["--remove", "fbonk"], "has no encoder 'fbonk' (found: fbank, fbank-20hz,"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_changes(
    several: Corpus, words: list[str], fault: str
) -> None:
    before = names(several.features_dir), set(list_recipes(several.features_dir))
    done = call_inside("mmm", "features", several.features_dir, *words, status=2)
    assert fault in done.stderr
    assert (names(several.features_dir), set(list_recipes(several.features_dir))) == before


def test_an_encoder_is_removed_and_the_others_stay(several: Corpus) -> None:
    kept = {path for one in encoders_in(several.features_dir)[1:] for path in one.stores}
    done = call_inside("mmm", "features", several.features_dir, "--remove", "fbank")
    assert "removed fbank: " in done.stdout
    assert names(several.features_dir) == ["fbank-20hz", "char-ngram", "few"]
    assert set(list_recipes(several.features_dir)) == kept
    assert [name for name in names_in(several.features_dir) if name.endswith(".removed")] == []


def test_the_table_of_a_folder_names_what_each_encoder_holds(several: Corpus) -> None:
    shown = call_inside("mmm", "features", several.features_dir).stdout
    (row,) = [line for line in shown.splitlines() if "│ few " in line]
    for cell in ("text", "char-ngram", "contexts 1, 2", "16", "40"):
        assert f" {cell} " in row


def test_a_name_is_refused_where_two_encoders_would_have_it(
    corpus: Corpus, several: Corpus
) -> None:
    options = ("--num-mels", 12, "--speech-only", "--name", "few")
    assert "another encoder named few (char-ngram)" in encode(
        corpus, several.features_dir, *options, status=2
    )
    assert "names one encoder" in encode(
        corpus, several.features_dir, "--name", "x", *FIRST, status=2
    )


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (("--num-mels", 0), "--num-mels 0 is out of range"),
        (("--text-width", 0), "--text-width 0 is out of range"),
        (("--max-tokens", 0), "--max-tokens 0 is out of range"),
        (("--text-only", "--frame-rate", 0), "--text-only with --frame-rate"),
    ],
)
def test_a_zero_is_said_too(
    corpus: Corpus, tmp_path: Path, options: tuple[object, ...], fault: str
) -> None:
    assert fault in encode(corpus, tmp_path / "features", *options, status=2)
    assert not (tmp_path / "features").exists()


def test_a_name_without_an_encoder_renames_nothing(corpus: Corpus, several: Corpus) -> None:
    said = encode(corpus, several.features_dir, "--name", "x", "--text-only", status=2)
    assert f"mmm features {several.features_dir} --rename NAME=x" in said
    assert names(several.features_dir) == ["fbank", "fbank-20hz", "char-ngram", "few"]


def test_damaged_names_are_refused_with_the_command_that_repairs_them(several: Corpus) -> None:
    (several.features_dir / NAMES).write_text('{"a": 1}')
    with pytest.raises(ValueError, match=r"names\.json: damaged") as error:
        encoders_in(several.features_dir)
    assert str(error.value).endswith(f"rm {several.features_dir / NAMES}")
    (several.features_dir / NAMES).unlink()
    assert len(encoders_in(several.features_dir)) == 4


def test_a_copy_of_the_folder_has_the_same_names(several: Corpus, tmp_path: Path) -> None:
    shutil.copytree(several.features_dir, tmp_path / "copy")
    assert names(tmp_path / "copy") == names(several.features_dir)
    recorded = json.loads((tmp_path / "copy" / NAMES).read_text())
    assert sorted(recorded.values()) == ["char-ngram", "fbank", "fbank-20hz", "few"]


def test_features_of_a_recipe_are_found_or_the_difference_is_named(several: Corpus) -> None:
    found = several.features(speech="fbank", text="few")
    assert find_store_of(several.features_dir, found.text.recipe).path == found.text.path
    with pytest.raises(ValueError, match=r"other text features .*\(width: 16, not 64\)") as error:
        find_store_of(several.features_dir, {**found.text.recipe, "width": 64})
    assert "--text-encoder char-ngram --text-width 64 --context 1 --text-only" in str(error.value)


def test_a_folder_with_one_pair_of_encoders_needs_no_name(corpus: Corpus) -> None:
    load_features(corpus.manifest, corpus.features_dir, "hidden_state", 2)
