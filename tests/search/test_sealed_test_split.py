"""Nothing of the test split reaches what is searched: not its labels, its texts, its features, its
lengths or its classes.
"""

import csv
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

import search.worker.trial
from mmm.manifest import Manifest
from mmm.manifest_csv import manifest_text, read_manifest
from search.ledger.files import SEALED
from tests.conftest import HEADER, Corpus, encode, write_manifest
from tests.sweep_parts import call_inside

Row = dict[str, str]


@pytest.fixture(autouse=True)
def _fresh_worker_data() -> Iterator[None]:
    search.worker.trial.forget_data()
    yield
    search.worker.trial.forget_data()


def rows_of(manifest: Path) -> list[Row]:
    with open(manifest, encoding="utf-8", newline="") as file:
        return [*csv.DictReader(file)]


def changed(corpus: Corpus, name: str, change: Callable[[list[Row]], Sequence[Row]]) -> Path:
    """The corpus' manifest with other rows, beside it, so that its audio is found."""
    rows = change(rows_of(corpus.manifest.path))
    path = corpus.manifest.path.with_name(name)
    return write_manifest(path, [[row[column] for column in HEADER] for row in rows])


def board(
    corpus: Corpus, manifest: Path, features: Path, runs: Path, empty_store: Path
) -> list[Row]:
    """The leaderboard of a small serial sweep, times aside."""
    runs.mkdir()
    shutil.copy(empty_store, runs)
    call_inside(
        "search",
        *("run", "quick", manifest, "--features", features, "--name", "s", "--runs", runs),
        *("--trials", 4, "--epochs", 2, "--first-rung", 2, "--serial"),
    )
    with open(runs / "s" / "leaderboard.csv", encoding="utf-8", newline="") as file:
        return [{**row, "training_s": "", "epoch_s": ""} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def undisturbed(
    corpus: Corpus, empty_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[Row]:
    runs = tmp_path_factory.mktemp("undisturbed") / "runs"
    return board(corpus, corpus.manifest.path, corpus.features_dir, runs, empty_store)


def test_a_worker_is_handed_a_manifest_without_the_test_split(
    corpus: Corpus, empty_store: Path, tmp_path: Path
) -> None:
    board(corpus, corpus.manifest.path, corpus.features_dir, tmp_path / "runs", empty_store)
    (handed,) = search.worker.trial._manifests.values()
    assert {one.split for one in handed.utterances} == {"train", "dev"}
    loaded = search.worker.trial._cache.values()
    assert loaded
    for features in loaded:
        assert len(features.speech_rows) == len(features.text_rows) == len(handed.utterances)
    names = {row["split"] for row in rows_of(tmp_path / "runs" / "s" / SEALED)}
    assert names == {"train", "dev"}
    whole = corpus.manifest
    sealed = {one.utterance_id for one in whole.utterances if one.split == "test"}
    text = (tmp_path / "runs" / "s" / SEALED).read_text(encoding="utf-8")
    assert sealed
    assert not any(name in text for name in sealed)


def test_the_leaderboard_does_not_know_the_labels_of_test(
    corpus: Corpus, undisturbed: list[Row], empty_store: Path, tmp_path: Path
) -> None:
    def permuted(rows: list[Row]) -> list[Row]:
        labels = [row["emotion"] for row in rows if row["split"] == "test"]
        waiting = iter(labels[3:] + labels[:3])
        return [
            {**row, "emotion": next(waiting)} if row["split"] == "test" else row for row in rows
        ]

    manifest = changed(corpus, "permuted.csv", permuted)
    found = board(corpus, manifest, corpus.features_dir, tmp_path / "runs", empty_store)
    assert found == undisturbed


def test_nor_whether_its_rows_have_features(
    corpus: Corpus, undisturbed: list[Row], empty_store: Path, tmp_path: Path
) -> None:
    without = changed(
        corpus, "no-test.csv", lambda rows: [row for row in rows if row["split"] != "test"]
    )
    encode(read_manifest(without), tmp_path / "features")
    found = board(
        corpus, corpus.manifest.path, tmp_path / "features", tmp_path / "runs", empty_store
    )
    assert found == undisturbed


def test_a_manifest_without_test_is_read_again_as_it_was(corpus: Corpus, tmp_path: Path) -> None:
    def content(manifest: Manifest) -> object:
        return manifest.utterances, manifest.classes

    path = tmp_path / "again.csv"
    path.write_text(manifest_text(corpus.manifest), encoding="utf-8")
    assert content(read_manifest(path, check_audio=False)) == content(corpus.manifest)
    rest = corpus.manifest.without_test()
    path.write_text(manifest_text(rest), encoding="utf-8")
    assert content(read_manifest(path, check_audio=False)) == content(rest)
    for one in rest.utterances:
        whole = next(u for u in corpus.manifest.utterances if u.utterance_id == one.utterance_id)
        before = corpus.manifest.utterances[whole.previous] if whole.previous >= 0 else None
        here = rest.utterances[one.previous] if one.previous >= 0 else None
        assert (here and here.utterance_id) == (before and before.utterance_id)
