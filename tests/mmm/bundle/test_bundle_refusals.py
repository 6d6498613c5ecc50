"""A folder that is not exactly the bundle that was made is refused with the reason, and nothing in
it is run.
"""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import mmm
from mmm.bundle.read import BundleError, load_bundle, load_bundle_or_ensemble
from mmm.bundle.write import check_destination, save_run_bundle, seal, write_ensemble
from mmm.files import sha256_of_file
from tests.conftest import Corpus, trained


class Trap:
    """A pickle of this makes a file where it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.target), "w")


@pytest.fixture(scope="module")
def made(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bundles, and an ensemble of the same; not to be changed."""
    folder = tmp_path_factory.mktemp("bundles")
    for architecture in ("vanilla_concat", "mlp_mixer"):
        run = trained(corpus, architecture, epochs=1, context=2)
        for path in (folder / architecture, folder / "ensemble" / "members" / architecture):
            save_run_bundle(run, path, name=architecture)
    members = ("members/vanilla_concat", "members/mlp_mixer")
    write_ensemble(folder / "ensemble", name="both", members=members)
    return folder


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "vanilla_concat", tmp_path / "bundle"))


@pytest.fixture
def ensemble(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "ensemble", tmp_path / "ensemble"))


def trap(folder: Path) -> bytes:
    return pickle.dumps(Trap(folder / "ran"))


def test_the_trap_works(tmp_path: Path) -> None:
    pickle.loads(trap(tmp_path)).close()
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name", ["model.pkl", "pytorch_model.bin", "model.pt", "extra/data.pkl", "hook.py", "weights"]
)
@pytest.mark.parametrize("is_listed", [False, True])
def test_a_pickle_put_beside_is_refused_also_where_the_checksums_name_it(
    bundle: Path, tmp_path: Path, name: str, is_listed: bool
) -> None:
    (bundle / name).parent.mkdir(exist_ok=True)
    (bundle / name).write_bytes(trap(tmp_path))
    if is_listed:
        seal(bundle)
    with pytest.raises(
        BundleError, match=rf"bundle/{name}: does not belong in a bundle, .* nothing was loaded"
    ):
        mmm.load(bundle)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("torch_zip", [False, True])
def test_weights_replaced_by_a_pickle_are_refused_and_not_run(
    bundle: Path, tmp_path: Path, torch_zip: bool
) -> None:
    if torch_zip:
        torch.save({"weight": Trap(tmp_path / "ran")}, bundle / "model.safetensors")
    else:
        (bundle / "model.safetensors").write_bytes(trap(tmp_path))
    with pytest.raises(
        BundleError, match=r"model\.safetensors: damaged: its checksum is not the recorded one"
    ):
        mmm.load(bundle)
    seal(bundle)  # whoever made it would also have written the checksums
    with pytest.raises(
        BundleError,
        match=r"model\.safetensors: not in the safetensors format .* nothing in it was run",
    ):
        mmm.load(bundle)
    assert not (tmp_path / "ran").exists()


def test_a_file_that_the_checksums_do_not_name_is_refused(bundle: Path) -> None:
    (bundle / "more.json").write_text("{}")
    with pytest.raises(
        BundleError,
        match=r"bundle/more\.json: not a file of this bundle \(checksums\.json does not name it\)",
    ):
        mmm.load(bundle)


def test_what_git_and_hubs_leave_in_a_folder_is_passed_over(bundle: Path) -> None:
    for name in (".gitattributes", ".git/HEAD", ".cache/huggingface/download/config.json.metadata"):
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / name).write_text("x")
    assert mmm.load(bundle).labels


