"""The report of a sweep: from the ledger alone, and nothing happens where it is only imported."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from search.ledger.events import read_history
from search.ledger.history import History
from search.results.optuna_study import importances
from search.results.report import write_report
from tests.sweep_parts import TIMEOUT_S, environment

OLD = Path(__file__).parents[2] / "data" / "version_0_1_0" / "runs" / "first" / "ledger.sqlite"


def history_in(folder: Path) -> History:
    """Read from a copy: SQLite writes beside what it reads."""
    return read_history(Path(shutil.copy(OLD, folder)))


def test_a_report_has_a_plot_of_each_kind_and_a_row_a_trial(tmp_path: Path) -> None:
    history = history_in(tmp_path)
    write_report(tmp_path / "report.html", history)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    plots = re.findall('data-plot="(.*?)"', page)
    assert plots == [
        *("best-by-trials", "best-by-compute", "learning-curves", "parallel", "slices"),
        *("confusion", "pareto", "timeline"),
    ]
    written = re.search('id="plots">(.*?)</script>', page, re.DOTALL)
    assert written is not None
    assert list(json.loads(written[1])) == plots
    assert page.count("<tr class=") == len(history.trials)
    markup, _, _ = page.partition("<script>")
    assert re.findall('(?:src|href)="(.*?)"', markup) == ["data:,"]  # one file, nothing is fetched


def test_importances_are_shares_of_what_all_complete_trials_have_most_first(
    tmp_path: Path,
) -> None:
    history = history_in(tmp_path)
    assert importances(history) == {}  # of three complete trials
    complete = [trial for trial in history.trials.values() if trial.epochs]
    for trial in complete:
        trial.state, trial.ended = "complete", trial.suggested
    found = importances(history)
    assert found
    assert all(found.keys() <= trial.params.keys() for trial in complete)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert sum(found.values()) == pytest.approx(1.0)


def test_importing_what_opens_optuna_and_draws_changes_nothing_in_the_process() -> None:
    program = """
import sys, warnings, matplotlib, optuna
before = optuna.logging.get_verbosity()
import search.results.optuna_study, search.results.report, search.suggest.searcher
import search.suggest.warm_start, mmm.corpora.report_page
assert optuna.logging.get_verbosity() == before
assert optuna.exceptions.ExperimentalWarning not in [one[2] for one in warnings.filters]
assert matplotlib.get_backend(auto_select=False) is None
assert "matplotlib.pyplot" not in sys.modules
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
