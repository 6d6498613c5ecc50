"""One real sweep on Ray, then resumed: what is on the disk, in MLflow and in the bundle, and what
the other commands make of it.
"""

import csv
import html
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run

from mmm.bundle.evaluate import evaluate_bundle
from mmm.bundle.read import load_bundle
from search.ledger.events import read_events, read_history
from search.ledger.history import History
from search.results.baseline import verdict
from search.tracking.store import EXPERIMENT, default_tracking_uri
from tests.conftest import Corpus
from tests.search.cluster.test_connect import traces_of_another_ray
from tests.sweep_parts import METRIC, call, call_here, environment, write_space

pytestmark = pytest.mark.slow

# The quick space, with one trial among its known good ones that diverges.
SPACE = """
from spaces import quick

KNOWN_GOOD = tuple({**point, "blast": 1000 if number == 2 else 0}
                   for number, point in enumerate(quick.KNOWN_GOOD))

def suggest(trial):
    settings = quick.suggest(trial)
    return {**settings, "lr": 1e30} if trial.suggest_int("blast", 0, 1000) == 1000 else settings
"""
STATUS = {"complete": "FINISHED", "pruned": "FINISHED", "failed": "FAILED"}


@dataclass(frozen=True)
class Done:
    """A sweep after `run` with 6 trials and after `resume` with 8."""

    runs: Path
    corpus: Corpus
    told: str
    told_again: str
    beside_another_ray: bool
    before: History
    runs_before: dict[str, Run]
    bundle_before: str

    @property
    def folder(self) -> Path:
        return self.runs / "first"

    @property
    def history(self) -> History:
        return read_history(self.folder / "ledger.sqlite")


def mlflow_runs(runs: Path) -> dict[str, Run]:
    """MLflow's runs by trial number, the parent as `sweep`; asserts that there is one run a
    trial.
    """
    client = MlflowClient(tracking_uri=default_tracking_uri(runs))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], max_results=1000)
    by_trial = {run.data.tags["mmm.trial"]: run for run in found}
    assert len(by_trial) == len(found)
    return by_trial


