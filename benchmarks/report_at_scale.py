"""The report of a sweep of 2,000 trials: seconds to write it, its size, and seconds until a
headless Chromium has drawn it.

    python -m benchmarks.report_at_scale FOLDER --trials 2000

Writes a ledger with the real writer into FOLDER, where there is none yet: the trials of
benchmarks/ledger_at_scale.py on eight workers, one in fifty of them failed. The browser is left out
where there is none.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import optuna

from benchmarks.ledger_at_scale import sweep_entries
from search.ledger.events import Entry, create_sweep, read_history
from search.ledger.records import End, Epoch
from search.ledger.spec import SweepSpec
from search.results.report import write_report

_WORKERS = 8
_BEGAN = 1.7e9  # seconds since 1970


def on_workers(batches: Iterator[Sequence[Entry]]) -> Iterator[list[Entry]]:
    """The same events, each trial's epochs on the worker that is free first; trials fail at their
    ends now and then.
    """
    free = [_BEGAN] * _WORKERS
    for batch in batches:
        found: list[Entry] = []
        worker, number = 0, None
        for entry in batch:
            if not isinstance(entry, tuple):
                found.append(entry)
                continue
            trial, record = entry
            if trial != number:
                worker, number = min(range(_WORKERS), key=free.__getitem__), trial
            if isinstance(record, Epoch):
                started = free[worker]
                free[worker] += record.seconds
                record = replace(record, started=started, ended=free[worker])
            elif isinstance(record, End) and trial % 50 == 7:
                record = End("failed", f"diverged: the loss is nan at step {trial}")
            found.append((trial, record))
        yield found


def write_ledger(folder: Path, num_trials: int) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    spec = SweepSpec(
        "at-scale", "full", "manifest.csv", "features", num_trials, 27, _WORKERS, first_rung=3
    )
    with create_sweep(folder, spec) as ledger:
        for entries in on_workers(sweep_entries(spec, num_trials)):
            ledger.append(*entries)


def seconds_to_draw(page_file: Path) -> float | None:
    """Until the last plot is there; None without a browser."""
    try:
        from benchmarks.pictures import browser_page, find_chromium
    except ModuleNotFoundError:
        return None
    if (chromium := find_chromium()) is None:
        return None
    with browser_page(chromium) as page:
        started = time.perf_counter()
        page.goto(page_file.resolve().as_uri())
        page.wait_for_function("document.documentElement.dataset.drawn === 'yes'")
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, default=2000)
    options = parser.parse_args()
    ledger = options.folder / "ledger.sqlite"
    if not ledger.is_file():
        write_ledger(options.folder, options.trials)
    history = read_history(ledger)
    started, started_cpu = time.perf_counter(), time.process_time()
    write_report(options.folder / "report.html", history)
    wall_s, cpu_s = time.perf_counter() - started, time.process_time() - started_cpu
    size = (options.folder / "report.html").stat().st_size
    print(
        f"{len(history.trials)} trials: {wall_s:.1f} s ({cpu_s:.1f} s of the processor),"
        f" {size / 1e6:.2f} MB"
    )
    if (drawn_s := seconds_to_draw(options.folder / "report.html")) is not None:
        print(f"drawn by Chromium in {drawn_s:.1f} s")


if __name__ == "__main__":
    main()
