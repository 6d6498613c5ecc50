"""The pictures of docs/mlflow.md: a headless Chromium looks at a sweep, as a person would.

    mmm-search quickstart
    python benchmarks/pictures.py runs quickstart docs/images

Needs `pip install playwright` and a Chromium (Debian: apt-get install chromium; elsewhere name one
in MMM_CHROMIUM). tests/search/tracking/test_mlflow_pages.py looks at the same pages.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

from benchmarks.mlflow_server import Server
from search.tracking.delivery import Delivery, sync

# No sandbox: in a container there are no user namespaces to build it from, and the only page is our
# own.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WAIT_MS = 120_000


def find_chromium() -> str | None:
    return (
        os.environ.get("MMM_CHROMIUM")
        or shutil.which("chromium")
        or shutil.which("chromium-browser")
    )


@contextmanager
def browser_page(chromium: str, width: int = 1280, height: int = 800) -> Iterator[Page]:
    """A page of a fresh profile."""
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium, args=FLAGS) as browser,
    ):
        page = browser.new_page(viewport={"width": width, "height": height})
        # MLflow opens a panel for a chat beside every page the first time.
        page.add_init_script(
            "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"
        )
        page.set_default_timeout(WAIT_MS)
        expect.set_options(timeout=WAIT_MS)
        yield page


def open_tree(page: Page, delivery: Delivery, base: str) -> None:
    """The list of runs, the sweep's trials below it."""
    page.goto(delivery.pages.tree(base))
    expect(page.get_by_role("link", name=delivery.name, exact=True)).to_be_visible()
    page.locator("[data-component-id*='runnamecellrenderer']").first.click()  # unfolds it
    newest = sorted(
        (run for run in delivery.projection.runs.values() if run.parent is not None),
        key=lambda run: -run.started,
    )
    for name in (delivery.name, *(run.name for run in newest[:4])):
        expect(page.get_by_role("link", name=name, exact=True)).to_be_visible()


def open_ranking(page: Page, delivery: Delivery, base: str) -> None:
    """The trials, best first."""
    page.goto(delivery.pages.ranking(base))
    for run in delivery.projection.ranked()[:5]:
        expect(page.get_by_role("link", name=run.name, exact=True)).to_be_visible()


def open_comparison(page: Page, delivery: Delivery, base: str) -> None:
    """The best trial of each architecture side by side."""
    address = delivery.pages.comparison(base)
    assert address is not None
    page.goto(address)
    best = delivery.projection.best_of_each_architecture()
    expect(page.get_by_text(f"Comparing {len(best)} Runs from 1 Experiment").first).to_be_visible()
    for run in best:
        expect(page.get_by_text(run.name, exact=True).first).to_be_attached()
    expect(page.locator(".js-plotly-plot .parcoords").first).to_be_visible()


def open_chart(page: Page, delivery: Delivery, base: str, metric: str) -> None:
    """Learning curves of the best trial of each architecture, against the epoch."""
    page.goto(delivery.pages.chart(base))
    for run in delivery.projection.best_of_each_architecture():
        expect(page.get_by_role("link", name=run.name, exact=True)).to_be_visible()
    expect(page.get_by_text(f"best_{metric}", exact=True).first).to_be_visible()
    drawn = (
        "wanted => [...document.querySelectorAll('.js-plotly-plot')].some(plot => (plot.data ||"
        " []).length >= wanted)"
    )
    page.wait_for_function(drawn, arg=len(delivery.projection.best_of_each_architecture()))
    expect(page.get_by_text("Step", exact=True).first).to_be_visible()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("sweep")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    chromium = find_chromium()
    if chromium is None:
        print("error: no Chromium found; install one, or name it in MMM_CHROMIUM", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder)) as server:
        delivery = sync(options.runs, options.sweep, server.uri)
        assert delivery.projection.spec is not None
        with browser_page(chromium) as page:
            open_tree(page, delivery, server.uri)
            page.screenshot(path=options.out / "mlflow-tree.png")
            open_comparison(page, delivery, server.uri)
            page.screenshot(path=options.out / "mlflow-comparison.png")
            open_chart(page, delivery, server.uri, delivery.projection.spec.metric)
            page.wait_for_timeout(2000)  # the other charts
            page.screenshot(path=options.out / "mlflow-chart.png")
    for picture in sorted(options.out.glob("mlflow-*.png")):
        print(f"{picture} {picture.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
