"""The report in a headless Chromium: every plot, both widths, light and dark, a leaderboard that
sorts, filters and unfolds, and names that are text whatever is in them.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, distribution_to_json

from mmm.training.config import Params
from search.ledger.events import Entry
from search.ledger.history import History
from search.ledger.records import (
    DeadWorker,
    End,
    EndState,
    Epoch,
    RungDecision,
    Session,
    Suggestion,
)
from search.ledger.spec import SweepSpec
from search.results.report import read_confirmed, write_report
from tests.search.results.test_winner import FOUND
from tests.sweep_parts import METRIC, history_of

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
HOSTILE = "</script><b id=planted>x</b><!--"
SPEC = SweepSpec(
    "shown", "quick", "/home/anna/manifest.csv", "/home/anna/features", 12, 6, 2, first_rung=3
)
CONFIRMED = {
    "sweep": "shown",
    "confirmed_in": "shown-confirm",
    "metric": METRIC,
    "level": 0.95,
    "units": "12 speakers",
    "finalists": [
        {
            "name": f"trial {number}",
            "architecture": HOSTILE,
            "trial": number,
            "search_score": 0.7,
            "scores": [0.6, 0.62],
            "mean": 0.61 - number / 100,
            "low": 0.55,
            "high": 0.66,
        }
        for number in range(2)
    ],
    "baseline": None,
    "to_leader": [{"verdict": "tie"}],
    "sentences": ["Tie: these runs do not tell them apart."],
}


def trial(number: int, state: EndState, epochs: int) -> Iterator[Entry]:
    """Whose score grows with its number, and some of whose names want to be markup."""
    params: Params = {
        "architecture": ("vanilla_concat", "mlp_mixer")[number % 2],
        HOSTILE: HOSTILE,
        "lr": 10.0 ** -(2 + number % 3),
    }
    distributions = {
        "architecture": CategoricalDistribution(["vanilla_concat", "mlp_mixer"]),
        HOSTILE: CategoricalDistribution([HOSTILE, "other"]),
        "lr": FloatDistribution(1e-5, 1e-1, log=True),
    }
    described = {name: distribution_to_json(one) for name, one in distributions.items()}
    settings: Params = {**params, "context": 1 + number % 3, "seed": 1, "epochs": 6}
    suggestion = Suggestion(params, described, settings, num_parameters=1000 + number)
    yield number, suggestion
    tables = {"per_class": {HOSTILE: {}, "happy": {}}, "confusion_matrix": [[5, 1], [2, 4]]}
    for epoch in range(1, epochs + 1):
        entry = Epoch(
            epoch=epoch,
            train_loss=1.0,
            metrics={METRIC: round(0.3 + 0.02 * number + 0.02 * epoch, 4)},
            seconds=1.0,
            alone_seconds=1.0,
            started=1e9 + 10 * (number // 2) + epoch,
            ended=1e9 + 10 * (number // 2) + epoch + 1,
            tables=json.dumps(tables),
        )
        yield number, entry
    if state == "pruned":
        yield number, RungDecision(epochs, "stop", "rank 3 of 3")
    reason = {"complete": "all 6 epochs", "pruned": "rank 3 of 3 at epoch 3"}.get(state)
    failure = f"no such file: /home/anna/a {number}.wav {HOSTILE}"
    yield number, End(state, reason or failure)


def sweep() -> History:
    states: list[tuple[EndState, int]] = [("complete", 6), ("pruned", 3), ("complete", 6)]
    entries: list[Entry] = [Session(SPEC, "anna", f"mmm-search run quick {SPEC.manifest}")]
    for number in range(9):
        entries += trial(number, *states[number % 3])
    entries += trial(9, "failed", 0)
    entries += trial(10, "failed", 0)
    return history_of(SPEC, *entries, DeadWorker(10, "killed"))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    (folder / "confirm.json").write_text(json.dumps(CONFIRMED))
    write_report(folder / "report.html", sweep(), read_confirmed(folder), FOUND)
    return folder / "report.html"


@pytest.fixture(scope="module")
def page(report: Path) -> Iterator[Any]:
    assert CHROMIUM is not None
    with pictures.browser_page(CHROMIUM, 1400, 900) as shown:
        shown.set_default_timeout(20_000)
        shown.faults = []
        shown.on("console", lambda said: shown.faults.append(said.text))
        shown.on("pageerror", lambda error: shown.faults.append(str(error)))
        shown.on("request", lambda request: shown.faults.append(request.url))
        show(shown, report)
        yield shown


def show(page: Any, path: Path, width: int = 1400, scheme: str = "light") -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    page.goto(path.as_uri())
    page.wait_for_function("document.documentElement.dataset.drawn === 'yes'")


def column(page: Any, place: int) -> list[str]:
    """Texts of the shown rows."""
    return list(
        page.eval_on_selector_all(
            "#board tbody tr[data-trial]:not([hidden])",
            f"rows => rows.map(row => row.cells[{place}].textContent)",
        )
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
def test_every_plot_is_drawn_without_a_fault_or_a_fetch_and_no_wider_than_the_window(
    page: Any, report: Path, width: int, scheme: str
) -> None:
    page.faults.clear()
    show(page, report, width, scheme)
    drawn = page.eval_on_selector_all(
        ".plot",
        "all => all.map(one => [one.dataset.plot, one.querySelectorAll('path').length > 0])",
    )
    assert drawn == [
        [name, True]
        for name in (
            *("best-by-trials", "best-by-compute", "learning-curves", "parallel", "slices"),
            *("importances", "ablation", "confusion", "reliability"),
            *("expected-by-trials", "expected-by-compute", "forest", "pareto", "timeline"),
        )
    ]
    assert page.faults == [report.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    letters = page.evaluate("getComputedStyle(document.querySelector('.plot text')).fill")
    light, dark = (sum(map(int, one[4:-1].split(","))) for one in (paper, letters))
    assert (light > dark) is (scheme == "light")
    assert abs(light - dark) > 400  # of 765


def test_a_name_that_wants_to_be_markup_is_text_everywhere(page: Any, report: Path) -> None:
    show(page, report)
    assert page.locator("#planted").count() == 0
    page.evaluate("document.querySelectorAll('#board tbody button').forEach(one => one.click())")
    assert page.locator("#planted").count() == 0
    assert page.locator("#board dt", has_text=HOSTILE).count() == 11
    slices = page.inner_text("[data-plot=slices]")
    assert HOSTILE in slices
    assert HOSTILE in page.inner_text("[data-plot=forest]")
    assert "/home/anna" not in report.read_text(encoding="utf-8")


def test_the_verdict_comes_first_and_says_whether_the_winner_holds(page: Any, report: Path) -> None:
    show(page, report)
    text = page.inner_text(".verdict")
    assert text.startswith("The winner is trial 8, vanilla_concat: validation macro_f1 0.5800;")
    assert "Confirmed with fresh seeds: Tie: these runs do not tell them apart." in text
    assert "Trial 8, the winner of the search, does not lead there" in text
    headings = page.eval_on_selector_all("h2", "all => all.map(one => one.textContent)")
    assert headings == [
        *("Best so far", "Learning curves", "Settings", "What decided the score"),
        *("Errors of the winner", "Systems and encoders", "Confirmation", "Score against cost"),
        *("Failures", "Workers"),
        *("To reproduce it", "Leaderboard"),
    ]
    assert "no such file: a 9.wav" in page.inner_text("body")
    assert "9, 10" in page.inner_text("body")  # one cause of two failures


def test_a_heading_sorts_up_and_down_with_empty_cells_last(page: Any, report: Path) -> None:
    show(page, report)
    head = page.locator("#board thead button").nth(3)
    assert head.inner_text() == "score"
    head.click()
    scores = [float(text or math.nan) for text in column(page, 3)]
    assert scores[:9] == sorted(scores[:9], reverse=True)
    head.click()
    scores = [float(text or math.nan) for text in column(page, 3)]
    assert scores[:9] == sorted(scores[:9])
    assert all(map(math.isnan, scores[9:]))
    page.locator("#board thead button").nth(7).click()
    assert column(page, 7) == sorted(column(page, 7))


def test_words_and_a_state_filter_the_rows(page: Any, report: Path) -> None:
    show(page, report)
    assert page.inner_text("#shown") == "11 of 11 trials"
    page.select_option("#state", "pruned")
    assert column(page, 2) == ["pruned"] * 3
    page.fill("#wanted", "MIXER rank")
    assert set(column(page, 7)) == {"mlp_mixer"}
    assert page.inner_text("#shown") == "2 of 11 trials"


def test_a_trial_unfolds_to_its_settings_its_curve_and_why_it_ended(
    page: Any, report: Path
) -> None:
    show(page, report)
    page.locator("#board tr[data-trial='4'] button").click()
    below = page.locator("#board tr.unfolded")
    text = below.inner_text()
    assert "Trial 4" in text
    assert "pruned: rank 3 of 3 at epoch 3" in text
    assert "1,004 parameters" in text
    assert ["lr", "0.001"] in below.locator("dl div").evaluate_all(
        "all => all.map(one => [...one.children].map(part => part.textContent))"
    )
    points = below.locator("polyline").get_attribute("points")
    assert len(points.split()) == 3
    page.locator("#board tr[data-trial='4'] button").click()
    assert page.locator("#board tr.unfolded").count() == 0


@pytest.mark.parametrize("kind", ["no trial", "one trial", "only failures"])
def test_a_sweep_of_little_is_readable(page: Any, tmp_path: Path, kind: str) -> None:
    entries: dict[str, list[Entry]] = {
        "no trial": [],
        "one trial": list(trial(0, "complete", 6)),
        "only failures": [*trial(0, "failed", 0), *trial(1, "failed", 0)],
    }
    said = {
        "no trial": "No trial has begun yet.",
        "one trial": "The winner is trial 0",
        "only failures": "Every trial failed, 2 of 2 for this reason (trials 0, 1):",
    }
    write_report(tmp_path / "report.html", history_of(replace(SPEC, trials=2), *entries[kind]))
    page.faults.clear()
    show(page, tmp_path / "report.html", 390)
    assert page.faults == [(tmp_path / "report.html").as_uri()]
    assert page.inner_text(".verdict").startswith(said[kind])
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
