"""Whether MLflow's pages stay usable with a large sweep: how long they take to show in a headless Chromium.

    python benchmarks/mlflow_pages.py                    # 2,000 trials, and 20 to compare with
    python benchmarks/mlflow_pages.py --trials 500 --pictures DIR

Makes a ledger of random trials, stopped as ASHA would, sends it to an SQLite store as `mmm-search mlflow-sync` does, starts
MLflow's server over it as `mmm-search ui` does, and opens the pages that a sweep's addresses lead to, each time in a fresh
profile of the browser. Needs what benchmarks/pictures.py needs.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import optuna
from playwright.sync_api import Page

from benchmarks.ledger_at_scale import METRIC, sweep_entries
from benchmarks.mlflow_server import Server
from benchmarks.pictures import browser_page, find_chromium, open_chart, open_comparison, open_ranking, open_tree
from search.config import SweepSpec
from search.ledger import Ledger
from search.tracking import Delivery, sync


def make_sweep(folder: Path, num_trials: int) -> int:
    """A ledger as a driver leaves it; returns its number of epochs."""
    spec = SweepSpec(folder.name, "full", "manifest.csv", "features", num_trials, 27, workers=8, first_rung=3)
    manifest = {"name": "corpus", "path": "manifest.csv", "sha256": "0123456789abcdef" * 4, "profile": "{}"}
    stores = [{"kind": kind, "of": of, "encoder": "encoder", "digest": f"{of}0123456789abcdef", "path": f"features/{of}"}
              for kind, of in (("audio", "hidden_state"), ("audio", "extract_feature"), *(("text", k) for k in range(1, 6)))]  # fmt: skip
    with Ledger(folder) as ledger:
        for number, entries in enumerate(sweep_entries(spec, num_trials)):
            ledger.append(*entries)
            if number == 0:
                ledger.append(("note", None, {"about": "data", "manifest": manifest, "stores": stores}))
        ledger.append(("close", None, {"why": "done", "seconds": 1.0, "efficiency": 0.9}))
        return sum(len(trial.epochs) for trial in ledger.history.trials.values())


def seconds_to(look: Callable[[Page], object], chromium: str, picture: Path | None) -> float:
    with browser_page(chromium) as page:
        started = time.perf_counter()
        look(page)
        seconds = time.perf_counter() - started
        if picture is not None:
            page.wait_for_timeout(2000)
            page.screenshot(path=picture)
        return seconds


def measure(folder: Path, num_trials: int, rounds: int, chromium: str, pictures: Path | None) -> dict[str, float]:
    """Medians of the seconds until each page shows what it is for."""
    name = f"sweep-of-{num_trials}"
    num_epochs = make_sweep(folder / name, num_trials)
    server = Server(folder)
    started = time.perf_counter()
    delivery: Delivery = sync(folder, name, server.store)
    seconds = time.perf_counter() - started
    print(f"{num_trials} trials, {num_epochs} epochs: {delivery.points} points sent in {seconds:.1f} s, "
          f"{delivery.points / seconds:.0f} a second", flush=True)  # fmt: skip
    looks: dict[str, Callable[[Page], object]] = {
        "the sweep and its trials": lambda page: open_tree(page, delivery, server.uri),
        "best trials first": lambda page: open_ranking(page, delivery, server.uri),
        "comparison": lambda page: open_comparison(page, delivery, server.uri),
        "learning curves": lambda page: open_chart(page, delivery, server.uri, METRIC),
    }
    with server:
        seconds_to(looks["the sweep and its trials"], chromium, None)  # the server reads its files for the first time
        found: dict[str, list[float]] = {what: [] for what in looks}
        for turn in range(rounds):
            for what, look in looks.items():
                picture = pictures / f"{num_trials}-{what.replace(' ', '-')}.png" if pictures and turn == 0 else None
                found[what].append(seconds_to(look, chromium, picture))
    return {what: statistics.median(times) for what, times in found.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--few", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pictures", type=Path, help="folder for a picture of each page")
    options = parser.parse_args()
    chromium = find_chromium()
    if chromium is None:
        print("error: no Chromium found; install one, or name it in MMM_CHROMIUM", file=sys.stderr)
        return 2
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if options.pictures is not None:
        options.pictures.mkdir(parents=True, exist_ok=True)
    medians = {}
    for num_trials in (options.few, options.trials):
        with tempfile.TemporaryDirectory() as folder:
            medians[num_trials] = measure(Path(folder), num_trials, options.rounds, chromium, options.pictures)
    print(f"\nseconds to show, median of {options.rounds}   {options.few:>6} trials {options.trials:>6} trials  ratio")
    for what, few in medians[options.few].items():
        many = medians[options.trials][what]
        print(f"{what:<34} {few:>13.2f} {many:>13.2f} {many / few:>6.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
