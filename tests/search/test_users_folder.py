"""What lies in the folder that a user works in is the user's: files named like our packages, or
like Python's own modules, are imported neither by the commands nor by any process that they start.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmm.bundle.read import load_bundle
from search.ledger.events import read_history
from tests.conftest import Corpus
from tests.sweep_parts import TIMEOUT_S, environment

_ROOT = Path(__file__).parents[2]
_NAMES = ("search", "spaces", "mmm", "random", "types", "json", "queue", "torch", "mlflow", "ray")
_SPACE = """
import random
import types
import neighbour
import search.ledger.spec
import spaces

def suggest(trial):
    assert random.random() < 1 and types.FunctionType and spaces.SPACES
    return {"architecture": "vanilla_concat", "width": 8, "batch_size": 6,
            "context": trial.suggest_int("context", 1, neighbour.MOST)}
"""


def installed(command: str, folder: Path) -> str:
    """The file that pip makes of an entry point: Python looks for modules beside it, and not in the
    working directory as with `python -m`.
    """
    module = {"mmm": "mmm.cli.app", "mmm-search": "search.cli.app"}[command]
    path = folder / "bin" / command
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"import sys\nfrom {module} import main\nsys.exit(main())\n")
    return str(path)


@pytest.mark.slow  # starts a Ray
def test_a_sweep_among_files_with_our_names_runs_to_its_end_and_to_mlflow(
    corpus: Corpus, empty_store: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "users"
    folder.mkdir()
    for name in _NAMES:
        (folder / f"{name}.py").write_text(f"raise RuntimeError('the user has a {name}.py')\n")
    (folder / "neighbour.py").write_text("MOST = 3\n")
    (folder / "mine.py").write_text(_SPACE)
    (folder / "runs").mkdir()
    shutil.copy(empty_store, folder / "runs")

    def call(command: str, *arguments: object) -> str:
        done = subprocess.run(
            [sys.executable, installed(command, tmp_path), *map(str, arguments)],
            cwd=folder,
            env={**environment(), "PYTHONPATH": str(_ROOT)},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    places = [corpus.manifest.path, "--features", corpus.features_dir]
    small = ["--trials", 1, "--epochs", 1, "--workers", 1]
    said = call("mmm-search", "run", "mine.py:suggest", *places, "--name", "first", *small)
    trials = read_history(folder / "runs" / "first" / "ledger.sqlite").trials.values()
    assert [trial.state for trial in trials] == ["complete"]
    assert "MLflow did not" not in said
    assert "all trials, best first" in said  # the outbox has sent everything
    call("mmm-search", "export", "first", "-o", "best")  # evaluates it in a process of its own
    assert load_bundle(folder / "best").name
