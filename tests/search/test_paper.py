"""`mmm-search paper` on KEMDy20's layout: the published systems under two protocols, and the test
split read by none of them unless it is opened, on record.
"""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest

from mmm.bundle.sealed_test import read_openings
from mmm.corpora.kemdy20 import prepare_kemdy20
from mmm.corpora.write import write_prepared
from mmm.manifest_csv import manifest_text, read_manifest
from mmm.models import PUBLISHED as SYSTEMS
from search.paper import PUBLISHED, Asked, make_again
from tests.conftest import Corpus, encode
from tests.corpus_parts import Kemdy20
from tests.sweep_parts import call_here

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def kemdy20(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Sessions 1 to 4: train, dev, train, test."""
    folder = tmp_path_factory.mktemp("kemdy20")
    corpus = Kemdy20(folder / "corpus", num_sessions=4)
    corpus.rows[1][1][4] = corpus.rows[3][1][4] = "happy;neutral"
    prepared = prepare_kemdy20(corpus.write(), dev_sessions="2", test_sessions="4")
    path = folder / "corpus" / "manifest.csv"
    write_prepared(prepared, path)
    manifest = read_manifest(path)
    encode(manifest, folder / "features")
    return Corpus(manifest, folder / "features")


def test_both_protocols_stand_beside_the_published_figures_and_test_is_opened_on_record(
    kemdy20: Corpus,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "paper"
    arguments = ["paper", kemdy20.manifest.path, "--features", kemdy20.features_dir, "--out", out]
    arguments += ["--seeds", 1, "--epochs", 1]
    status, told, _ = call_here(capsys, monkeypatch, *arguments)
    assert status == 0
    assert "The published protocol was not run" in told
    assert f"--out {out} --seeds 1 --epochs 1 --open-test" in told
    assert read_openings(kemdy20.features_dir) == []

    before = json.loads((out / "paper.json").read_text())["runs"]
    manifest = kemdy20.manifest
    labels = [name for row in manifest.rows("dev") for name in manifest.utterances[row].emotions]
    expected = labels.count("neutral") / len(labels)
    assert [one["majority"]["accuracy"] for one in before] == [pytest.approx(expected)] * 4
    status, told, _ = call_here(capsys, monkeypatch, *arguments, "--open-test", "--json")
    assert status == 0
    found = json.loads(told)
    assert [one for one in found["runs"] if one["split"] == "validation"] == before
    rows = {(system, figures): row for system, figures, _, *row in found["rows"]}
    assert set(PUBLISHED) == set(SYSTEMS)
    for system, figures in PUBLISHED.items():
        assert rows[system, "published, 2022"][:3] == [f"{value:.2f}" for value in figures]
        for protocol in ("published protocol, test", "honest protocol, test"):
            assert 0 <= float(rows[system, protocol][0]) <= 100
    # Of each system the honest bundle, and one checkpoint, for there is one epoch.
    openings = read_openings(kemdy20.features_dir)
    assert len(openings) == found["num_openings"] == 8
    assert {row["manifest_sha256"] for row in openings} == {kemdy20.manifest.sha256}
    assert "published protocol, test" in (out / "paper.md").read_text()

    status, _, errors = call_here(capsys, monkeypatch, *arguments[:-1], 3)
    assert status == 2
    assert "epochs 1 instead of 3" in errors


def test_the_honest_half_does_not_know_the_labels_of_test(kemdy20: Corpus, tmp_path: Path) -> None:
    manifest, found = kemdy20.manifest, []
    utterances = tuple(
        replace(one, emotions=("happy",), votes=()) if one.split == "test" else one
        for one in manifest.utterances
    )
    other = manifest.path.with_name("other.csv")
    other.write_text(manifest_text(replace(manifest, utterances=utterances)), encoding="utf-8")
    for path in (manifest.path, other):
        asked = Asked(path, kemdy20.features_dir, tmp_path / path.stem, seeds=1, epochs=1)
        _, first, *_ = itertools.islice(make_again(asked, lambda _: None), 2)
        found.append(first.runs)
    assert found[0] == found[1]
    assert manifest.sealed_test_rows()


def test_sessions_to_test_on_are_all_that_is_sealed_at_least(
    kemdy20: Corpus, tmp_path: Path
) -> None:
    before = read_openings(kemdy20.features_dir)
    asked = Asked(kemdy20.manifest.path, kemdy20.features_dir, tmp_path / "out", seeds=1, epochs=1)
    for sessions, said in (
        ("3", "Sess04 of the sealed test split would be trained on"),
        ("4,9", "no session 9"),
        ("2,4", "no labelled row is left in dev"),
    ):
        with pytest.raises(ValueError, match=said):
            next(make_again(replace(asked, test_sessions=sessions), lambda _: None))
    next(make_again(replace(asked, test_sessions="3-4"), lambda _: None))
    dealt = read_manifest(tmp_path / "out" / "manifest.csv", check_audio=False)
    assert {dealt.utterances[row].session for row in dealt.sealed_test_rows()} == {
        "Sess03",
        "Sess04",
    }
    assert read_openings(kemdy20.features_dir) == before
