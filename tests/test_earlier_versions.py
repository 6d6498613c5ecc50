"""What earlier versions left behind goes on: sweeps are resumed, bundles and registered models
answer, checkpoints train on.

`tests/data/version_0_1_0` was made by that version and is never made again (its README.md says how
it was). Settings that a later version adds are missing in it, and have to mean what was done then:
figures are held against those recorded.
"""

import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from mlflow import MlflowClient

from mmm.bundle.evaluate import evaluate_bundle
from mmm.bundle.read import load_bundle
from mmm.bundle.sealed_test import open_test, read_openings
from mmm.features.store import list_recipes, open_store
from mmm.manifest import Manifest, speech_key
from mmm.manifest_csv import read_manifest
from mmm.models import PUBLISHED
from mmm.predict.predictor import Predictor
from mmm.training.checkpoint import load_checkpoint
from mmm.training.config import make_config
from mmm.training.features import load_features
from mmm.training.fit import fit
from mmm.training.run import begin
from search.engine.controller import Controller
from search.ledger.events import open_sweep, read_events, read_history
from search.ledger.history import History
from search.space.load import load_space
from search.tracking.store import EXPERIMENT, default_tracking_uri
from tests.sweep_parts import METRIC, TIMEOUT_S, call_here, environment, train_serially

VERSION_0_1_0 = Path(__file__).parent / "data" / "version_0_1_0"
UNFINISHED = 12  # the trial of the sweep `first` that was interrupted
TOLERANCE = (
    1e-4  # sums of floats differ by less from one machine to another, and other inputs by more
)
# Of the names and contents of all files but those written by hand.
SHA256 = "4c7ef3c68dbf795ad35ada746f2df09a2540b545fcd52dd8956576ade2ffd70c"
BUNDLES = ("bundle-concat", "bundle-sequence")
RESUME = """
import json, sys
from pathlib import Path
from rich.console import Console
from search.session import resume

resume(Path(sys.argv[1]), "first", json.loads(sys.argv[2]), Console())
"""


@dataclass(frozen=True)
class Old:
    """A copy of what a version left, on another machine than its ledgers say."""

    folder: Path

    @property
    def features(self) -> Path:
        return self.folder / "features"

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    @property
    def manifest(self) -> Manifest:
        return read_manifest(self.folder / "manifest.csv")

    @property
    def moved(self) -> dict[str, Any]:
        """What a sweep has to be told of its new place."""
        return {"manifest": str(self.folder / "manifest.csv"), "features": str(self.features)}

    def expected(self, name: str) -> Any:
        """What the version itself came to."""
        return json.loads((self.folder / "expected.json").read_text())[name]

    def history(self, name: str) -> History:
        return read_history(self.runs / name / "ledger.sqlite")


def copy_of(source: Path, folder: Path) -> Old:
    """With the times of change that the feature stores recorded: git does not keep them."""
    shutil.copytree(source, folder)
    old = Old(folder)
    manifest = old.manifest
    (store,) = [
        open_store(path)
        for path, recipe in list_recipes(old.features).items()
        if recipe["kind"] == "audio"
    ]
    rows = store.find([speech_key(manifest, index) for index in range(len(manifest.utterances))])
    for utterance, (_, changed_ns) in zip(
        manifest.utterances, store.stamps[rows].tolist(), strict=True
    ):
        os.utime(manifest.audio_path(utterance), ns=(changed_ns, changed_ns))
    return old


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Old:
    """Not to be changed by a test."""
    return copy_of(VERSION_0_1_0, tmp_path_factory.mktemp("old") / "of-0.1.0")


def assert_same_metrics(found: Mapping[str, Any], recorded: Mapping[str, Any]) -> None:
    assert found["confusion_matrix"] == recorded["confusion_matrix"]
    scalars = {name: value for name, value in recorded.items() if isinstance(value, float)}
    assert {"loss", METRIC, "accuracy"} <= scalars.keys()
    for name, value in scalars.items():
        assert found[name] == pytest.approx(value, abs=TOLERANCE), name


def test_the_files_are_those_that_the_version_made() -> None:
    digest = hashlib.sha256()
    for name in sorted(
        file.relative_to(VERSION_0_1_0).as_posix()
        for file in VERSION_0_1_0.rglob("*")
        if file.is_file()
    ):
        if name not in ("README.md", "make.py", "space.py"):
            content = (VERSION_0_1_0 / name).read_bytes()
            digest.update(f"{name} {hashlib.sha256(content).hexdigest()}\n".encode())
    assert digest.hexdigest() == SHA256, (
        "figures of an old version cannot be made by a newer one: get the files back from git"
    )


