"""A headless Chromium on MLflow's own pages after a sweep of all four architectures: what a person
comparing runs sees.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest

from benchmarks.mlflow_server import Server
from mmm.models import PUBLISHED
from search.engine.controller import Controller
from search.ledger.events import create_sweep
from search.tracking.delivery import Delivery, sync
from spaces import Space
from tests.conftest import Corpus
from tests.sweep_parts import METRIC, small_spec, train_serially

pictures = pytest.importorskip(
    "benchmarks.pictures",
    reason="Playwright is not installed: pip install playwright",
    exc_type=ModuleNotFoundError,
)
CHROMIUM = pictures.find_chromium()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None,
        reason="no Chromium is installed: apt-get install chromium, or name one in MMM_CHROMIUM",
    ),
]


def suggest(trial: optuna.Trial) -> dict[str, Any]:
    """One trial of each architecture."""
    architecture = list(PUBLISHED)[trial.number % len(PUBLISHED)]
    size = {"heads": 4} if architecture == "cross_attention" else {"width": 8}
    lr = trial.suggest_float("lr", 1e-3, 3e-2, log=True)
    return {
        "architecture": architecture,
        "context": 1,
        "lr": lr,
        "classifier_hidden": 12,
        "batch_size": 6,
        **size,
    }


@dataclass(frozen=True)
class Shown:
    delivery: Delivery
    server: Server
    page: Any


@pytest.fixture(scope="module")
def shown(
    corpus: Corpus, empty_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shown]:
    runs = tmp_path_factory.mktemp("runs")
    spec = small_spec(corpus, trials=4, epochs=3, first_rung=3)
    with create_sweep(runs / "small", spec) as ledger:
        controller = Controller(ledger, spec, Space(suggest), "cpu", lambda: None)
        controller.open_session("mmm-search run")
        for _ in train_serially(controller):
            pass
        controller.close_session("done")
    assert CHROMIUM is not None
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_store, folder / "server.db")
    with Server(folder) as server:
        delivery = sync(runs, "small", server.uri)
        with pictures.browser_page(CHROMIUM) as page:
            yield Shown(delivery, server, page)


def test_the_list_of_runs_shows_the_sweep_with_its_trials_below_it(shown: Shown) -> None:
    pictures.open_tree(shown.page, shown.delivery, shown.server.uri)
    text = shown.page.inner_text("body")
    for run in shown.delivery.projection.runs.values():
        assert run.name in text
    assert "vanilla_concat K1 #" in text
    assert f"best_{METRIC}" in text  # a column of the saved view


def test_the_ranking_lists_the_trials_without_the_sweep_best_first(shown: Shown) -> None:
    pictures.open_ranking(shown.page, shown.delivery, shown.server.uri)
    links = shown.page.eval_on_selector_all(
        "a[href*='/runs/']",
        "links => links.map(link => [link.getBoundingClientRect().top, link.innerText.trim()])",
    )
    names = [name for _, name in sorted(links)]
    scores = {run.name: run.best[0] for run in shown.delivery.projection.ranked() if run.best}
    assert sorted(names) == sorted(scores)  # the sweep itself is not among them
    assert [scores[name] for name in names] == sorted(scores.values(), reverse=True)


def test_the_comparison_sets_the_best_trial_of_each_architecture_side_by_side(shown: Shown) -> None:
    pictures.open_comparison(shown.page, shown.delivery, shown.server.uri)
    text = shown.page.inner_text("body")
    assert "Comparing 4 Runs from 1 Experiment" in text
    for architecture in PUBLISHED:
        assert architecture in text


def test_the_chart_has_a_learning_curve_of_each_architecture_against_the_epoch(
    shown: Shown,
) -> None:
    pictures.open_chart(shown.page, shown.delivery, shown.server.uri, METRIC)
    curves = shown.page.evaluate(
        "() => [...document.querySelectorAll('.js-plotly-plot')].flatMap(plot => plot.data.map(line"
        " => [...line.x]))"
    )
    assert [1, 2, 3] in curves


def test_the_chart_opens_with_the_metric_that_is_searched_for(shown: Shown) -> None:
    pictures.open_chart(shown.page, shown.delivery, shown.server.uri, METRIC)
    text = shown.page.inner_text("body")
    assert -1 < text.find(f"{METRIC}\n(2)") < text.find("Model metrics")


def test_nothing_in_a_page_is_fetched_from_elsewhere(shown: Shown) -> None:
    asked: list[str] = []
    shown.page.on("request", lambda request: asked.append(request.url))
    pictures.open_tree(shown.page, shown.delivery, shown.server.uri)
    assert asked
    assert [url for url in asked if not url.startswith((shown.server.uri, "data:", "blob:"))] == []


def test_the_pictures_of_the_readme_exist_and_are_small() -> None:
    folder = Path(__file__).parents[3] / "docs" / "images"
    found = sorted(folder.glob("mlflow-*.png"))
    assert [file.stem for file in found] == ["mlflow-chart", "mlflow-comparison", "mlflow-tree"]
    assert all(file.stat().st_size < 300_000 for file in found)
