"""How fast metrics reach MLflow, and what the driver pays: the outbox against Ray's stock
MLflowLoggerCallback.

    python benchmarks/mlflow_outbox.py

500 trials of 5 or 6 epochs, 14 metrics an epoch, as a ledger; into an SQLite store and into `mlflow
server` on loopback. The two sides take turns, each into a fresh store. Stock is driven through its
own log_trial_start, log_trial_result and log_trial_end with real Tune trials, and sends the first
few trials only, because all would take many minutes; its speed is that of the sample. Ours is the
whole way: the process starts, reads the ledger, and has told MLflow everything.
"""

import contextlib
import io
import os
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ |= {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "RAY_TRAIN_V2_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
}

from mlflow import MlflowClient
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.registry import register_trainable

from benchmarks.mlflow_server import Server
from mmm.metrics import scalar_metrics
from mmm.training.config import make_config
from search.ledger.events import Entry, create_sweep
from search.ledger.records import Close, End, Epoch, Session, Suggestion, split_tables
from search.ledger.spec import SweepSpec
from search.tracking.outbox import Outbox

TRIALS, STOCK_TRIALS, ROUNDS = 500, 12, 2
CLASSES = ("neutral", "happy", "surprise", "angry", "sad", "disgust", "fear")


def settings_of(number: int) -> dict[str, Any]:
    return make_config(
        {
            "architecture": "mlp_mixer",
            "context": 1 + number % 5,
            "lr": 1e-4 * (1 + number),
            "dropout": 0.1,
        }
    ).params()


def epoch_of(number: int, epoch: int) -> Epoch:
    score = 0.3 + 0.001 * (number % 97) + 0.01 * epoch
    metrics: dict[str, Any] = dict.fromkeys(
        ("macro_f1", "unweighted_recall", "accuracy", "weighted_f1", "loss"), score
    )
    metrics["per_class"] = {
        name: {"precision": score, "recall": score, "f1": score, "support": 50} for name in CLASSES
    }
    metrics["confusion_matrix"] = [[7] * len(CLASSES)] * len(CLASSES)
    scalars, tables = split_tables(metrics)
    return Epoch(
        epoch=epoch,
        train_loss=1 / score,
        metrics=scalars,
        seconds=0.5,
        alone_seconds=0.5,
        ended=0.0,
        tables=tables,
    )


def epochs_of(number: int) -> range:
    return range(1, 6 + number % 2)


def events(spec: SweepSpec) -> Iterator[tuple[bool, list[Entry]]]:
    """What a driver writes, a transaction at a time; True for those that are a report of an
    epoch.
    """
    yield False, [Session(spec, "here", "")]
    for number in range(TRIALS):
        yield False, [(number, Suggestion({"lr": 0.1}, {}, settings_of(number)))]
        for epoch in epochs_of(number):
            yield True, [(number, epoch_of(number, epoch))]
        yield False, [(number, End("complete", "all epochs"))]
    yield False, [Close("done", 1.0, 0.9)]


def ours(folder: Path, uri: str | None, with_outbox: bool = True) -> tuple[float, list[float]]:
    """Seconds until everything has arrived, and those of each report in the driver."""
    spec = SweepSpec(
        "bench", "quick", "m", "f", trials=TRIALS, epochs=6, workers=2, tracking_uri=uri
    )
    reports: list[float] = []
    with create_sweep(folder / "bench", spec) as ledger:
        started, outbox = time.perf_counter(), None
        for is_report, entries in events(spec):
            before = time.perf_counter()
            ledger.append(*entries)
            if is_report:
                reports.append(time.perf_counter() - before)
            if with_outbox and outbox is None:
                outbox = Outbox()
                outbox.follow(folder, "bench")
        trouble = outbox.close(longest_wait_s=900) if outbox is not None else ""
        assert trouble == "", trouble
        return time.perf_counter() - started, reports


def stock(uri: str) -> tuple[float, list[float]]:
    """Seconds of the sample, and those of each report in the driver."""
    callback = MLflowLoggerCallback(tracking_uri=uri, experiment_name="stock")
    callback.setup()
    reports: list[float] = []
    started = time.perf_counter()
    for number in range(STOCK_TRIALS):
        trial = TuneTrial("noop", config=settings_of(number), stub=True)
        callback.log_trial_start(trial)
        for epoch in epochs_of(number):
            entry = epoch_of(number, epoch)
            values = scalar_metrics(entry.all_metrics)
            result = {
                **values,
                "train_loss": entry.train_loss,
                "epoch_seconds": entry.seconds,
                "training_iteration": epoch,
            }
            before = time.perf_counter()
            callback.log_trial_result(epoch, trial, result)
            reports.append(time.perf_counter() - before)
        callback.log_trial_end(trial)
    return time.perf_counter() - started, reports


def count_points(database: Path) -> int:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return int(connection.execute("SELECT COUNT(*) FROM metrics").fetchone()[0])


def main() -> None:
    register_trainable("noop", lambda config: None)
    print(
        f"{TRIALS} trials by the outbox, {STOCK_TRIALS} by stock, {ROUNDS} turns; {os.cpu_count()}"
        " cores",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        MlflowClient(
            tracking_uri=f"sqlite:///{root / 'empty.db'}"
        ).search_experiments()  # MLflow takes seconds to make its tables
        alone: list[float] = []
        for kind in ("SQLite", "mlflow server"):
            speeds: dict[str, list[float]] = {"outbox": [], "stock": []}
            report_ms: dict[str, list[float]] = {"outbox": [], "stock": []}
            for turn in range(ROUNDS):
                for side in ("stock", "outbox") if turn % 2 == 0 else ("outbox", "stock"):
                    folder = root / f"{kind}{turn}{side}".replace(" ", "")
                    folder.mkdir()
                    database = folder / ("server.db" if kind == "mlflow server" else "mlflow.db")
                    shutil.copy(root / "empty.db", database)
                    with contextlib.ExitStack() as stack:
                        uri = f"sqlite:///{database}"
                        if kind == "mlflow server":
                            uri = stack.enter_context(Server(folder)).uri
                        with contextlib.redirect_stdout(
                            io.StringIO()
                        ):  # a line with an address for each of stock's trials
                            seconds, reports = stock(uri) if side == "stock" else ours(folder, uri)
                    points = count_points(database)
                    speeds[side].append(points / seconds)
                    report_ms[side] += [1000 * report for report in reports]
                    print(
                        f"  {kind}, {side}: {points} points in {seconds:.1f} s,"
                        f" {points / seconds:.0f} a second",
                        flush=True,
                    )
                (root / f"alone{kind}{turn}").mkdir()
                alone += [
                    1000 * report
                    for report in ours(root / f"alone{kind}{turn}", None, with_outbox=False)[1]
                ]
            medians = {side: statistics.median(found) for side, found in speeds.items()}
            ratio = medians["outbox"] / medians["stock"]
            print(
                f"{kind}: outbox {medians['outbox']:.0f} points a second, stock"
                f" {medians['stock']:.0f}; ratio {ratio:.1f}"
            )
            for side, found in report_ms.items():
                print(f"  driver's time for a report of 14 points, {side}: {_spread(found)}")
        print(f"the same report into the ledger with no outbox: {_spread(alone)}")


def _spread(ms: list[float]) -> str:
    return (
        f"median {statistics.median(ms):.2f} ms, 99th percentile"
        f" {statistics.quantiles(ms, n=100)[98]:.2f} ms"
    )


if __name__ == "__main__":
    sys.exit(main())
