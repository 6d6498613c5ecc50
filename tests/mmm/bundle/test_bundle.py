"""Bundles: what ships comes back the same, and a damaged one is refused."""

import json
from pathlib import Path

import pytest
import torch

from mmm.bundle.evaluate import evaluate_bundle
from mmm.bundle.read import BundleError, find_bundles, load_bundle
from mmm.bundle.records import Provenance
from mmm.bundle.write import save_run_bundle
from mmm.files import sha256_of_file
from mmm.models import ARCHITECTURES
from mmm.training.evaluate import evaluate
from tests.conftest import Corpus, names_in, trained

CPU = torch.device("cpu")
FILES = ("checksums.json", "config.json", "model.safetensors", "provenance.json")


def make(corpus: Corpus, path: Path, architecture: str = "vanilla_concat") -> str:
    return save_run_bundle(trained(corpus, architecture, epochs=1), path, name="small")


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_bundle_reproduces_its_validation_metrics(
    corpus: Corpus, tmp_path: Path, architecture: str, masked: bool
) -> None:
    run = trained(corpus, architecture, context=2, masked=masked, epochs=3)
    about = Provenance(sweep="none")
    digest = save_run_bundle(run, tmp_path / "bundle", name="best", provenance=about)
    bundle = load_bundle(tmp_path / "bundle")
    assert (
        evaluate(bundle.model, run.dev, CPU)
        == run.best_metrics
        == bundle.provenance.validation_metrics
    )
    dev = corpus.manifest.rows("dev")
    assert (
        evaluate_bundle(bundle, corpus.manifest, corpus.features_dir, dev, CPU) == run.best_metrics
    )
    assert (bundle.config, bundle.dims, bundle.labels) == (
        run.config,
        run.dims,
        corpus.manifest.classes,
    )
    assert bundle.sha256 == digest == sha256_of_file(tmp_path / "bundle" / "checksums.json")
    assert not bundle.model.training
    assert bundle.provenance.sweep == "none"
    assert bundle.provenance.epoch == run.best_epoch


def test_the_last_weights_can_be_bundled_too(corpus: Corpus, tmp_path: Path) -> None:
    run = trained(corpus, "vanilla_concat", epochs=2)
    save_run_bundle(run, tmp_path / "last", name="last", last=True)
    bundle = load_bundle(tmp_path / "last")
    assert all(
        torch.equal(value, run.model.state_dict()[name])
        for name, value in bundle.model.state_dict().items()
    )
    assert bundle.provenance.epoch == 2
    assert bundle.provenance.validation_metrics is None


def test_the_same_run_gives_the_same_weights_file(corpus: Corpus, tmp_path: Path) -> None:
    for name in ("one", "two"):
        make(corpus, tmp_path / name)
    assert sha256_of_file(tmp_path / "one/model.safetensors") == sha256_of_file(
        tmp_path / "two/model.safetensors"
    )


@pytest.mark.parametrize("file", FILES)
def test_one_flipped_byte_in_any_file_is_refused(corpus: Corpus, tmp_path: Path, file: str) -> None:
    path = tmp_path / "bundle"
    make(corpus, path)
    content = (path / file).read_bytes()
    for place in (0, len(content) // 2, len(content) - 2):
        damaged = bytearray(content)
        damaged[place] ^= 0x01
        (path / file).write_bytes(damaged)
        with pytest.raises(BundleError, match="damaged"):
            load_bundle(path)
    (path / file).write_bytes(content)
    load_bundle(path)


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_named(corpus: Corpus, tmp_path: Path, file: str) -> None:
    make(corpus, tmp_path / "bundle")
    (tmp_path / "bundle" / file).unlink()
    expected = FileNotFoundError if file == "checksums.json" else BundleError
    with pytest.raises(
        expected,
        match=(
            rf"no bundle here \(no {file}\)"
            if expected is FileNotFoundError
            else f"{file} is missing"
        ),
    ):
        load_bundle(tmp_path / "bundle")


def test_another_format_version_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    make(corpus, path)
    about = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(about | {"format": 2}))
    checksums = json.loads((path / "checksums.json").read_text())
    (path / "checksums.json").write_text(
        json.dumps(checksums | {"config.json": sha256_of_file(path / "config.json")})
    )
    with pytest.raises(BundleError, match=r"bundle format 2, this version \(.*\) reads 1"):
        load_bundle(path)


def test_a_bundle_holds_weights_and_json_and_nothing_that_runs(
    corpus: Corpus, tmp_path: Path
) -> None:
    make(corpus, tmp_path / "bundle")
    assert sorted(file.name for file in (tmp_path / "bundle").iterdir()) == sorted(FILES)
    for file in FILES:
        content = (tmp_path / "bundle" / file).read_bytes()
        assert not content.startswith((b"PK", b"\x80"))  # torch's zip archive, a pickle
        header = (
            content[8 : 8 + int.from_bytes(content[:8], "little")]
            if file.endswith(".safetensors")
            else content
        )
        json.loads(header)


def test_a_foreign_folder_is_not_replaced(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    with pytest.raises(BundleError, match="thesis: exists and is no bundle; choose another folder"):
        make(corpus, tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "years of work"
    assert names_in(tmp_path) == ["thesis"]


def test_an_empty_folder_and_an_older_bundle_are_replaced(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    make(corpus, tmp_path / "bundle", "vanilla_concat")
    second = make(corpus, tmp_path / "bundle", "three_way_concat")
    assert load_bundle(tmp_path / "bundle").sha256 == second
    assert load_bundle(tmp_path / "bundle").config.architecture == "three_way_concat"
    assert names_in(tmp_path) == ["bundle"]


def test_bundles_saved_along_the_way_survive(corpus: Corpus, tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    digests = {path / f"epoch-{epoch}": make(corpus, path / f"epoch-{epoch}") for epoch in (1, 5)}
    # The epoch bundles come first in a training run, so the folder has no checksums of its own yet.
    digests[path] = make(corpus, path)
    digests[path] = make(corpus, path)
    assert {folder: load_bundle(folder).sha256 for folder in find_bundles(path)} == digests


def test_a_failed_save_leaves_the_older_bundle(corpus: Corpus, tmp_path: Path) -> None:
    digest = make(corpus, tmp_path / "bundle")
    run = trained(corpus, "vanilla_concat", epochs=1)
    bad = Provenance(other={"when": object()})
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_run_bundle(run, tmp_path / "bundle", name="bad", provenance=bad)
    assert load_bundle(tmp_path / "bundle").sha256 == digest
    assert names_in(tmp_path) == ["bundle"]


def test_a_folder_without_bundles_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match="no bundle below this folder; make one with mmm train"
    ):
        find_bundles(tmp_path)


def test_weights_in_any_layout_are_saved_as_they_are(corpus: Corpus, tmp_path: Path) -> None:
    run = trained(corpus, "vanilla_concat", epochs=1)
    weights = {
        name: value.T.contiguous().T for name, value in run.best_weights.items() if value.dim() == 2
    }
    weights |= {name: value for name, value in run.best_weights.items() if value.dim() != 2}
    run.best_weights = weights
    save_run_bundle(run, tmp_path / "bundle", name="turned")
    assert evaluate(load_bundle(tmp_path / "bundle").model, run.dev, CPU) == run.best_metrics


def test_what_another_version_knew_of_a_bundle_is_kept() -> None:
    content = {"mmm_version": "9.0", "trial": 0, "weather": "fine"}
    provenance = Provenance.from_json(content)
    assert (provenance.trial, provenance.sweep) == (0, None)
    assert provenance.as_json() == content
