"""What a sweep pays for an MLflow server in trouble: its wall time with a healthy server and with
one that is killed and started again, frozen (SIGSTOP) for a minute, and answers 500 for a while.

    python benchmarks/mlflow_trouble.py

The sweep is the real controller, ledger and outbox; only training is replaced by waiting half a
second an epoch, so that other work on the machine does not blur what is measured. Healthy and
troubled sweeps take turns; after each, every point has to be in the server's store exactly once.
"""

import argparse
import contextlib
import heapq
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import optuna

from benchmarks.mlflow_server import Proxy, Server
from search.engine.controller import Controller
from search.ledger.events import create_sweep
from search.ledger.records import Epoch
from search.ledger.spec import SweepSpec
from search.messages import Report
from search.tracking.delivery import Busy, sync
from search.tracking.outbox import Outbox
from spaces import Space

SEATS, EPOCHS, EPOCH_S = 8, 20, 0.5


def suggest(trial: optuna.Trial) -> dict[str, Any]:
    return {
        "architecture": trial.suggest_categorical(
            "architecture", ["vanilla_concat", "three_way_concat"]
        ),
        "lr": trial.suggest_float("lr", 1e-4, 1e-2, log=True),
    }


def report_of(number: int, epoch: int) -> Report:
    score = 0.3 + 0.01 * epoch + 0.001 * number
    now = time.time()
    entry = Epoch(
        epoch=epoch,
        train_loss=1.0,
        metrics={"macro_f1": score, "accuracy": score, "loss": 1 - score},
        seconds=EPOCH_S,
        alone_seconds=EPOCH_S,
        ended=now,
        started=now - EPOCH_S,
        tables='{"per_class":{}}',
    )
    return Report(number, [entry], is_last=epoch == EPOCHS)


def sweep(folder: Path, uri: str, seconds: float) -> tuple[float, float, list[float], str]:
    """Wall time without and with the wait for MLflow at the end, the driver's seconds for each
    report, and the trouble.
    """
    trials = max(SEATS, round(seconds / EPOCH_S / EPOCHS) * SEATS)
    spec = SweepSpec(
        "trouble",
        "quick",
        "m",
        "f",
        trials=trials,
        epochs=EPOCHS,
        workers=SEATS,
        first_rung=EPOCHS,
        tracking_uri=uri,
    )
    reports = []
    with create_sweep(folder / "trouble", spec) as ledger:
        controller = Controller(ledger, spec, Space(suggest), "cpu", lambda: None)
        started = time.perf_counter()
        controller.open_session("")
        outbox = Outbox()
        outbox.follow(folder, "trouble")
        seats: list[
            tuple[float, int, int]
        ] = []  # when an epoch is done, of which trial, which epoch
        for _ in range(SEATS):
            (order,) = controller.next_orders()
            heapq.heappush(seats, (time.perf_counter() + EPOCH_S, order.number, 1))
        while seats:
            due, number, epoch = heapq.heappop(seats)
            time.sleep(max(0.0, due - time.perf_counter()))
            before = time.perf_counter()
            ended = controller.report(report_of(number, epoch))
            reports.append(time.perf_counter() - before)
            if ended:
                orders = controller.next_orders()
                if not orders:
                    continue
                number, epoch = orders[0].number, 0
            heapq.heappush(seats, (time.perf_counter() + EPOCH_S, number, epoch + 1))
        controller.close_session("done")
        trained_s = time.perf_counter() - started
        trouble = outbox.close()
        return trained_s, time.perf_counter() - started, reports, trouble


def make_trouble(server: Server, proxy: Proxy, frozen_s: float, is_over: threading.Event) -> None:
    """All three kinds, one after the other."""
    time.sleep(5)
    server.kill()
    time.sleep(3)
    server.start()
    server.wait()
    time.sleep(3)
    server.freeze()
    time.sleep(frozen_s)
    server.thaw()
    time.sleep(3)
    proxy.is_failing = True
    time.sleep(10)
    proxy.is_failing = False
    is_over.set()


def check_once(server: Server, trials: int) -> str:
    """What of trials and points is in the store more or less than once."""
    with contextlib.closing(sqlite3.connect(server.folder / "server.db", timeout=30)) as connection:
        mine = (
            "FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid AND t.key = 'mmm.trial' AND t.value"
            " != 'sweep' JOIN tags s ON s.run_uuid = r.run_uuid AND s.key = 'mmm.folder' AND"
            " s.value = ? WHERE r.lifecycle_stage = 'active'"
        )
        folder = (str((server.folder / "runs" / "trouble").resolve()),)
        found = connection.execute(
            f"SELECT COUNT(*), COUNT(DISTINCT t.value), SUM(r.status != 'FINISHED') {mine}", folder
        ).fetchone()
        points = connection.execute(
            "SELECT COUNT(*), COUNT(DISTINCT t.value || '/' || m.step)"
            f" {mine.replace('WHERE', 'JOIN metrics m USING (run_uuid) WHERE')} AND m.key ="
            " 'macro_f1'",
            folder,
        ).fetchone()
    expected = ((trials, trials, 0), (trials * EPOCHS, trials * EPOCHS))
    return (
        "every point once"
        if (found, points) == expected
        else f"NOT every point once: {found}, {points}, expected {expected}"
    )


def _sync_when_free(runs: Path, uri: str) -> None:
    """As a person who was told to would: again where the outbox is still at it in the
    background.
    """
    while True:
        try:
            sync(runs, "trouble", uri)
            return
        except Busy:
            time.sleep(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--frozen", type=float, default=60.0, help="seconds")
    parser.add_argument("--sweep", type=float, default=110.0, help="seconds of a sweep")
    options = parser.parse_args()
    walls: dict[str, list[float]] = {"healthy": [], "troubled": []}
    reports: dict[str, list[float]] = {"healthy": [], "troubled": []}
    for turn in range(options.turns):
        for kind in ("healthy", "troubled") if turn % 2 == 0 else ("troubled", "healthy"):
            with (
                tempfile.TemporaryDirectory() as name,
                Server(Path(name)) as server,
                Proxy(server) as proxy,
            ):
                runs = Path(name) / "runs"
                is_over = threading.Event()
                if kind == "troubled":
                    threading.Thread(
                        target=make_trouble, args=(server, proxy, options.frozen, is_over)
                    ).start()
                trained_s, wall_s, ms, trouble = sweep(runs, proxy.uri, options.sweep)
                if kind == "troubled" and not is_over.wait(60):
                    print("  the troubles outlasted the sweep; make it longer with --sweep")
                told = trouble or "all sent by its end"
                if trouble:
                    _sync_when_free(runs, proxy.uri)
                trials = max(SEATS, round(options.sweep / EPOCH_S / EPOCHS) * SEATS)
                walls[kind].append(wall_s)
                reports[kind] += ms
                print(
                    f"  {kind}: training {trained_s:.1f} s, with MLflow's rest {wall_s:.1f} s;"
                    f" {told}; {check_once(server, trials)}; {proxy.failed} requests answered 500,"
                    f" {proxy.carried_out} of them carried out",
                    flush=True,
                )
    healthy, troubled = (statistics.median(walls[kind]) for kind in walls)
    print(
        f"wall time healthy {healthy:.1f} s, troubled {troubled:.1f} s:"
        f" {100 * (troubled / healthy - 1):+.1f} %"
    )
    for kind, found in reports.items():
        print(
            f"driver's time for a report, {kind}: median {1000 * statistics.median(found):.2f} ms, "
            f"99th percentile {1000 * statistics.quantiles(found, n=100)[98]:.2f} ms"
        )


if __name__ == "__main__":
    sys.exit(main())
