"""The report of a sweep: from the ledger alone, and nothing happens where it is only imported."""

import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmm.markdown import as_markdown
from search.ledger.events import read_history
from search.ledger.history import History
from search.results.expected_best import expected_best
from search.results.findings import findings
from search.results.markdown import appendix
from search.results.optuna_study import searched_ranges
from search.results.page.paths import without_folders
from search.results.report import read_confirmed, write_report
from tests.sweep_parts import TIMEOUT_S, call_here, environment

_ROOT = Path(__file__).parents[3]
OLD = _ROOT / "tests" / "data" / "version_0_1_0" / "runs" / "first" / "ledger.sqlite"


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
        *("importances", "confusion", "pareto", "timeline"),
    ]
    written = re.search('id="plots">(.*?)</script>', page, re.DOTALL)
    assert written is not None
    assert list(json.loads(written[1])) == plots
    assert page.count("<tr class=") == len(history.trials)
    markup, _, _ = page.partition("<script>")
    assert re.findall('(?:src|href)="(.*?)"', markup) == ["data:,"]  # one file, nothing is fetched


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


def test_the_summary_is_json_and_says_what_the_ledger_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    history = history_in(tmp_path)
    shutil.copytree(OLD.parents[1], tmp_path / "runs")
    places = "first", "--runs", tmp_path / "runs", "--json"
    status, told, _ = call_here(capsys, monkeypatch, "status", *places, "--rows", 2)
    assert status == 0
    found = json.loads(told)
    assert history.best is not None
    assert (found["best"]["score"], found["best"]["trial"]) == history.best
    assert sum(found["trials"].values()) == len(history.trials)
    assert [row["rank"] for row in found["leaderboard"]] == [1, 2]
    assert found["confirmed"] is None
    _, told, _ = call_here(capsys, monkeypatch, "report", *places, "-o", tmp_path / "out")
    found = json.loads(told)
    assert len(found["leaderboard"]) == len(history.trials)
    assert found["left_out"]
    assert found["importances"][0].keys() == {
        *("name", "fanova", "ped_anova", "num_trials", "is_conditional")
    }
    assert (tmp_path / "out" / "report.html").is_file()
    page = (_ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in found)


def test_the_expected_best_is_the_mean_over_all_choices() -> None:
    scores = [0.3, 0.1, 0.5, 0.4, 0.4]
    for number in range(1, 6):
        best = [max(some) for some in itertools.combinations(scores, number)]
        assert expected_best(scores, number) == pytest.approx(sum(best) / len(best))
    with pytest.raises(ValueError, match="the best of 6 of 5 scores"):
        expected_best(scores, 6)


def test_the_appendix_has_what_the_checklist_asks_for(tmp_path: Path) -> None:
    history = history_in(tmp_path)
    text = appendix(history, None, findings(history, "its features are gone"))
    sections = re.findall("^## (.*)$", text, re.MULTILINE)
    assert sections == [
        *("Search space", "Search", "Best settings", "Scores", "Errors of the winner"),
        *("Systems", "What decided the score", "Compute", "Data and commands"),
    ]
    for one in searched_ranges(history):
        assert f"| {as_markdown(one.name)} | {one.kind} | " in text
    assert "The winner's answers were not looked at: its features are gone" in text
    assert f"{len(history.trials)} trials (" in text
    assert "the test split was not read" in text
    assert history.spec.manifest not in text


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("no /home/me/data/a.wav there", "no a.wav there"),
        ("'/home/me/a.wav' and C:\\data\\b.wav", "'a.wav' and b.wav"),
        ("http://127.0.0.1:5000/x/y", "http://127.0.0.1:5000/x/y"),
        ("a/b of 1/2, </b> [/red]", "a/b of 1/2, </b> [/red]"),
        ("sqlite:////home/me/mlflow.db", "sqlite:///mlflow.db"),
    ],
)
def test_texts_lose_the_folders_of_the_machine(given: str, shown: str) -> None:
    assert without_folders(given) == shown


def test_a_damaged_confirmation_is_refused_with_what_makes_it_again(tmp_path: Path) -> None:
    assert read_confirmed(tmp_path) is None
    (tmp_path / "confirm.json").write_text("[]")
    with pytest.raises(ValueError, match="make it again with: mmm-search confirm"):
        read_confirmed(tmp_path)
