"""Bundles whose files are what their checksums say, and say what no bundle of ours does: refused by
name before anything is taken for what they say.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mmm
from mmm.bundle.write import save_run_bundle, seal, write_ensemble
from tests.conftest import Corpus, trained

Content = dict[str, Any]


@pytest.fixture(scope="module")
def good(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good") / "bundle"
    save_run_bundle(trained(corpus, "vanilla_concat"), folder, name="good")
    return folder


@pytest.fixture
def poisoned(good: Path, tmp_path: Path) -> Callable[[str, str], Path]:
    def make(file: str, text: str) -> Path:
        folder = tmp_path / "poisoned"
        shutil.copytree(good, folder, dirs_exist_ok=True)
        (folder / file).write_text(text)
        if file != "checksums.json":
            seal(folder)
        return folder

    return make


@pytest.mark.parametrize("file", ["config.json", "provenance.json", "checksums.json"])
@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[]", "5", "\udcff", ""])
def test_json_that_is_none_or_too_deep_is_refused(
    poisoned: Callable[[str, str], Path], file: str, text: str
) -> None:
    folder = poisoned(file, text.encode(errors="replace").decode())
    with pytest.raises(ValueError, match=rf"{file}: damaged: not a JSON object"):
        mmm.load(folder)


def _set(*path: str, value: object) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        for name in path[:-1]:
            content = content[name]
        content[path[-1]] = value

    return change


_HUGE = 10**9


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (_set("labels", value=[]), "labels are not two or more different names"),
        (_set("labels", value=[1, 2, 3, 4]), "labels are not two or more different names"),
        (_set("labels", value=["a", "a", "b", "c"]), "labels are not two or more different names"),
        (_set("labels", value=["a", "b", "c"]), "3 labels for 4 classes"),
        (_set("name", value=5), "name is 5"),
        (_set("dims", "speech_width", value=_HUGE), "speech_width is 1000000000, no whole number"),
        (_set("dims", "text_width", value=-1), "text_width is -1, no whole number"),
        (_set("dims", "text_positions", value=10**6), "text_positions is 1000000, no whole number"),
        (_set("dims", "num_classes", value=True), "num_classes is True, no whole number"),
        (_set("settings", value=[]), "settings are no object but list"),
        (_set("settings", "width", value=_HUGE), "size mismatch"),
        (_set("settings", "classifier_hidden", value=_HUGE), "size mismatch"),
        (_set("audio_recipe", value=[]), "not a recipe"),
        (_set("audio_recipe", "kind", value="text"), "not a recipe: context is missing"),
        (_set("audio_recipe", "encoder", value=[]), r"not a recipe: encoder is \[\]"),
        (_set("audio_recipe", "frame_rate_hz", value=0), "not a recipe: frame_rate_hz is 0"),
        (_set("audio_recipe", "encoder", value="a/b"), "the recipe of 'a/b' lacks revision"),
        (_set("audio_recipe", "num_mels", value=8), "its head reads 48 numbers of speech"),
        (_set("text_recipe", "width", value=64), "and 32 of text, its encoders give 48 and 64"),
        (_set("text_recipe", "width", value=_HUGE), "--text-width 1000000000 is out of range"),
        (_set("text_recipe", "max_tokens", value={}), r"not a recipe: max_tokens is \{\}"),
        (_set("text_recipe", "context", value=0), "not a recipe: context is 0"),
    ],
)
def test_what_no_bundle_says_is_refused_by_name(
    good: Path,
    poisoned: Callable[[str, str], Path],
    change: Callable[[Content], None],
    what: str,
) -> None:
    content = json.loads((good / "config.json").read_text())
    change(content)
    folder = poisoned("config.json", json.dumps(content))
    with pytest.raises(ValueError, match=rf"{folder}.*{what}"):
        mmm.load(folder)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"members": []}, "no members are named"),
        ({"members": 5}, "no members are named"),
        ({"temperature": 0}, "temperature is 0, no number above 0"),
        ({"temperature": "1"}, "temperature is '1', no number above 0"),
        ({"members": [[]]}, "names members that are not in this folder"),
        ({"members": ["../good"]}, "names members that are not in this folder"),
        ({"labels": ["a", "b", "c", "d"]}, "members that answer with other labels"),
    ],
)
def test_an_ensemble_of_what_is_not_there_or_does_not_fit_is_refused(
    good: Path, tmp_path: Path, changes: Content, what: str
) -> None:
    folder = tmp_path / "ensemble"
    for member in ("a", "b"):
        shutil.copytree(good, folder / "members" / member)
    write_ensemble(folder, name="both", members=("members/a", "members/b"))
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, **changes}))
    seal(folder)
    with pytest.raises(ValueError, match=what):
        mmm.load(folder)


def test_blocks_without_weights_are_not_made(good: Path, corpus: Corpus, tmp_path: Path) -> None:
    folder = tmp_path / "mixer"
    save_run_bundle(trained(corpus, "mlp_mixer"), folder, name="mixer")
    content = json.loads((folder / "config.json").read_text())
    content["settings"]["num_blocks"] = _HUGE
    (folder / "config.json").write_text(json.dumps(content))
    seal(folder)
    with pytest.raises(ValueError, match="num_blocks is more than there are weights"):
        mmm.load(folder)
