"""A system of one's own, in a file outside of the project: searched, packed, exported, loaded again
where the file is named and refused where it is not.
"""

import json
import shutil
from pathlib import Path

import pytest

import mmm
from mmm.bundle.read import BundleError, load_bundle
from mmm.bundle.write import seal
from mmm.files import sha256_of_file
from mmm.training import own_system
from mmm.training.config import make_config
from search.ledger.events import read_history
from tests.conftest import Corpus
from tests.own_system_parts import SYSTEM, write_system
from tests.sweep_parts import call_inside, write_space

pytestmark = pytest.mark.slow  # a whole sweep by its command
SPACE = """
KNOWN_GOOD = ({"architecture": "my_system.py:Product", "lr": 1e-3, "earlier": 0.3},)

def suggest(trial):
    return {"architecture": trial.suggest_categorical("architecture", ["my_system.py:Product"]),
            "lr": trial.suggest_float("lr", 1e-3, 1e-2, log=True),
            "own.earlier": trial.suggest_float("earlier", 0.0, 1.0),
            "context": 2, "width": 8, "classifier_hidden": 12, "batch_size": 6}
"""


@pytest.fixture(scope="module")
def folder(corpus: Corpus, empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the file, a space beside it and the sweep `own`."""
    folder = tmp_path_factory.mktemp("own")
    shutil.copy(empty_store, folder)
    write_system(folder)
    space = write_space(folder / "space.py", SPACE)
    given = {"--features": corpus.features_dir, "--name": "own", "--trials": 4, "--epochs": 3}
    given |= {"--first-rung": 2, "--runs": folder, "--packs": 2}
    options = [part for pair in given.items() for part in pair]
    call_inside("search", "run", space, corpus.manifest.path, *options, "--serial")
    return folder


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """As another process, which no command has told of any file."""
    monkeypatch.setattr(own_system, "_loaded", {})
    monkeypatch.setattr(own_system, "_latest", {})


def test_it_is_searched_in_packs_and_its_settings_and_its_file_are_on_record(folder: Path) -> None:
    trials = read_history(folder / "own" / "ledger.sqlite").trials
    assert {trial.state for trial in trials.values()} <= {"complete", "pruned"}
    assert trials[0].settings["own.earlier"] == 0.3
    for trial in trials.values():
        assert trial.architecture == SYSTEM
        assert trial.settings["system"] == f"{folder / 'my_system.py'}:{SYSTEM}"
        assert trial.settings["system_sha256"] == sha256_of_file(folder / "my_system.py")
        assert trial.settings["in_packs"] is True
        assert make_config(trial.settings).params() == trial.settings
        assert trial.epochs[0].together == 2
    assert f",{SYSTEM}," in (folder / "own" / "leaderboard.csv").read_text()


def test_the_sweeps_bundle_has_its_name_and_hash_and_no_code_and_no_path(folder: Path) -> None:
    bundle = folder / "own" / "bundle"
    settings = json.loads((bundle / "config.json").read_text())["settings"]
    assert settings["architecture"] == SYSTEM
    assert settings["system_sha256"] == sha256_of_file(folder / "my_system.py")
    assert not {"system", "in_packs"} & settings.keys()
    assert f"--system path/to/file.py:{SYSTEM}" in (bundle / "README.md").read_text()
    provenance = load_bundle(bundle).provenance
    assert provenance.system == f"my_system.py:{SYSTEM}"
    assert provenance.system_sha256 == settings["system_sha256"]


def test_it_is_exported_from_the_sweep_which_names_the_file(
    folder: Path, tmp_path: Path, forgotten: None
) -> None:
    done = call_inside("search", "export", "own", "--runs", folder, "-o", tmp_path / "best")
    assert "a fresh process reproduced its validation macro_f1" in done.stdout


def test_its_bundle_is_loaded_where_the_file_is_named_and_refused_without(
    folder: Path, tmp_path: Path, forgotten: None
) -> None:
    bundle, moved = folder / "own" / "bundle", tmp_path / "moved.py"
    with pytest.raises(BundleError, match=r"nothing was run; .* name it: --system path/to"):
        mmm.load(bundle)
    moved.write_text((folder / "my_system.py").read_text() + "# changed\n")
    with pytest.raises(BundleError, match=r"SHA-256 is \w{16}\.\.\. \(the file that was named has"):
        mmm.load(bundle, system=f"{moved}:{SYSTEM}")
    shutil.copy(folder / "my_system.py", moved)
    assert mmm.load(bundle, system=f"{moved}:{SYSTEM}").context == 2


def test_a_bundle_that_names_a_file_itself_runs_nothing(
    folder: Path, tmp_path: Path, forgotten: None
) -> None:
    bundle = Path(shutil.copytree(folder / "own" / "bundle", tmp_path / "bundle"))
    trap = tmp_path / "trap.py"
    trap.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nProduct = None\n")
    config = json.loads((bundle / "config.json").read_text())
    for changes in (
        {"architecture": f"{trap}:{SYSTEM}"},
        {"system": f"{trap}:{SYSTEM}", "system_sha256": sha256_of_file(trap)},
    ):
        changed = {**config, "settings": {**config["settings"], **changes}}
        (bundle / "config.json").write_text(json.dumps(changed))
        seal(bundle)
        with pytest.raises(BundleError):
            mmm.load(bundle)
    assert not (tmp_path / "ran").exists()


def test_a_sweep_whose_file_was_changed_is_not_resumed(folder: Path, forgotten: None) -> None:
    content = (folder / "my_system.py").read_text()
    (folder / "my_system.py").write_text(content + "# changed\n")
    try:
        done = call_inside(
            "search", "resume", "own", "--runs", folder, "--trials", 6, "--serial", status=2
        )
    finally:
        (folder / "my_system.py").write_text(content)
    assert "not the file that was used: its SHA-256 is" in done.stderr
    assert "start a new sweep with it under another --name" in done.stderr


def test_a_sweep_whose_files_are_elsewhere_goes_on_where_they_are_named(
    folder: Path, tmp_path: Path, forgotten: None
) -> None:
    """As on another machine: the sweep, the space and the system were brought to other paths."""
    there = tmp_path / "there"
    shutil.copytree(folder / "own", there / "own")
    shutil.copy(folder / "mlflow.db", there)
    for file in ("my_system.py", "space.py"):
        shutil.copy(folder / file, there)
    hidden = (folder / "my_system.py").rename(folder / "hidden.py")
    resume = ["resume", "own", "--runs", there, "--trials", 6, "--serial"]
    resume += ["--space", f"{there / 'space.py'}:suggest"]
    named = f"{there / 'my_system.py'}:{SYSTEM}"
    try:
        refused = call_inside("search", *resume, status=2)
        assert "if it is elsewhere now, say where: --system" in refused.stderr
        call_inside("search", *resume, "--system", named)
        call_inside("search", "export", "own", "--runs", there, "-o", tmp_path / "best")
        trials = read_history(there / "own" / "ledger.sqlite").trials
    finally:
        hidden.rename(folder / "my_system.py")
    assert len(trials) == 6
    assert {trials[number].state for number in (4, 5)} <= {"complete", "pruned"}
    assert trials[5].settings["system"] == named
    assert own_system.as_loaded(trials[0].settings) == {**trials[0].settings, "system": named}


def test_a_system_that_ends_the_process_fails_its_trial_and_says_so(
    corpus: Corpus, empty_store: Path, tmp_path: Path, forgotten: None
) -> None:
    shutil.copy(empty_store, tmp_path)
    write_system(tmp_path)
    file = tmp_path / "my_system.py"
    head, forward, body = file.read_text().partition("    def forward(")
    signature, _, rest = body.partition("\n")
    ends = "        if self.training:\n            raise SystemExit(0)\n"
    file.write_text(f"{head}{forward}{signature}\n{ends}{rest}")
    space = write_space(tmp_path / "space.py", SPACE)
    options = ["--features", corpus.features_dir, "--name", "own", "--trials", 1, "--epochs", 1]
    done = call_inside(
        *("search", "run", space, corpus.manifest.path, *options, "--runs", tmp_path, "--serial"),
        *("--packs", "off"),
        status=1,
    )
    assert "error: every trial failed; the first reason: SystemExit: 0" in done.stderr
