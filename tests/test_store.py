"""Feature stores: what was put in comes out, found by key; whole or not at all."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmm.store import FeatureStore, StoreWriter, list_recipes, open_store, pool, recipe_hash, utterance_key
from tests.conftest import names_in

AUDIO = {"kind": "audio", "encoder": "fbank", "feature": "hidden_state"}
TEXT = {"kind": "text", "encoder": "char-ngram", "context": 1}


def ragged(seed: int = 0) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    generator = np.random.default_rng(seed)
    return [generator.normal(size=(length, 6)).astype(np.float32) for length in (3, 1, 40, 2)]


def write(path: Path, rows: list[np.ndarray[Any, np.dtype[np.float32]]], recipe: dict[str, Any]) -> FeatureStore:
    with StoreWriter(path, recipe) as writer:
        for number, row in enumerate(rows):
            writer.append(utterance_key(f"u{number}", "wav"), (number, 10**18 + number), row)
    return open_store(path)


@pytest.mark.parametrize("recipe", [AUDIO, TEXT], ids=["audio", "text"])
def test_ragged_features_come_back_rounded_to_float16(tmp_path: Path, recipe: dict[str, Any]) -> None:
    rows = ragged()
    store = write(tmp_path / "store", rows, recipe)
    assert (store.width, store.recipe, store.values.dtype) == (6, recipe, np.float16)
    for number, row in enumerate(rows):
        found = store.values[store.offsets[number] : store.offsets[number + 1]]
        np.testing.assert_array_equal(found, row.astype(np.float16))
        rounded = row.astype(np.float16)
        expected = rounded[0] if recipe is TEXT else rounded.astype(np.float32).mean(axis=0).astype(np.float16)
        np.testing.assert_array_equal(store.pooled[number], expected)
        np.testing.assert_array_equal(pool(rounded, recipe["kind"]), expected)
        assert store.stamps[number].tolist() == [number, 10**18 + number]


def test_features_are_found_by_key_in_any_order(tmp_path: Path) -> None:
    store = write(tmp_path / "store", ragged(), AUDIO)
    keys = [utterance_key(name, "wav") for name in ("u3", "u0", "nobody", "u2", "u3")]
    assert store.find(keys).tolist() == [3, 0, -1, 2, 3]
    assert store.find([0, 2**64 - 1]).tolist() == [-1, -1]


def test_a_key_tells_id_from_source() -> None:
    keys = {utterance_key("u1", "a"), utterance_key("u1a", ""), utterance_key("u", "1a"), utterance_key("u1", "b")}
    assert len(keys) == 4


def test_a_folder_is_named_by_its_recipe_whatever_the_order_of_its_entries(tmp_path: Path) -> None:
    assert recipe_hash(AUDIO) == recipe_hash(dict(reversed(AUDIO.items())))
    assert len({recipe_hash(AUDIO), recipe_hash(AUDIO | {"feature": "extract_feature"}), recipe_hash(TEXT)}) == 3


@pytest.mark.parametrize(
    "bad", [np.full((2, 6), np.nan), np.full((2, 6), np.inf), np.zeros((0, 6))], ids=["nan", "inf", "none"]
)
def test_features_that_float16_cannot_hold_are_refused_and_leave_no_folder(
    tmp_path: Path, bad: np.ndarray[Any, np.dtype[np.float64]]
) -> None:
    with (
        pytest.raises(ValueError, match="encoder 'fbank' gave no frame or a value that float16 cannot hold"),
        StoreWriter(tmp_path / "store", AUDIO) as writer,
    ):
        writer.append(1, (0, 0), ragged()[0])
        writer.append(2, (0, 0), bad)
    assert names_in(tmp_path) == []


def test_a_failure_midway_keeps_the_store_that_was_there(tmp_path: Path) -> None:
    before = write(tmp_path / "store", ragged(), AUDIO)
    with pytest.raises(KeyboardInterrupt), StoreWriter(tmp_path / "store", AUDIO) as writer:
        writer.append(1, (0, 0), ragged(1)[0])
        raise KeyboardInterrupt
    assert names_in(tmp_path) == ["store"]
    np.testing.assert_array_equal(open_store(tmp_path / "store").values, before.values)


def test_a_failure_at_the_end_leaves_no_folder(tmp_path: Path) -> None:
    with (
        pytest.raises(TypeError, match="not JSON serializable"),
        StoreWriter(tmp_path / "store", AUDIO | {"made": object()}) as writer,
    ):
        writer.append(1, (0, 0), ragged()[0])
    assert names_in(tmp_path) == []


def test_a_store_is_replaced_while_it_is_mapped(tmp_path: Path) -> None:
    before = write(tmp_path / "store", ragged(0), AUDIO)
    after = write(tmp_path / "store", ragged(1), AUDIO)
    np.testing.assert_array_equal(before.values, np.concatenate(ragged(0)).astype(np.float16))
    np.testing.assert_array_equal(after.values, np.concatenate(ragged(1)).astype(np.float16))
    assert names_in(tmp_path) == ["store"]


def test_writing_to_a_mapped_store_does_not_reach_the_disk(tmp_path: Path) -> None:
    store = write(tmp_path / "store", ragged(), AUDIO)
    store.values[:] = 0
    assert open_store(tmp_path / "store").values.any()


@pytest.mark.parametrize("file", ["values", "offsets", "pooled", "keys", "stamps"])
def test_a_store_whose_files_disagree_is_refused(tmp_path: Path, file: str) -> None:
    path = tmp_path / "store"
    write(path, ragged(), AUDIO)
    np.save(path / f"{file}.npy", np.load(path / f"{file}.npy")[:-1])
    with pytest.raises(
        ValueError, match="store: the feature store's files disagree; remove the folder and run mmm encode again"
    ):
        open_store(path)


def test_recipes_of_a_folder_are_listed_and_what_is_hidden_is_not(tmp_path: Path) -> None:
    write(tmp_path / "one", ragged(), AUDIO)
    write(tmp_path / "two", ragged(), TEXT)
    (tmp_path / ".three.unfinished").mkdir()
    (tmp_path / ".three.unfinished" / "recipe.json").write_text(json.dumps(TEXT))
    (tmp_path / "notes").mkdir()
    assert list_recipes(tmp_path) == {tmp_path / "one": AUDIO, tmp_path / "two": TEXT}
    with pytest.raises(FileNotFoundError, match=r"none: no such features folder; run: mmm encode manifest\.csv --features"):
        list_recipes(tmp_path / "none")