@pytest.mark.parametrize("name", BUNDLES)
def test_a_bundle_evaluated_on_its_features_has_the_metrics_that_were_recorded(
    old: Old, name: str
) -> None:
    bundle, manifest = load_bundle(old.folder / name), old.manifest
    assert bundle.config.is_pooled == (name == "bundle-concat")
    found = evaluate_bundle(
        bundle, manifest, old.features, manifest.rows("dev"), torch.device("cpu")
    )
    assert_same_metrics(found, bundle.provenance.validation_metrics)


@pytest.mark.parametrize("name", BUNDLES)
def test_a_bundle_predicts_what_it_predicted(old: Old, name: str) -> None:
    clip, before = old.folder / "audio" / "01.wav", old.folder / "audio" / "04.wav"
    found = Predictor(load_bundle(old.folder / name)).predict(
        clip, "how lovely", [(before, "oh dear")]
    )
    assert found == pytest.approx(old.expected(name.removeprefix("bundle-")), abs=TOLERANCE)


def test_the_test_split_opened_again_gives_the_figures_on_record(old: Old, tmp_path: Path) -> None:
    shutil.copytree(old.features, tmp_path / "features")
    (record,) = read_openings(old.features)
    open_test(
        [load_bundle(old.folder / "bundle-sequence")],
        old.manifest,
        tmp_path / "features",
        torch.device("cpu"),
    )
    first, again = read_openings(tmp_path / "features")
    assert first == record
    same = (
        "bundle_sha256",
        "weights_sha256",
        "manifest_sha256",
        "utterances",
        "macro_f1",
        "accuracy",
    )
    assert [again[name] for name in same] == [record[name] for name in same]


def test_a_registered_model_is_loaded_by_mlflow_and_answers_what_it_answered(old: Old) -> None:
    import mlflow

    model = mlflow.pyfunc.load_model(str(old.folder / "registered-model"))
    example = json.loads((old.folder / "registered-model" / "input_example.json").read_text())
    (found,) = model.predict(pd.DataFrame(example["data"], columns=example["columns"])).to_dict(
        "records"
    )
    assert found == pytest.approx(old.expected("registered"), abs=TOLERANCE)


def test_a_checkpoint_is_trained_on_as_the_version_did(old: Old) -> None:
    expected = old.expected("plain")
    config = make_config(expected["settings"])
    run = begin(config, load_features(old.manifest, old.features, *config.features_key))
    load_checkpoint(run, old.folder / "checkpoint.safetensors")
    assert run.epoch == 3
    assert run.best_metrics == max(
        (entry["metrics"] for entry in expected["epochs"][:3]), key=lambda metrics: metrics[METRIC]
    )
    found = list(fit(run))
    assert [result.epoch for result in found] == [4, 5, 6]
    for result, entry in zip(found, expected["epochs"][3:], strict=True):
        assert result.train_loss == pytest.approx(entry["train_loss"], abs=TOLERANCE)
        assert_same_metrics(result.metrics, entry["metrics"])


