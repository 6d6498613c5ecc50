"""Whether MLflow's pages stay usable with a large sweep: how long they take to show in a headless
Chromium.

    python benchmarks/mlflow_pages.py                    # 2,000 trials, and 20 to compare with
    python benchmarks/mlflow_pages.py --trials 500 --pictures DIR

Makes a ledger of random trials, stopped as ASHA would, sends it to an SQLite store as `mmm-search
mlflow-sync` does, starts MLflow's server over it as `mmm-search ui` does, and opens the pages that
a sweep's addresses lead to, each time in a fresh profile of the browser. Needs what
benchmarks/pictures.py needs.
"""

import argparse
import contextlib
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
from benchmarks.pictures import (
    browser_page,
    find_chromium,
    open_chart,
    open_comparison,
    open_ranking,
    open_tree,
)
from search.ledger.events import create_sweep
from search.ledger.records import Close, DataNote, ManifestDigest, StoreDigest
from search.ledger.spec import SweepSpec
from search.tracking.delivery import Delivery, sync

Look = Callable[[Page, Delivery, str], object]
LOOKS: dict[str, Look] = {
    "the sweep and its trials": open_tree,
    "best trials first": open_ranking,
    "comparison": open_comparison,
    "learning curves": lambda page, delivery, base: open_chart(page, delivery, base, METRIC),
}


def make_sweep(folder: Path, num_trials: int) -> int:
    """A ledger as a driver leaves it; returns its number of epochs."""
    spec = SweepSpec(
        folder.name, "full", "manifest.csv", "features", num_trials, 27, workers=8, first_rung=3
    )
    manifest = ManifestDigest("corpus", "manifest.csv", "0123456789abcdef" * 4, "{}")
    stores = tuple(
        StoreDigest(kind, of, "encoder", f"{of}0123456789abcdef", f"features/{of}")
        for kind, of in (
            ("audio", "hidden_state"),
            ("audio", "extract_feature"),
            *(("text", k) for k in range(1, 6)),
        )
    )
    with create_sweep(folder, spec) as ledger:
        for number, entries in enumerate(sweep_entries(spec, num_trials)):
            ledger.append(*entries)
            if number == 0:
                ledger.append(DataNote(manifest, stores))
        ledger.append(Close("done", 1.0, 0.9))
        return sum(len(trial.epochs) for trial in ledger.history.trials.values())


def sent(folder: Path, num_trials: int) -> Delivery:
    """A sweep in the store of a server in this folder; it is made and sent on first use."""
    name, server = f"sweep-of-{num_trials}", Server(folder)
    if not (folder / name / "mlflow.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        num_epochs = make_sweep(folder / name, num_trials)
        started = time.perf_counter()
        delivery = sync(folder, name, server.store)
        seconds = time.perf_counter() - started
        print(
            f"{num_trials} trials, {num_epochs} epochs: {delivery.points} points sent in"
            f" {seconds:.1f} s, {delivery.points / seconds:.0f} a second",
            flush=True,
        )
        return delivery
    with Delivery(folder, name, server.store) as delivery:
        delivery.finish()
    return delivery


def seconds_to(
    look: Look, delivery: Delivery, base: str, chromium: str, picture: Path | None
) -> float:
    with browser_page(chromium) as page:
        started = time.perf_counter()
        look(page, delivery, base)
        seconds = time.perf_counter() - started
        if picture is not None:
            page.wait_for_timeout(2000)
            page.screenshot(path=picture)
        return seconds


def measure(
    folder: Path, sizes: tuple[int, int], rounds: int, chromium: str, pictures: Path | None
) -> None:
    """Both sizes take turns, each with its own server; prints the medians."""
    deliveries = {num_trials: sent(folder / str(num_trials), num_trials) for num_trials in sizes}
    found: dict[tuple[str, int], list[float]] = {
        (what, num_trials): [] for what in LOOKS for num_trials in sizes
    }
    with contextlib.ExitStack() as servers:
        bases = {
            num_trials: servers.enter_context(Server(folder / str(num_trials))).uri
            for num_trials in sizes
        }
        for turn in range(
            -1, rounds
        ):  # in the first turn servers read their files for the first time: it does not count
            for what, look in LOOKS.items():
                for num_trials in sizes if turn % 2 == 0 else reversed(sizes):
                    picture = (
                        pictures / f"{num_trials}-{what.replace(' ', '-')}.png"
                        if pictures and turn == -1
                        else None
                    )
                    seconds = seconds_to(
                        look, deliveries[num_trials], bases[num_trials], chromium, picture
                    )
                    if turn >= 0:
                        found[what, num_trials].append(seconds)
    few, many = sizes
    print(f"\nseconds to show, median of {rounds:<12} {few:>6} trials {many:>6} trials  ratio")
    for what in LOOKS:
        one, other = (statistics.median(found[what, num_trials]) for num_trials in sizes)
        print(f"{what:<38} {one:>7.2f} {other:>13.2f} {other / one:>6.2f}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--few", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where stores stay, to be looked at again")
    parser.add_argument("--pictures", type=Path, help="folder for a picture of each page")
    options = parser.parse_args()
    chromium = find_chromium()
    if chromium is None:
        print("error: no Chromium found; install one, or name it in MMM_CHROMIUM", file=sys.stderr)
        return 2
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if options.pictures is not None:
        options.pictures.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        measure(folder, (options.few, options.trials), options.rounds, chromium, options.pictures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
