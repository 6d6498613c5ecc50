"""A bit that flips in a feature store is not trained on, and not made to look as if it was
meant.
"""

import json
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import mmm.cli.app
from mmm.features import checksums, named
from mmm.features.named import find_store
from mmm.features.store import (
    LARGE_FILES,
    SMALL_FILES,
    DamagedStore,
    FeatureStore,
    list_recipes,
    open_store,
)
from mmm.features.writer import PartialStore
from mmm.files import Unchecked
from mmm.manifest_csv import read_manifest
from mmm.training.baselines import baselines
from tests.conftest import Corpus, encode, names_in, trained, write_wav
from tests.encode_parts import make_old, run_printed
from tests.mmm.features.test_store import AUDIO, plan_of, ragged, write

FILES = (*SMALL_FILES, *LARGE_FILES, "checksums.json")


@pytest.fixture(autouse=True)
def _new_process() -> Iterator[None]:
    checksums._parsed.cache_clear()
    named._told.clear()
    yield
    named._told.clear()


@pytest.fixture
def own(corpus: Corpus, tmp_path: Path) -> Corpus:
    """A copy of the session's corpus and its features that a test may change."""
    shutil.copytree(corpus.manifest.path.parent, tmp_path / "own")
    return Corpus(read_manifest(tmp_path / "own" / "manifest.csv"), tmp_path / "own" / "features")


def flip(file: Path, place: int) -> None:
    """Another bit at this place, counted from the end where it is negative."""
    content = bytearray(file.read_bytes())
    content[place // 8] ^= 1 << place % 8
    file.write_bytes(content)


def read_all(path: Path) -> FeatureStore:
    checksums._parsed.cache_clear()  # what another process would find
    store = open_store(path)
    store.check("values")
    store.check("pooled")
    return store


@pytest.mark.parametrize("file", FILES)
def test_a_flipped_bit_is_refused_or_makes_no_difference(tmp_path: Path, file: str) -> None:
    path = tmp_path / "store"
    whole = write(path, ragged(), AUDIO)
    size, refused = (path / file).stat().st_size, 0
    places = {*range(8 * 16), *np.random.default_rng(0).integers(8 * size, size=300).tolist()}
    for place in places:
        flip(path / file, place)
        try:
            found = read_all(path)
        except DamagedStore as error:
            refused += 1
            assert f"{path / file}: damaged" in str(error) or file == "checksums.json"
            assert (
                f"make it again: rm -r {path} && mmm encode manifest.csv --features {tmp_path}"
                in str(error)
            )
        else:
            assert found.recipe == whole.recipe
            for name in ("values", "offsets", "pooled", "keys", "stamps", "audio_hashes"):
                np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
        flip(path / file, place)
    assert (
        refused == len(places) or file == "checksums.json"
    )  # the size of a block does not matter where there is one
    read_all(path)


@pytest.mark.parametrize("file", FILES)
def test_a_file_that_is_cut_short_or_gone_is_refused(tmp_path: Path, file: str) -> None:
    path = tmp_path / "store"
    write(path, ragged(), AUDIO)
    content = (path / file).read_bytes()
    for length in (0, 5, len(content) // 2, len(content) - 2):
        (path / file).write_bytes(content[:length])
        with pytest.raises(DamagedStore, match="damaged"):
            read_all(path)
    (path / file).unlink()
    if file == "checksums.json":  # that is a store of an earlier version
        assert open_store(path).checksums is None
    else:
        with pytest.raises(DamagedStore, match=f"{file}: damaged: it is missing"):
            read_all(path)


def test_a_block_is_checked_when_it_is_first_read_and_not_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checksums, "BLOCK_BYTES", 64)  # a row of 6 has 12 bytes
    path = tmp_path / "store"
    write(path, ragged(), AUDIO)
    flip(path / "values.npy", -8 * 50)
    store = open_store(path)
    starts, ends = store.offsets[:-1], store.offsets[1:]
    store.check("values", starts[:2], ends[:2])
    flip(path / "values.npy", 8 * 128)  # in the first block, which was read
    store.check("values", starts[:2], ends[:2])
    for _ in range(2):
        with pytest.raises(
            DamagedStore,
            match=(
                r"values\.npy: damaged: its checksum is not the recorded one; make it again: rm -r"
            ),
        ):
            store.check("values", starts[2:3], ends[2:3])
    flip(path / "values.npy", -8 * 50)
    store.check("values")
    flip(path / "values.npy", -8 * 50)
    store.check("values")


def spoil(corpus: Corpus, kind: str, file: str, **wanted: object) -> Path:
    store = find_store(corpus.features_dir, kind, **wanted)  # type: ignore[arg-type]
    flip(store.path / file, 8 * (store.path / file).stat().st_size - 20)
    return store.path / file


@pytest.mark.parametrize(
    ("architecture", "kind", "file"),
    [
        ("cross_attention", "audio", "values.npy"),
        ("mlp_mixer", "text", "values.npy"),
        ("vanilla_concat", "audio", "pooled.npy"),
        ("three_way_concat", "text", "pooled.npy"),
        ("baselines", "text", "pooled.npy"),
        ("mlp_mixer", "audio", "offsets.npy"),
        ("vanilla_concat", "text", "keys.npy"),
    ],
)
def test_features_with_a_flipped_bit_are_not_trained_on_and_the_printed_commands_repair_them(
    own: Corpus, architecture: str, kind: str, file: str
) -> None:
    wanted: dict[str, object] = {"feature": "hidden_state"} if kind == "audio" else {"context": 1}
    before = (spoiled := spoil(own, kind, file, **wanted)).read_bytes()

    def attempt() -> None:
        checksums._parsed.cache_clear()
        if architecture == "baselines":
            list(baselines(own.manifest, own.features_dir))
        else:
            trained(own, architecture, epochs=1)

    with pytest.raises(
        DamagedStore,
        match=rf"{spoiled}: damaged: its checksum is not the recorded one; make it again: rm -r ",
    ) as caught:
        attempt()
    run_printed(str(caught.value))
    attempt()
    assert spoiled.read_bytes() != before


def test_what_is_damaged_is_not_copied_into_a_new_store(own: Corpus) -> None:
    spoiled = spoil(own, "audio", "values.npy", feature="hidden_state")
    stamp = own.manifest.audio_path(own.manifest.utterances[7])
    write_wav(stamp, 0.5, 900.0, seed=99)
    with pytest.raises(
        DamagedStore,
        match=(
            rf"{spoiled}: damaged: .*; make it again: rm -r .* && mmm encode {own.manifest.path} "
        ),
    ) as caught:
        encode(own.manifest, own.features_dir)
    run_printed(str(caught.value))
    encode(own.manifest, own.features_dir)
    own.features().speech.check("values")
    assert [
        name for name in names_in(own.features_dir) if name.startswith(".") and name != ".lock"
    ] == []


def test_taking_over_other_times_does_not_bless_what_is_damaged(own: Corpus) -> None:
    spoil(own, "audio", "values.npy", feature="hidden_state")
    for utterance in own.manifest.utterances:
        os.utime(own.manifest.audio_path(utterance), ns=(5, 5))
    encode(own.manifest, own.features_dir)
    store = find_store(own.features_dir, "audio", feature="hidden_state")
    assert store.stamps[:, 1].tolist() == [5] * 40
    with pytest.raises(DamagedStore):
        store.check("values")


def test_features_of_an_earlier_version_are_read_and_it_is_told_once_how_to_add_checksums(
    own: Corpus,
) -> None:
    expected = trained(own, "mlp_mixer").best_metrics["loss"]
    make_old(own.features_dir)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert trained(own, "mlp_mixer").best_metrics["loss"] == expected
        list(baselines(own.manifest, own.features_dir))
    (message,) = [
        str(warning.message) for warning in told if issubclass(warning.category, Unchecked)
    ]
    assert message.startswith(
        f"{own.features_dir}: features of an earlier version have no checksums and are read"
        " unchecked; "
    )
    run_printed(message)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Unchecked)
        named._told.clear()
        trained(own, "mlp_mixer", epochs=1)
    for path in list_recipes(own.features_dir):
        read_all(path)


