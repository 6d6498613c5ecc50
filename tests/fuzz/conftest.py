"""What fuzz tests put into commands, made once, and the table of what came of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from mmm.bundle.write import save_run_bundle
from search.engine.controller import Controller
from search.ledger.events import create_sweep
from tests.conftest import Corpus, trained
from tests.fuzz.parts import TALLIES
from tests.sweep_parts import SMALL_SPACE, small_spec, train_serially


@pytest.fixture(scope="module")
def bundle(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    folder = tmp_path_factory.mktemp("fuzz") / "bundle"
    save_run_bundle(trained(corpus, "vanilla_concat", epochs=1), folder, name="good")
    return folder


@pytest.fixture(scope="module")
def config(bundle: Path) -> Any:
    return json.loads((bundle / "config.json").read_text())


@pytest.fixture(scope="module")
def sweep(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep's folder with a ledger; not to be changed."""
    folder = tmp_path_factory.mktemp("fuzz_runs") / "small"
    spec = small_spec(corpus, trials=3, epochs=2)
    with create_sweep(folder, spec) as ledger:
        controller = Controller(ledger, spec, SMALL_SPACE, "cpu", lambda: None)
        controller.open_session("")
        for _ in train_serially(controller):
            pass
        controller.close_session("done")
    return folder


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if TALLIES:
        terminalreporter.write_line("\n| inputs | number | refused | seconds |")
        terminalreporter.write_line("| --- | ---: | ---: | ---: |")
        for kind, one in TALLIES.items():
            terminalreporter.write_line(
                f"| {kind} | {one.inputs:,} | {one.refused:,} | {one.seconds:.1f} |"
            )
        total = sum(one.inputs for one in TALLIES.values())
        seconds = sum(one.seconds for one in TALLIES.values())
        terminalreporter.write_line(f"| all | {total:,} | | {seconds:.1f} |")
