"""MLflow as a projection of the ledger: whatever the ledger holds can be sent, later and again, and a store's trouble stays its own."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from mmm.config import make_config
from search.config import SweepSpec
from search.ledger import Entry, Ledger
from search.tracking import EXPERIMENT, Tracker, default_tracking_uri
from tests.sweep_parts import METRIC

SPEC = SweepSpec("first", "quick", "manifest.csv", "features", trials=4, epochs=2, workers=1)
SETTINGS = make_config({"architecture": "mlp_mixer", "context": 3, "num_blocks": 2}).params()


def epoch(number: int, at: int, score: float) -> Entry:
    metrics: dict[str, Any] = {METRIC: score, "per_class": {"sad": {"f1": score / 2}}}
    return (
        "epoch",
        number,
        {"epoch": at, "train_loss": 1.0, "metrics": metrics, "seconds": 0.1, "alone_seconds": 0.1, "ended": 0.0},
    )


def suggest(number: int, settings: dict[str, Any]) -> Entry:
    return "suggest", number, {"params": {}, "distributions": {}, "settings": settings}


def end(number: int, state: str) -> Entry:
    return "end", number, {"state": state, "reason": f"why {state}", "traceback": ""}


SESSION: Entry = ("session", None, {"spec": SPEC.as_json(), "host": "here", "command": ""})
CLOSE: Entry = ("close", None, {"why": "done", "seconds": 1.0, "efficiency": 0.9})


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite store with MLflow's tables and nothing in them, which takes MLflow seconds to make."""
    folder = tmp_path_factory.mktemp("store")
    MlflowClient(tracking_uri=default_tracking_uri(folder)).search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def ledger(tmp_path: Path, empty_store: Path) -> Iterator[Ledger]:
    """Two scored trials, one whose settings were invalid and one that is still running; beside it an empty store."""
    shutil.copy(empty_store, tmp_path)
    with Ledger(tmp_path / "first") as opened:
        opened.append(("sweep", None, {"spec": SPEC.as_json()}), SESSION)
        for number, score in ((0, 0.5), (1, 0.4)):
            opened.append(suggest(number, SETTINGS), epoch(number, 1, 0.1), epoch(number, 2, score), end(number, "complete"))
        opened.append(suggest(2, {}), end(2, "failed"))
        opened.append(suggest(3, SETTINGS), epoch(3, 1, 0.3))
        yield opened


def runs_by_trial(runs: Path) -> dict[str, Any]:
    client = MlflowClient(tracking_uri=default_tracking_uri(runs))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    found = {run.data.tags["mmm.trial"]: run for run in client.search_runs([experiment.experiment_id])}
    assert len(found) == len(client.search_runs([experiment.experiment_id]))
    return found


def points(runs: Path, trial: str, name: str = METRIC) -> list[tuple[int, float]]:
    client = MlflowClient(tracking_uri=default_tracking_uri(runs))
    history = client.get_metric_history(runs_by_trial(runs)[trial].info.run_id, name)
    return sorted((point.step, point.value) for point in history)


def bundle_in(folder: Path) -> Path:
    (folder / "bundle").mkdir()
    (folder / "bundle" / "config.json").write_text("{}")
    return folder / "bundle"


def test_trials_without_valid_settings_are_sent_too(ledger: Ledger, tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, "first", None)
    assert tracker.close(), tracker.trouble
    found = runs_by_trial(tmp_path)
    assert found.keys() == {"sweep", "0", "1", "2", "3"}
    assert (found["2"].info.status, found["2"].data.tags["mmm.reason"]) == ("FAILED", "why failed")
    assert [found[key].info.run_name for key in ("0", "2")] == ["mlp_mixer K3 b2 #0", "invalid #2"]


def test_what_nobody_trains_any_more_is_not_left_running(ledger: Ledger, tmp_path: Path) -> None:
    ledger.append(CLOSE)
    tracker = Tracker(tmp_path, "first", None)
    assert tracker.close(), tracker.trouble
    assert tracker.finish(ledger.history, None, None), tracker.trouble
    found = runs_by_trial(tmp_path)
    assert {key: run.info.status for key, run in found.items()} == {
        "sweep": "FINISHED", "0": "FINISHED", "1": "FINISHED", "2": "FAILED", "3": "KILLED",
    }  # fmt: skip
    assert found["3"].data.tags["mmm.state"] == "interrupted"


def test_a_resumed_session_goes_on_in_the_same_runs(ledger: Ledger, tmp_path: Path) -> None:
    assert Tracker(tmp_path, "first", None).close()
    before = {key: run.info.run_id for key, run in runs_by_trial(tmp_path).items()}
    ledger.append(SESSION, epoch(3, 1, 0.3), epoch(3, 2, 0.35), end(3, "pruned"), CLOSE)  # epoch 1 was trained again
    assert Tracker(tmp_path, "first", None).close()
    after = runs_by_trial(tmp_path)
    assert {key: run.info.run_id for key, run in after.items()} == before
    assert after["3"].info.status == "KILLED"
    assert points(tmp_path, "3") == [(1, 0.3), (2, 0.35)]
    assert points(tmp_path, "3", "f1_sad") == [(1, 0.15), (2, 0.175)]


def test_a_better_trial_takes_over_the_mark_of_the_best(ledger: Ledger, tmp_path: Path) -> None:
    bundle = bundle_in(tmp_path)
    for winner in (1, 0, 0):
        tracker = Tracker(tmp_path, "first", None)
        assert tracker.close(), tracker.trouble
        assert tracker.finish(ledger.history, bundle, winner), tracker.trouble
        found = runs_by_trial(tmp_path)
        assert [key for key, run in found.items() if run.data.tags.get("mmm.best") == "true"] == [str(winner)]
        assert found["sweep"].data.tags["mmm.best_trial"] == str(winner)
    assert points(tmp_path, "0", f"best_{METRIC}") == [(0, 0.5)]  # finishing twice adds nothing


def test_a_store_that_does_not_answer_is_named_and_everything_is_sent_later(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tracker = Tracker(tmp_path, "first", "http://127.0.0.1:1")
    assert not tracker.close()
    assert "127.0.0.1" in tracker.trouble
    assert not tracker.finish(ledger.history, None, None)
    assert Tracker(tmp_path, "first", None).close()
    assert points(tmp_path, "0") == [(1, 0.1), (2, 0.5)]


def test_two_sweeps_share_a_store_and_do_not_mix(ledger: Ledger, tmp_path: Path) -> None:
    with Ledger(tmp_path / "second") as other:
        other.append(("sweep", None, {"spec": {**SPEC.as_json(), "name": "second"}}), suggest(0, SETTINGS), epoch(0, 1, 0.9))
        assert Tracker(tmp_path, "first", None).close()
        assert Tracker(tmp_path, "second", None).close()
    client = MlflowClient(tracking_uri=default_tracking_uri(tmp_path))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.tags["mmm.sweep"] for run in found) == ["first"] * 5 + ["second"] * 2
    for run in found:
        if run.data.tags["mmm.trial"] != "sweep":
            parent = client.get_run(run.data.tags["mlflow.parentRunId"])
            assert parent.data.tags["mmm.sweep"] == run.data.tags["mmm.sweep"]