def test_the_command_line_tells_it_in_one_line(
    own: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_old(own.features_dir)
    words = [
        "train",
        own.manifest.path,
        "--features",
        own.features_dir,
        "--out",
        tmp_path / "bundle",
        "--epochs",
        "1",
    ]
    monkeypatch.setattr(sys, "argv", ["mmm", *map(str, words)])
    monkeypatch.setattr("mmm.cli.app.restart_reusing_holes", lambda: None)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        with pytest.raises(SystemExit) as ended:
            mmm.cli.app.main()
    assert ended.value.code in (0, None)
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "unchecked" in line] == [
        line for line in lines if line.startswith("warning: ")
    ]
    assert len([line for line in lines if "unchecked" in line]) == 1


@pytest.mark.parametrize("is_moved", [False, True])
def test_a_kill_when_the_checksums_are_written_is_finished_by_the_next_run(
    tmp_path: Path, is_moved: bool
) -> None:
    write(tmp_path / "whole", ragged(), AUDIO)
    partial = PartialStore(tmp_path / "store", plan_of(ragged(), AUDIO))
    for row, values in enumerate(ragged()):
        partial.put(row, values)
    partial.close()
    found = checksums.checksums_of(partial.folder / "store", SMALL_FILES, LARGE_FILES)
    sums = json.dumps(found.as_json())
    (partial.folder / ("store/checksums.json" if is_moved else "checksums.json")).write_text(
        sums if is_moved else sums[:50]
    )
    PartialStore(tmp_path / "store", plan_of(ragged(), AUDIO)).finish()
    for file in names_in(tmp_path / "whole"):
        assert (tmp_path / "store" / file).read_bytes() == (
            tmp_path / "whole" / file
        ).read_bytes(), file
    assert names_in(tmp_path) == ["store", "whole"]