def test_a_sweep_is_looked_at_and_reported_where_its_data_is_not(
    old: Old, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(old.runs, tmp_path / "runs")
    status, told, _ = call_here(capsys, monkeypatch, "status", "first", "--runs", tmp_path / "runs")
    assert status == 0
    assert "13 of 13 trials: 1 running, " in told
    assert "session: compute budget" in told
    status, told, _ = call_here(capsys, monkeypatch, "report", "first", "--runs", tmp_path / "runs")
    assert status == 0
    assert (tmp_path / "runs" / "first" / "report.html").read_text(encoding="utf-8").count(
        "<tr class="
    ) == 13


@dataclass(frozen=True)
class Resumed:
    """The sweep `first` before and after it was resumed, with one more trial."""

    old: Old
    before: History
    after: History


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Resumed:
    old = copy_of(VERSION_0_1_0, tmp_path_factory.mktemp("resumed") / "of-0.1.0")
    shutil.copy(empty_store, old.runs)
    before = old.history("first")
    changes = {
        **old.moved,
        "space": f"{old.folder / 'space.py'}:suggest",
        "compute_budget_s": None,
        "trials": UNFINISHED + 2,
    }
    done = subprocess.run(
        [sys.executable, "-c", RESUME, str(old.runs), json.dumps(changes)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "MLflow did not" not in done.stdout
    return Resumed(old, before, old.history("first"))


def test_a_resumed_sweep_ends_and_what_had_ended_stays_as_it_was(resumed: Resumed) -> None:
    before, after = resumed.before, resumed.after
    assert [trial.number for trial in before.trials.values() if trial.state == "running"] == [
        UNFINISHED
    ]
    assert {trial.settings["architecture"] for trial in before.trials.values()} == set(PUBLISHED)
    assert after.last_close is not None
    assert after.last_close.why == "done"
    assert list(after.trials) == list(range(UNFINISHED + 2))
    assert {trial.state for trial in after.trials.values()} <= {"complete", "pruned"}
    for number, trial in before.trials.items():
        if number != UNFINISHED:
            assert after.trials[number] == trial


def test_the_interrupted_trial_goes_on_from_its_checkpoint_as_the_version_went_on(
    resumed: Resumed,
) -> None:
    before, after = (history.trials[UNFINISHED] for history in (resumed.before, resumed.after))
    assert before.checkpoint is not None
    reached = before.checkpoint.epoch
    assert len(before.epochs) == reached < 10
    assert after.settings == before.settings
    assert after.epochs[:reached] == before.epochs
    events = list(read_events(resumed.old.runs / "first" / "ledger.sqlite"))
    session = [event.seq for event in events if event.kind == "session"][-1]
    trained = [
        event.body.epoch
        for event in events
        if event.kind == "epoch" and event.trial == UNFINISHED and event.seq > session
    ]
    assert trained == list(range(reached + 1, 11))
    for entry, expected in zip(after.epochs, resumed.old.expected("finished"), strict=True):
        assert entry.train_loss == pytest.approx(expected["train_loss"], abs=TOLERANCE)
        assert_same_metrics(after.metrics(entry.epoch), expected["metrics"])


def test_all_trials_of_a_resumed_sweep_are_in_mlflow(resumed: Resumed) -> None:
    client = MlflowClient(tracking_uri=default_tracking_uri(resumed.old.runs))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    found = {
        run.data.tags["mmm.trial"]: run for run in client.search_runs([experiment.experiment_id])
    }
    assert found.keys() == {"sweep", *map(str, resumed.after.trials)}
    for trial in resumed.after.trials.values():
        best = trial.best(METRIC)
        assert best is not None
        assert found[str(trial.number)].data.tags["mmm.state"] == trial.state


def test_trials_of_before_and_after_the_resumption_are_exported_with_their_scores(
    resumed: Resumed,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old, manifest = resumed.old, resumed.old.manifest
    ended = next(
        trial.number for trial in resumed.before.ranked(METRIC) if trial.state != "running"
    )
    for number in (ended, UNFINISHED):
        status, told, error = call_here(
            capsys,
            monkeypatch,
            "export",
            "first",
            "--trial",
            number,
            "-o",
            tmp_path / str(number),
            "--runs",
            old.runs,
        )
        assert status == 0, error
        assert f"a fresh process reproduced its validation {METRIC}" in told
        trial = resumed.after.trials[number]
        best = trial.best(METRIC)
        assert best is not None
        found = evaluate_bundle(
            load_bundle(tmp_path / str(number)),
            manifest,
            old.features,
            manifest.rows("dev"),
            torch.device("cpu"),
        )
        assert_same_metrics(found, trial.metrics(best[0]))


def test_a_sweep_over_a_named_space_goes_on_in_the_space_as_it_is_now(
    old: Old, tmp_path: Path
) -> None:
    folder = tmp_path / "quick"
    shutil.copytree(old.runs / "quick", folder)
    before = read_history(folder / "ledger.sqlite")
    assert before.spec.space == "quick"
    number = len(before.trials)
    spec = replace(before.spec, **old.moved, trials=number + 1)
    with open_sweep(folder) as ledger:
        controller = Controller(ledger, spec, load_space("quick"), "cpu", lambda: None)
        controller.open_session("")
        # Something is expected of every trial, from what those of before came to.
        expected = controller.orders.searcher.expected(list(before.trials))
        assert expected is not None
        assert all(map(math.isfinite, expected.values()))
        for _ in train_serially(controller):
            pass
        after = ledger.history
    assert {key: after.trials[key] for key in before.trials} == before.trials
    assert after.trials[number].state in ("complete", "pruned"), after.trials[number].reason
