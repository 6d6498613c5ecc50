"""`mmm-search ui`: the addresses that it prints, and an end that leaves no server behind."""

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from benchmarks.mlflow_server import free_port
from search.ledger.events import create_sweep
from search.ledger.records import Close, Session
from search.ledger.spec import SweepSpec
from search.tracking.delivery import sync

pytestmark = pytest.mark.slow


def test_it_names_the_pages_of_each_sweep_at_its_own_port_and_ends_its_server_with_itself(
    empty_store: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    shutil.copy(empty_store, runs)
    spec = SweepSpec("first", "quick", "m", "f", trials=1, epochs=1, workers=1)
    with create_sweep(runs / "first", spec) as ledger:
        ledger.append(Session(spec, "here", ""), Close("done", 1.0, None))
    sync(runs, "first", None)
    port = free_port()
    command = [sys.executable, "-m", "search", "ui", "--runs", str(runs), "--port", str(port)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    ) as ui:
        assert ui.stderr is not None
        assert ui.stdout is not None
        for line in ui.stderr:
            if "Uvicorn running on" in line:
                break
        base = f"http://127.0.0.1:{port}"
        with urllib.request.urlopen(f"{base}/", timeout=30) as page:
            assert page.status == 200
        ui.send_signal(signal.SIGTERM)
        said = ui.stdout.read()
        ui.stderr.read()  # ends with the last process that holds it
        assert ui.wait(30) == 128 + signal.SIGTERM
    found = re.findall(r"first, best first: (\S+)-ranking", said)
    assert len(found) == 1, said
    assert found[0].startswith(base + "/#/experiments/")
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{base}/", timeout=5)