@pytest.fixture(scope="module")
def sweep(corpus: Corpus, empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("sweep")
    runs = folder / "runs"
    runs.mkdir()
    shutil.copy(empty_store, runs)
    options = [
        write_space(folder / "mine.py", SPACE),
        corpus.manifest.path,
        "--features",
        corpus.features_dir,
        "--name",
        "first",
        "--trials",
        6,
        "--epochs",
        4,
        "--first-rung",
        3,
        "--workers",
        2,
        "--runs",
        runs,
        "--packs",
        "off",
        "--system-metrics",
    ]
    with traces_of_another_ray() as trace:
        first = call("search", "run", *options)
        is_left_alone = trace.is_file()
    before, runs_before = read_history(runs / "first" / "ledger.sqlite"), mlflow_runs(runs)
    bundle = load_bundle(runs / "first" / "bundle").sha256
    second = call("search", "resume", "first", "--trials", 8, "--packs", 2, "--runs", runs)
    told = first.stdout, second.stdout
    return Done(runs, corpus, *told, is_left_alone, before, runs_before, bundle)


def test_it_has_a_ray_of_its_own_whatever_another_one_left_behind(sweep: Done) -> None:
    assert sweep.beside_another_ray
    assert "complete" in {trial.state for trial in sweep.before.trials.values()}


def test_every_trial_ends_and_who_is_stopped_early_is_so_at_a_rung(sweep: Done) -> None:
    trials = sweep.before.trials
    assert list(trials) == list(range(6))
    # Who is stopped is a matter of who comes first: where each is better than those before, nobody.
    found = {trial.state for trial in trials.values()}
    assert {"complete", "failed"} <= found <= {"complete", "pruned", "failed"}
    assert trials[2].state == "failed"
    assert re.search(r"loss is (nan|inf)", trials[2].reason)
    for trial in trials.values():
        assert trial.state == "failed" or len(trial.epochs) == (
            4 if trial.state == "complete" else 3
        )
    assert sweep.before.last_close is not None
    assert sweep.before.last_close.why == "done"


def test_the_command_tells_of_every_trial_and_where_things_are(sweep: Done) -> None:
    for number in range(6):
        assert re.search(rf"^trial {number} (complete|pruned|failed) \(", sweep.told, re.MULTILINE)
    assert (
        f"report {sweep.folder / 'report.html'}, leaderboard {sweep.folder / 'leaderboard.csv'},"
        " bundle " in sweep.told
    )
    assert "steady efficiency" in sweep.told
    assert (
        f"all trials, best first (while this runs: mmm-search ui --runs {sweep.runs}):"
        " http://127.0.0.1:5000/" in sweep.told
    )
    assert "MLflow did not" not in sweep.told


def test_leaderboard_and_report_are_written(sweep: Done) -> None:
    with open(sweep.folder / "leaderboard.csv", encoding="utf-8", newline="") as file:
        *rows, baseline = csv.DictReader(file)
    assert len(rows) == 8
    assert (baseline["trial"], baseline["state"], baseline["architecture"], baseline["rank"]) == (
        "linear",
        "baseline",
        "linear",
        "",
    )
    scores = [float(row["score"]) for row in rows if row["rank"] and row["state"] != "failed"]
    assert scores == sorted(scores, reverse=True)
    best = sweep.history.ranked(METRIC)[0].best(METRIC)
    assert best is not None
    assert scores[0] == round(best[1], 6)
    page = (sweep.folder / "report.html").read_text(encoding="utf-8")
    assert page.count("<tr class=") == 8
    assert 'data-plot="learning-curves"' in page
    assert str(sweep.runs) not in page


def test_mlflow_has_one_parent_and_one_child_a_trial_and_nothing_is_left_running(
    sweep: Done,
) -> None:
    for history, runs in (
        (sweep.before, sweep.runs_before),
        (sweep.history, mlflow_runs(sweep.runs)),
    ):
        assert history.spec.precisions is not None
        assert runs.keys() == {"sweep", *map(str, history.trials)}
        parent = runs["sweep"]
        assert parent.info.status == "FINISHED"
        assert parent.data.tags["mmm.state"] == "done"
        for trial in history.trials.values():
            child = runs[str(trial.number)]
            assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
            assert (child.data.tags["mmm.state"], child.info.status) == (
                trial.state,
                STATUS[trial.state],
            )
            assert child.data.tags["mmm.reason"] == trial.reason
            expected = {**trial.settings, "precision": trial.precision}
            assert (
                child.data.params.items()
                <= {name: str(value) for name, value in expected.items()}.items()
            )
            assert (
                child.data.params["precision"]
                == history.spec.precisions[trial.settings["architecture"]]
            )
            assert child.data.params.keys() >= {*trial.params, *trial.settings} & {
                "architecture",
                "context",
                "seed",
                "lr",
                "dropout",
            }


def test_the_linear_baseline_is_fitted_once_and_the_last_line_says_how_the_winner_stands_to_it(
    sweep: Done,
) -> None:
    found = sweep.history.baseline
    assert found is not None
    assert sweep.before.baseline == found
    fitted = [
        [line for line in told.splitlines() if line.startswith("linear baseline: ")]
        for told in (sweep.told, sweep.told_again)
    ]
    assert [len(lines) for lines in fitted] == [1, 0]
    bundle = load_bundle(sweep.folder / "baseline")
    assert (bundle.config.architecture, bundle.config.params()) == ("linear", found.settings)
    manifest = sweep.corpus.manifest
    metrics = evaluate_bundle(
        bundle, manifest, sweep.corpus.features_dir, manifest.rows("dev"), torch.device("cpu")
    )
    assert metrics[METRIC] == pytest.approx(found.metrics[METRIC], abs=1e-6)
    sentence = verdict(sweep.history)
    assert sentence is not None
    assert sentence in sweep.told_again.splitlines()[-1]
    assert sentence in sweep.told.splitlines()[-1] or sweep.before.best != sweep.history.best
    page = (sweep.folder / "report.html").read_text(encoding="utf-8")
    assert f"<b>{sentence[0].upper() + sentence[1:]}.</b>" in html.unescape(page)
    parent = mlflow_runs(sweep.runs)["sweep"]
    assert parent.data.metrics[f"baseline_{METRIC}"] == pytest.approx(found.metrics[METRIC])
    assert "Linear baseline (logistic regression, K = " in parent.data.tags["mlflow.note.content"]


def test_mlflow_has_every_epoch_of_every_metric_once(sweep: Done) -> None:
    client = MlflowClient(tracking_uri=default_tracking_uri(sweep.runs))
    for number, run in mlflow_runs(sweep.runs).items():
        if number == "sweep":
            continue
        trial = sweep.history.trials[int(number)]
        epochs = trial.epochs
        for name in (METRIC, "accuracy", "loss", "f1/neutral"):
            points = [
                (point.step, point.value)
                for point in client.get_metric_history(run.info.run_id, name)
            ]
            expected = [
                (
                    entry.epoch,
                    (
                        trial.metrics(entry.epoch)["per_class"]["neutral"]["f1"]
                        if name == "f1/neutral"
                        else entry.metrics[name]
                    ),
                )
                for entry in epochs
            ]
            assert sorted(points) == expected
        points = [
            (point.step, point.value)
            for point in client.get_metric_history(run.info.run_id, "train_loss")
        ]
        assert sorted(points) == [(entry.epoch, entry.train_loss) for entry in epochs]


def test_mlflow_has_what_each_epoch_used_of_the_machine(sweep: Done) -> None:
    client = MlflowClient(tracking_uri=default_tracking_uri(sweep.runs))
    found = {number: run for number, run in mlflow_runs(sweep.runs).items() if number != "sweep"}
    for number, run in found.items():
        epochs = {entry.epoch: entry for entry in sweep.history.trials[int(number)].epochs}
        memory = client.get_metric_history(run.info.run_id, "system/system_memory_usage_megabytes")
        assert {point.step: point.value for point in memory} == {
            epoch: entry.memory_mb for epoch, entry in epochs.items()
        }
        cpu = client.get_metric_history(run.info.run_id, "system/cpu_utilization_percentage")
        assert {point.step for point in cpu} == epochs.keys()
        assert all(0 < point.value <= 100 for point in cpu)
        assert all(50 < point.value < 50_000 for point in memory)


def test_mlflow_holds_the_best_trials_bundle_and_marks_one_trial_as_best(
    sweep: Done, tmp_path: Path
) -> None:
    best = sweep.history.ranked(METRIC)[0]
    runs = mlflow_runs(sweep.runs)
    assert [number for number, run in runs.items() if run.data.tags.get("mmm.best") == "true"] == [
        str(best.number)
    ]
    client = MlflowClient(tracking_uri=default_tracking_uri(sweep.runs))
    for run in (runs[str(best.number)], runs["sweep"]):
        fetched = client.download_artifacts(run.info.run_id, "bundle", str(tmp_path))
        assert load_bundle(Path(fetched)).sha256 == load_bundle(sweep.folder / "bundle").sha256
    assert runs["sweep"].data.tags["mmm.best_trial"] == str(best.number)
    found = best.best(METRIC)
    assert found is not None
    assert runs["sweep"].data.metrics[f"best_{METRIC}"] == found[1]


def test_resuming_adds_trials_and_runs_none_again(sweep: Done) -> None:
    assert list(sweep.history.trials) == list(range(8))
    after = mlflow_runs(sweep.runs)
    for number, trial in sweep.before.trials.items():
        assert sweep.history.trials[number] == trial
        one, other = sweep.runs_before[str(number)].info, after[str(number)].info
        assert (one.run_id, one.start_time, one.end_time) == (
            other.run_id,
            other.start_time,
            other.end_time,
        )
        assert f"trial {number} " not in sweep.told_again
    assert sweep.runs_before["sweep"].info.run_id == after["sweep"].info.run_id
    suggested = [
        event.trial
        for event in read_events(sweep.folder / "ledger.sqlite")
        if event.kind == "suggest"
    ]
    assert suggested == list(range(8))


def test_mlflow_sync_adds_nothing_where_everything_is_and_moves_a_sweep_elsewhere(
    sweep: Done, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = mlflow_runs(sweep.runs)
    _, told, _ = call_here(capsys, monkeypatch, "mlflow-sync", "first", "--runs", sweep.runs)
    assert re.search(
        r"^sent 9 runs \(0 of them new\) and \d+ points of sweep first to sqlite:///",
        told,
        re.MULTILINE,
    )
    assert "compareRunsMode=CHART" in told
    assert re.search(
        r"^all trials, best first: http://127\.0\.0\.1:5000/#/experiments/\d+/runs\?\S+-ranking$",
        told,
        re.MULTILINE,
    )
    after = mlflow_runs(sweep.runs)
    assert {n: (r.info.run_id, r.info.status, r.data.params) for n, r in after.items()} == {
        n: (r.info.run_id, r.info.status, r.data.params) for n, r in before.items()
    }
    client = MlflowClient(tracking_uri=default_tracking_uri(sweep.runs))
    assert len(client.get_metric_history(after["0"].info.run_id, METRIC)) == len(
        sweep.history.trials[0].epochs
    )
    # Into another store: the same runs, states and figures.
    elsewhere = f"sqlite:///{tmp_path / 'mlflow.db'}"
    _, told, _ = call_here(
        capsys,
        monkeypatch,
        "mlflow-sync",
        "first",
        "--runs",
        sweep.runs,
        "--tracking-uri",
        elsewhere,
    )
    assert "sent 9 runs (9 of them new)" in told
    moved = mlflow_runs(tmp_path)
    assert {n: (r.info.status, r.data.params, r.data.metrics) for n, r in moved.items()} == {
        n: (r.info.status, r.data.params, r.data.metrics) for n, r in after.items()
    }


def test_finalists_have_figures_and_every_run_its_data_and_host(sweep: Done) -> None:
    client = MlflowClient(tracking_uri=default_tracking_uri(sweep.runs))
    runs = mlflow_runs(sweep.runs)
    best = str(sweep.history.ranked(METRIC)[0].number)
    figures = [file.path for file in client.list_artifacts(runs[best].info.run_id, "figures")]
    assert figures == ["figures/confusion_matrix.svg", "figures/learning_curve.svg"]
    for run in runs.values():
        assert run.inputs.dataset_inputs[0].dataset.digest == sweep.corpus.manifest.sha256[:32]
        assert run.data.tags["mmm.host"]
    assert runs["sweep"].data.tags["mlflow.note.content"].startswith("`mmm-search ")


def validation_score(bundle: Path, corpus: Corpus) -> float:
    rows = corpus.manifest.rows("dev")
    found: dict[str, Any] = evaluate_bundle(
        load_bundle(bundle), corpus.manifest, corpus.features_dir, rows, torch.device("cpu")
    )
    return float(found[METRIC])


def test_the_bundle_scores_on_validation_what_the_ledger_says(sweep: Done) -> None:
    best = sweep.history.ranked(METRIC)[0].best(METRIC)
    assert best is not None
    assert validation_score(sweep.folder / "bundle", sweep.corpus) == pytest.approx(
        best[1], abs=1e-6
    )
    provenance = load_bundle(sweep.folder / "bundle").provenance
    assert (provenance.sweep, provenance.epoch) == ("first", best[0])


def test_status_shows_states_leaderboard_and_why_trials_failed(
    sweep: Done, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, told, _ = call_here(capsys, monkeypatch, "status", "first", "--runs", sweep.runs)
    assert "8 of 8 trials: " in told
    assert "1 failed" in told
    assert "session: done" in told
    assert f"trial 2 failed: {sweep.history.trials[2].reason}" in told


def test_report_is_rebuilt_from_the_ledger_alone(
    sweep: Done, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    leaderboard = (sweep.folder / "leaderboard.csv").read_text()
    (sweep.folder / "report.html").unlink()
    (sweep.folder / "leaderboard.csv").unlink()
    _, told, _ = call_here(capsys, monkeypatch, "report", "first", "--runs", sweep.runs)
    wrote, words = told.splitlines()
    assert wrote == f"wrote {sweep.folder / 'report.html'} and {sweep.folder / 'leaderboard.csv'}"
    assert words.startswith("The winner is ")
    assert (sweep.folder / "leaderboard.csv").read_text() == leaderboard
    assert (sweep.folder / "report.html").read_text().count("<tr class=") == 8


def test_export_writes_the_best_trials_bundle_and_a_named_ones(
    sweep: Done, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    call_here(capsys, monkeypatch, "export", "first", "-o", tmp_path / "best", "--runs", sweep.runs)
    best = sweep.history.ranked(METRIC)[0]
    assert load_bundle(tmp_path / "best").provenance.trial == best.number
    other = next(trial for trial in sweep.history.trials.values() if trial.state == "pruned")
    call_here(
        capsys,
        monkeypatch,
        "export",
        "first",
        "--trial",
        other.number,
        "-o",
        tmp_path / "other",
        "--runs",
        sweep.runs,
    )
    found = other.best(METRIC)
    assert found is not None
    assert load_bundle(tmp_path / "other").provenance.trial_state == "pruned"
    assert validation_score(tmp_path / "other", sweep.corpus) == pytest.approx(found[1], abs=1e-6)


@pytest.mark.parametrize(
    ("trial", "message"),
    [
        (2, "trial 2 of sweep 'first' has no weights to export (failed: "),
        (8, "sweep 'first' has no trial 8 (it has 0 to 7)"),
    ],
)
def test_a_trial_without_weights_is_not_exported(
    sweep: Done,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    trial: int,
    message: str,
) -> None:
    status, _, told = call_here(
        capsys,
        monkeypatch,
        "export",
        "first",
        "--trial",
        trial,
        "-o",
        tmp_path / "b",
        "--runs",
        sweep.runs,
    )
    assert status == 2
    assert told.startswith(f"error: {message}")
    assert not (tmp_path / "b").exists()


def test_running_under_a_name_that_is_taken_is_refused(
    sweep: Done, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(list(read_events(sweep.folder / "ledger.sqlite")))
    places = ("--features", sweep.corpus.features_dir, "--runs", sweep.runs)
    status, _, told = call_here(
        capsys, monkeypatch, "run", "quick", sweep.corpus.manifest.path, *places, "--name", "first"
    )
    assert status == 2
    assert (
        told
        == f"error: sweep 'first' exists in {sweep.runs}/; choose another --name, or go on with it:"
        f" mmm-search resume first --runs {sweep.runs}\n"
    )
    assert len(list(read_events(sweep.folder / "ledger.sqlite"))) == before


def test_predicting_needs_neither_ray_nor_optuna_nor_mlflow(sweep: Done) -> None:
    text = (
        "import pathlib, sys, mmm.predict.predictor, mmm.bundle.read;"
        " mmm.bundle.read.load_bundle(pathlib.Path(sys.argv[1])); print(sorted({'ray', 'optuna',"
        " 'mlflow', 'search', 'spaces'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", text, str(sweep.folder / "bundle")],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout == "[]\n"