def test_a_link_to_a_file_elsewhere_is_held_to_the_same_checksum(
    bundle: Path, tmp_path: Path
) -> None:
    (bundle / "model.safetensors").rename(tmp_path / "blob")
    (bundle / "model.safetensors").symlink_to(
        tmp_path / "blob"
    )  # as the cache of Hugging Face's hub has it
    assert mmm.load(bundle).labels
    (tmp_path / "blob").write_bytes(b"\0" + (tmp_path / "blob").read_bytes()[1:])
    with pytest.raises(BundleError, match="damaged"):
        mmm.load(bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, r"bundle format 2, this version \(.*\) reads 1"),
        ({"format": None}, "bundle format None"),
        ({"dims": {}}, "its files do not fit each other"),
        (
            {"settings": {"architecture": "gpt"}},
            "its files do not fit each other .*unknown architecture 'gpt'",
        ),
        ({"labels": 3}, "its files do not fit each other"),
        ({"members": ["../other"]}, "names members that are not in this folder"),
    ],
)
def test_a_config_that_was_changed_with_its_checksum_is_refused(
    bundle: Path, change: dict[str, Any], message: str
) -> None:
    shutil.copytree(bundle, bundle.parent / "other")
    about = json.loads((bundle / "config.json").read_text())
    (bundle / "config.json").write_text(json.dumps(about | change))
    seal(bundle)
    with pytest.raises(BundleError, match=message):
        load_bundle_or_ensemble(bundle)


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"config.json": 3, "model.safetensors": 3, "provenance.json": 3}', "{}"]
)
def test_checksums_that_are_none_are_refused(bundle: Path, content: str) -> None:
    (bundle / "checksums.json").write_text(content)
    with pytest.raises(BundleError, match=r"checksums\.json: damaged"):
        load_bundle_or_ensemble(bundle)


def test_every_file_of_an_ensemble_is_held_to_its_checksum(ensemble: Path, tmp_path: Path) -> None:
    files = sorted(file for file in ensemble.rglob("*") if file.is_file())
    assert len(files) == 3 + 2 * 4
    for file in files:
        content = file.read_bytes()
        file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        with pytest.raises(BundleError, match="damaged"):
            load_bundle_or_ensemble(ensemble)
        file.write_bytes(content)
    (ensemble / "members" / "mlp_mixer" / "x.pkl").write_bytes(trap(tmp_path))
    with pytest.raises(BundleError, match=r"mlp_mixer/x\.pkl: does not belong in a bundle"):
        load_bundle_or_ensemble(ensemble)
    assert not (tmp_path / "ran").exists()


def test_an_ensemble_is_refused_where_one_bundle_is_expected(ensemble: Path) -> None:
    with pytest.raises(
        BundleError,
        match=(
            r"ensemble: an ensemble, where one bundle is expected; name one of its members, for"
            r" .*vanilla"
        ),
    ):
        load_bundle(ensemble)


def test_bundles_over_other_classes_are_no_ensemble(ensemble: Path) -> None:
    member = ensemble / "members" / "mlp_mixer"
    about = json.loads((member / "config.json").read_text())
    (member / "config.json").write_text(json.dumps(about | {"labels": about["labels"][::-1]}))
    seal(member)
    before = sha256_of_file(ensemble / "checksums.json")
    with pytest.raises(
        BundleError,
        match="mlp_mixer and vanilla_concat cannot be one ensemble: they differ in classes",
    ):
        write_ensemble(
            ensemble,
            name="both",
            members=("members/vanilla_concat", "members/mlp_mixer"),
        )
    assert sha256_of_file(ensemble / "checksums.json") == before


def test_a_folder_of_other_bundles_is_not_replaced_by_one(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "all")
    with pytest.raises(BundleError, match="all: exists and is no bundle; choose another folder"):
        check_destination(tmp_path / "all")


def test_a_bundle_with_notes_of_someone_is_not_replaced(bundle: Path) -> None:
    check_destination(bundle)
    (bundle / "notes.txt").write_text("do not lose me")
    with pytest.raises(
        BundleError,
        match=r"bundle: holds notes\.txt, which is not the bundle's; choose another folder",
    ):
        check_destination(bundle)
