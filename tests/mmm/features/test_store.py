"""Feature stores: what was put in comes out, found by key; whole or not at all."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmm.features.recipe import recipe_hash
from mmm.features.store import DamagedStore, FeatureStore, list_recipes, open_store, pool
from mmm.features.writer import PartialStore, Plan, rows_there
from mmm.manifest import utterance_key
from tests.conftest import names_in

AUDIO = {"kind": "audio", "encoder": "fbank", "feature": "hidden_state"}
TEXT = {"kind": "text", "encoder": "char-ngram", "context": 1}


def ragged(seed: int = 0) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    generator = np.random.default_rng(seed)
    return [generator.normal(size=(length, 6)).astype(np.float32) for length in (3, 1, 40, 2)]


def plan_of(rows: list[np.ndarray[Any, np.dtype[np.float32]]], recipe: dict[str, Any]) -> Plan:
    keys = np.array(
        [utterance_key(f"u{number}", "wav") for number in range(len(rows))], dtype=np.uint64
    )
    stamps = np.array([(number, 10**18 + number) for number in range(len(rows))])
    return Plan(recipe, 6, keys, stamps, np.array([len(row) for row in rows]))


def write(
    path: Path, rows: list[np.ndarray[Any, np.dtype[np.float32]]], recipe: dict[str, Any]
) -> FeatureStore:
    partial = PartialStore(path, plan_of(rows, recipe))
    for number, row in enumerate(rows):
        partial.put(number, row)
    partial.finish()
    return open_store(path)


@pytest.mark.parametrize("recipe", [AUDIO, TEXT], ids=["audio", "text"])
def test_ragged_features_come_back_rounded_to_float16(
    tmp_path: Path, recipe: dict[str, Any]
) -> None:
    rows = ragged()
    store = write(tmp_path / "store", rows, recipe)
    assert (store.width, store.recipe, store.values.dtype) == (6, recipe, np.float16)
    for number, row in enumerate(rows):
        found = store.values[store.offsets[number] : store.offsets[number + 1]]
        np.testing.assert_array_equal(found, row.astype(np.float16))
        rounded = row.astype(np.float16)
        expected = (
            rounded[0]
            if recipe is TEXT
            else rounded.astype(np.float32).mean(axis=0).astype(np.float16)
        )
        np.testing.assert_array_equal(store.pooled[number], expected)
        np.testing.assert_array_equal(pool(rounded, recipe["kind"]), expected)
        assert store.stamps[number].tolist() == [number, 10**18 + number]


def test_features_are_found_by_key_in_any_order(tmp_path: Path) -> None:
    store = write(tmp_path / "store", ragged(), AUDIO)
    keys = [utterance_key(name, "wav") for name in ("u3", "u0", "nobody", "u2", "u3")]
    assert store.find(keys).tolist() == [3, 0, -1, 2, 3]
    assert store.find([0, 2**64 - 1]).tolist() == [-1, -1]


def test_a_key_tells_id_from_source() -> None:
    keys = {
        utterance_key("u1", "a"),
        utterance_key("u1a", ""),
        utterance_key("u", "1a"),
        utterance_key("u1", "b"),
    }
    assert len(keys) == 4


def test_a_folder_is_named_by_its_recipe_whatever_the_order_of_its_entries(tmp_path: Path) -> None:
    assert recipe_hash(AUDIO) == recipe_hash(dict(reversed(AUDIO.items())))
    assert (
        len(
            {
                recipe_hash(AUDIO),
                recipe_hash(AUDIO | {"feature": "extract_feature"}),
                recipe_hash(TEXT),
            }
        )
        == 3
    )


@pytest.mark.parametrize(
    "bad",
    [np.full((3, 6), np.nan), np.full((3, 6), np.inf), np.full((3, 6), 1e6), np.zeros((0, 6))],
    ids=["nan", "inf", "1e6", "none"],
)
def test_features_that_float16_cannot_hold_are_refused(
    tmp_path: Path, bad: np.ndarray[Any, np.dtype[np.float64]]
) -> None:
    partial = PartialStore(tmp_path / "store", plan_of(ragged(), AUDIO))
    with pytest.raises(
        ValueError, match="encoder 'fbank' gave no frame or a value that float16 cannot hold"
    ):
        partial.put(0, bad)
    with pytest.raises(
        ValueError,
        match=r"gave features of shape \(4, 6\), \(3, 6\) were expected; was the file changed\?",
    ):
        partial.put(0, np.zeros((4, 6)))
    partial.close()
    assert list_recipes(tmp_path) == {}


def test_a_store_that_is_not_finished_goes_on_where_it_was(tmp_path: Path) -> None:
    write(tmp_path / "whole", ragged(), AUDIO)
    partial = PartialStore(tmp_path / "store", plan_of(ragged(), AUDIO))
    partial.put(2, ragged()[2])
    partial.close()
    assert names_in(tmp_path) == [".store.partial", "whole"]
    again = PartialStore(tmp_path / "store", plan_of(ragged(), AUDIO))
    assert again.done.tolist() == [False, False, True, False]
    for row in (3, 0, 1):
        again.put(row, ragged()[row])
    again.finish()
    assert names_in(tmp_path) == ["store", "whole"]
    for file in names_in(tmp_path / "whole"):
        assert (tmp_path / "store" / file).read_bytes() == (
            tmp_path / "whole" / file
        ).read_bytes(), file


def test_what_was_put_and_not_marked_is_done_again(tmp_path: Path) -> None:
    partial = PartialStore(tmp_path / "store", plan_of(ragged(), AUDIO))
    partial.put(1, ragged()[1])  # killed here
    assert not PartialStore(tmp_path / "store", plan_of(ragged(), AUDIO)).done.any()


def test_rows_of_another_plan_are_kept_where_they_fit(tmp_path: Path) -> None:
    """As when the manifest changes between a kill and the next run."""
    partial = PartialStore(tmp_path / "store", plan_of(ragged(), AUDIO))
    partial.put(1, ragged()[1])
    partial.put(3, ragged()[3])
    partial.close()
    changed = [*ragged()[:3], ragged()[2]]  # the last is longer now
    again = PartialStore(tmp_path / "store", plan_of(changed, AUDIO))
    assert again.done.tolist() == [False, True, False, False]
    again.close()


@pytest.mark.parametrize("step", ["replaced", "renamed", "fresh", "no plan"])
def test_a_kill_between_two_renames_loses_nothing(tmp_path: Path, step: str) -> None:
    path, folder = tmp_path / "store", tmp_path / ".store.partial"
    old = write(path, ragged(0), AUDIO)
    partial = PartialStore(
        path, dataclasses.replace(plan_of(ragged(1), AUDIO), stamps=old.stamps + 1)
    )
    for row, values in enumerate(ragged(1)):
        partial.put(row, values)
    partial.close()
    seed = 0 if step in ("fresh", "no plan") else 1
    if step in ("replaced", "renamed"):
        path.rename(folder / "replaced")
    if step == "renamed":
        (folder / "store").rename(path)
    if step == "fresh":
        folder.rename(tmp_path / ".store.fresh")
    if step == "no plan":
        (folder / "plan.json").unlink()
    found = rows_there(path)
    np.testing.assert_array_equal(
        found[0].store.values, np.concatenate(ragged(seed)).astype(np.float16)
    )
    assert len(found) == (2 if step == "fresh" else 1)
    assert names_in(tmp_path) == ([".store.partial", "store"] if step == "fresh" else ["store"])


def test_a_store_is_replaced_while_it_is_mapped(tmp_path: Path) -> None:
    before = write(tmp_path / "store", ragged(0), AUDIO)
    partial = PartialStore(
        tmp_path / "store", dataclasses.replace(plan_of(ragged(1), AUDIO), stamps=before.stamps + 1)
    )
    for row, values in enumerate(ragged(1)):
        partial.put(row, values)
    partial.finish()
    after = open_store(tmp_path / "store")
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
    (path / "checksums.json").unlink()  # as an earlier version wrote it
    np.save(path / f"{file}.npy", np.load(path / f"{file}.npy")[:-1])
    with pytest.raises(
        DamagedStore,
        match=(
            rf"store: the feature store's files disagree; make it again: rm -r {path} && mmm encode"
        ),
    ):
        open_store(path)


def test_recipes_of_a_folder_are_listed_and_what_is_hidden_is_not(tmp_path: Path) -> None:
    write(tmp_path / "one", ragged(), AUDIO)
    write(tmp_path / "two", ragged(), TEXT)
    (tmp_path / ".three.unfinished").mkdir()
    (tmp_path / ".three.unfinished" / "recipe.json").write_text(json.dumps(TEXT))
    (tmp_path / "notes").mkdir()
    assert list_recipes(tmp_path) == {tmp_path / "one": AUDIO, tmp_path / "two": TEXT}
    with pytest.raises(
        FileNotFoundError,
        match=r"none: no such features folder; run: mmm encode manifest\.csv --features",
    ):
        list_recipes(tmp_path / "none")
