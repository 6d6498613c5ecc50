"""`search.open_sweep`: a ledger as pandas tables, Optuna's study and a report; the notebook in
docs/ on it.
"""

import json
import shutil
from pathlib import Path

import nbformat
import optuna
import pandas as pd
import pytest
from nbclient import NotebookClient

import search
from search.ledger.events import read_history
from search.results.opened import OpenedSweep
from tests.search.results.test_report import OLD

_NOTEBOOK = Path(__file__).parents[3] / "docs" / "sweep.ipynb"


@pytest.fixture
def sweep(tmp_path: Path) -> OpenedSweep:
    """Of an earlier version, read from a copy."""
    (tmp_path / "runs" / "first").mkdir(parents=True)
    shutil.copy(OLD, tmp_path / "runs" / "first")
    return search.open_sweep(tmp_path / "runs" / "first")


def test_trials_are_a_table_best_first_with_their_settings(sweep: OpenedSweep) -> None:
    history = read_history(sweep.folder / "ledger.sqlite")
    metric = history.spec.metric
    assert sorted(sweep.trials.index) == sorted(history.trials)
    for number, row in sweep.trials.iterrows():
        trial = history.trials[number]
        assert (row["state"], row["architecture"]) == (trial.state, trial.architecture)
        assert row["lr"] == trial.settings["lr"]
        if (best := trial.best(metric)) is not None:
            assert (row["best_epoch"], row["trained_epochs"]) == (best[0], trial.epoch)
            assert row["score"] == pytest.approx(best[1], abs=1e-6)
    assert sweep.trials["score"].dropna().is_monotonic_decreasing
    assert sweep.best is not None
    assert sweep.best.number == history.best[1]  # type: ignore[index]


def test_curves_have_a_row_an_epoch(sweep: OpenedSweep) -> None:
    curves = sweep.curves
    trials = sweep.history.trials.values()
    assert len(curves) == sum(len(trial.epochs) for trial in trials)
    best = curves.loc[curves["macro_f1"].idxmax()]
    assert (best["macro_f1"], best["trial"]) == sweep.history.best
    assert {"train_loss", "accuracy", "fold"} <= set(curves.columns)


def test_the_study_holds_every_trial_and_optuna_finds_the_same_best(sweep: OpenedSweep) -> None:
    study = sweep.study
    assert isinstance(study, optuna.Study)
    assert [trial.number for trial in study.trials] == sorted(sweep.history.trials)
    states = sweep.trials["state"]
    complete = sweep.trials.loc[states[states == "complete"].index, "score"]
    assert study.best_value == pytest.approx(complete.max(), abs=1e-6)


def test_finalists_are_those_of_the_confirmation(sweep: OpenedSweep) -> None:
    assert sweep.finalists is None
    one = {"name": "trial 3", "architecture": "late_fusion", "trial": 3, "mean": 0.5}
    one |= {"low": 0.4, "high": 0.6, "scores": [0.5, 0.5], "search_score": 0.7}
    written = {"confirmed_in": "first-confirm", "metric": "macro_f1", "level": 0.95}
    written |= {"units": "dialogues", "to_leader": [], "finalists": [one], "baseline": None}
    (sweep.folder / "confirm.json").write_text(json.dumps(written))
    found = sweep.finalists
    assert found is not None
    assert found.to_dict("records") == [
        {
            "label": "trial 3, late_fusion",
            "mean": 0.5,
            "low": 0.4,
            "high": 0.6,
            "scores": (0.5, 0.5),
            "search_score": 0.7,
            "verdict": "leads",
        }
    ]


def test_what_a_history_has_is_still_there(sweep: OpenedSweep) -> None:
    assert sweep.ranked("macro_f1") == sweep.history.ranked("macro_f1")
    assert sweep.spec.name == "first"
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = sweep.no_such_thing


def test_a_report_is_written_where_it_is_wanted(sweep: OpenedSweep, tmp_path: Path) -> None:
    assert sweep.report(tmp_path / "elsewhere") == tmp_path / "elsewhere" / "report.html"
    assert len(pd.read_csv(tmp_path / "elsewhere" / "leaderboard.csv")) == len(sweep.trials)
    assert not (sweep.folder / "report.html").exists()


@pytest.mark.slow
def test_the_notebook_runs_from_its_first_cell_to_its_last(
    sweep: OpenedSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(__file__).parents[3]
    monkeypatch.setenv("PYTHONPATH", str(root))
    notebook = nbformat.read(_NOTEBOOK, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "it is kept without outputs"
    docs = sweep.folder.parents[1] / "docs"
    docs.mkdir()
    resources = {"metadata": {"path": str(docs)}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources).execute()
    shown = json.dumps(notebook.cells)
    assert "image/png" in shown  # the curves
    assert "not confirmed; run: mmm-search confirm first" in shown
    assert (sweep.folder / "report.html").is_file()
