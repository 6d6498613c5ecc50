"""A real MLflow server that is killed, frozen and answers 500 while a sweep goes on: nobody waits,
and every point is there once.
"""

import contextlib
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.mlflow_server import Proxy, Server, failing
from mmm.training.config import make_config
from search.ledger.events import Entry, create_sweep
from search.ledger.records import Close, End, Session, Suggestion
from search.ledger.spec import SweepSpec
from search.tracking.outbox import Outbox
from tests.sweep_parts import METRIC, epoch_entry

pytestmark = pytest.mark.slow
EPOCHS = 6
BATCH = 2  # trials between two troubles
NUM_TRIALS = 5 * BATCH
PATIENCE_S = 120.0


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for another process; an error where that takes too long."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.05)


def trials(first: int, count: int) -> Iterator[list[Entry]]:
    """The events of some whole trials, an epoch at a time."""
    for number in range(first, first + count):
        settings = make_config(
            {"architecture": "vanilla_concat", "lr": 0.001 * (1 + number)}
        ).params()
        yield [(number, Suggestion({"lr": 0.0}, {}, settings))]
        for epoch in range(1, EPOCHS + 1):
            yield [(number, epoch_entry(epoch, number + epoch / 10))]
        yield [(number, End("complete", "all epochs"))]


def rows(server: Server, query: str) -> list[tuple[Any, ...]]:
    """Straight from the store's file, whatever state its server is in."""
    with contextlib.closing(sqlite3.connect(server.folder / "server.db", timeout=30)) as connection:
        return connection.execute(query).fetchall()


def num_ended(server: Server) -> int:
    (found,) = rows(
        server, "SELECT COUNT(*) FROM runs WHERE status = 'FINISHED' AND lifecycle_stage = 'active'"
    )
    return int(found[0])


def test_a_server_in_trouble_holds_up_nobody_and_misses_nothing(
    empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    log = tmp_path / "first" / "mlflow.log"
    # The second one takes the place of the first when that is killed: both import MLflow at once,
    # which takes seconds.
    killed, server = Server(tmp_path), Server(tmp_path)
    shutil.copy(empty_store, tmp_path / "server.db")
    with (
        contextlib.ExitStack() as servers,
        Proxy(killed) as proxy,
    ):
        for one in (killed, server):
            servers.callback(one.kill)
            one.start()
        killed.wait()
        spec = SweepSpec(
            "first",
            "quick",
            "m",
            "f",
            trials=NUM_TRIALS,
            epochs=EPOCHS,
            workers=1,
            tracking_uri=proxy.uri,
        )
        ledger = servers.enter_context(create_sweep(tmp_path / "first", spec))
        ledger.append(Session(spec, "here", ""))
        outbox = Outbox()
        outbox.follow(tmp_path, "first")

        def go_on(first: int, count: int) -> None:
            for entries in trials(first, count):
                ledger.append(*entries)

        go_on(0, BATCH)
        until(lambda: num_ended(server) == BATCH, "the first trials have arrived")

        killed.kill()
        go_on(BATCH, BATCH)
        until(lambda: "502" in log.read_text(), "the outbox has noticed that the server is gone")
        server.wait()
        proxy.target = server
        until(lambda: num_ended(server) == 2 * BATCH, "what happened meanwhile has arrived")

        server.freeze()
        go_on(2 * BATCH, BATCH)
        until(lambda: "timed out" in log.read_text(), "the outbox has given up a request")
        server.thaw()
        until(lambda: num_ended(server) == 3 * BATCH, "what happened meanwhile has arrived")

        with failing(proxy):
            go_on(3 * BATCH, BATCH)
            # Some of what failed was carried out all the same, the making of runs among it.
            until(lambda: proxy.carried_out >= 2, "requests were answered 500")
        go_on(4 * BATCH, BATCH)
        ledger.append(Close("done", 1.0, None))
        assert outbox.close() == ""

    keys = rows(
        server,
        "SELECT t.value, r.status FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid AND t.key ="
        " 'mmm.trial' WHERE r.lifecycle_stage = 'active'",
    )
    assert sorted(keys) == sorted(
        [("sweep", "FINISHED"), *((str(number), "FINISHED") for number in range(NUM_TRIALS))]
    )
    points = rows(
        server,
        "SELECT t.value, m.key, m.step, m.value FROM metrics m JOIN runs r ON r.run_uuid ="
        " m.run_uuid JOIN tags t ON t.run_uuid = r.run_uuid AND t.key = 'mmm.trial' WHERE"
        " r.lifecycle_stage = 'active'",
    )
    expected = [
        (str(number), METRIC, epoch, number + epoch / 10)
        for number in range(NUM_TRIALS)
        for epoch in range(1, EPOCHS + 1)
    ]
    assert sorted(point for point in points if point[1] == METRIC) == sorted(expected)
    names = {METRIC, "train_loss", "epoch_seconds"}
    assert (
        len(points) == NUM_TRIALS * (EPOCHS * len(names) + 4) + 2
    )  # best and final of each trial, best of the sweep
    assert len(set(points)) == len(points)


def test_a_server_that_is_gone_at_the_end_is_named_and_what_is_left_is_kept(tmp_path: Path) -> None:
    uri = "http://127.0.0.1:1"
    spec = SweepSpec("first", "quick", "m", "f", trials=1, epochs=1, workers=1, tracking_uri=uri)
    with create_sweep(tmp_path / "first", spec) as ledger:
        ledger.append(Session(spec, "here", ""))
        outbox = Outbox()
        outbox.follow(tmp_path, "first")
        ledger.append(Close("done", 1.0, None))
        assert "127.0.0.1" in outbox.close()
