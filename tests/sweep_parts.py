"""What the tests of `search` share: a small specification, trials as a ledger holds them, a driver
without Ray, the command line.
"""

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna import Trial as Suggester

import mmm.cli.app
import search.cli.app
from mmm.console import run_app
from mmm.training.config import Params
from search.engine.controller import Controller
from search.ledger.events import Entry
from search.ledger.history import History
from search.ledger.records import Epoch, Event, Sweep
from search.ledger.spec import SweepSpec
from search.ledger.trial import State, Trial
from search.messages import Order, Report
from search.serial import train
from spaces import Space
from tests.conftest import Corpus

METRIC = "macro_f1"
TIMEOUT_S = 300.0
_PROGRAMS = {"mmm": ("mmm", mmm.cli.app.app), "search": ("mmm-search", search.cli.app.app)}
SMALL = {"classifier_hidden": 12, "batch_size": 6, "width": 8}


def suggest_small(suggester: Suggester) -> dict[str, Any]:
    """Settings that train in milliseconds."""
    return {
        "architecture": suggester.suggest_categorical(
            "architecture", ["vanilla_concat", "three_way_concat"]
        ),
        "context": suggester.suggest_int("context", 1, 3),
        "lr": suggester.suggest_float("lr", 1e-3, 3e-2, log=True),
        **SMALL,
    }


SMALL_SPACE = Space(suggest_small)


def small_spec(corpus: Corpus, **changes: Any) -> SweepSpec:
    return SweepSpec(
        **{
            "name": "small",
            "space": "quick",
            "manifest": str(corpus.manifest.path),
            "features": str(corpus.features_dir),
            "trials": 6,
            "epochs": 4,
            "workers": 1,
            "first_rung": 3,
            **changes,
        }
    )


def order_of(spec: SweepSpec, folder: Path, number: int, settings: Params, **changes: Any) -> Order:
    """The whole of a trial, without rungs, in a sweep that lies in `folder`."""
    order = Order(
        sweep=str(folder),
        number=number,
        settings=settings,
        manifest=spec.manifest,
        features=spec.features,
        metric=METRIC,
        device="cpu",
        rungs=[],
        precision="float32",
    )
    return replace(order, **changes)


def epoch_entry(epoch: int, score: float) -> Epoch:
    """An epoch as a ledger has it."""
    return Epoch(
        epoch=epoch,
        train_loss=1.0,
        metrics={METRIC: score},
        seconds=0.1,
        alone_seconds=0.1,
        ended=0.0,
    )


def events_of(*entries: Entry, at: Sequence[float] | None = None) -> list[Event]:
    """Events as a ledger has them, a second after each other or at these times."""
    times = at if at is not None else range(1, len(entries) + 1)
    return [
        Event(seq, float(when), *(entry if isinstance(entry, tuple) else (None, entry)))
        for seq, (when, entry) in enumerate(zip(times, entries, strict=True), start=1)
    ]


def history_of(spec: SweepSpec, *entries: Entry) -> History:
    """What these events of a sweep add up to."""
    history = History.of(events_of(Sweep(spec), *entries))
    assert history is not None
    return history


def trial_with(number: int, scores: Mapping[int, float], state: State = "running") -> Trial:
    """A trial of which the ledger holds a score for each of these epochs."""
    return Trial(
        number, {}, {}, {}, 0.0, state, epochs=[epoch_entry(*pair) for pair in scores.items()]
    )


def train_serially(controller: Controller, threads: int = 1) -> Iterator[Report]:
    """Train one trial at a time in this process; yields each report once it is recorded.

    Whoever stops iterating leaves the sweep as a killed driver would.
    """
    for (report,) in train(controller, threads):
        yield report


def command(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", module, *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def call(module: str, *arguments: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command line to its end, which has to be `status`."""
    done = subprocess.run(
        command(module, *arguments),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == status, f"{done.stdout}\n{done.stderr}"
    return done


def call_inside(
    module: str, *arguments: object, status: int = 0
) -> subprocess.CompletedProcess[str]:
    """The same in this process, which has imported everything: for what is not about a process, and
    not for what trains with `mmm`, which starts its process again.
    """
    program, app = _PROGRAMS[module]
    given = [program, *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        patch.setattr(sys, "argv", given)
        patch.setenv("COLUMNS", "200")
        run_app(app)
    found = int(ended.value.code or 0)
    assert found == status, f"{out.getvalue()}\n{err.getvalue()}"
    return subprocess.CompletedProcess(given, found, out.getvalue(), err.getvalue())


def call_here(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object
) -> tuple[int, str, str]:
    """Run `mmm-search` in this process, which has imported everything: its status, stdout and
    stderr.
    """
    monkeypatch.setattr(sys, "argv", ["mmm-search", *map(str, arguments)])
    monkeypatch.setenv("COLUMNS", "200")
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        search.cli.app.main()
    told = capsys.readouterr()
    return int(ended.value.code or 0), told.out, told.err


def write_space(path: Path, text: str) -> str:
    """A space's file; returns what names its function `suggest`."""
    path.write_text(text, encoding="utf-8")
    return f"{path}:suggest"
