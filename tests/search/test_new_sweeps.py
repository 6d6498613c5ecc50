"""A new sweep that could not be kept, or would write over what is there, is refused before anything
is written.
"""

import re
from pathlib import Path

import pytest

from tests.conftest import Corpus
from tests.sweep_parts import call_inside


@pytest.mark.parametrize(
    ("runs", "name", "what"),
    [
        ("a%20b", "one", "MLflow's store would lie elsewhere, as its address cannot have %"),
        ("what?x=1", "one", "as its address cannot have \\?"),
        ("a#b%", "one", "as its address cannot have # or %"),
        ("runs", "mlartifacts", "--name mlartifacts: MLflow's own in"),
        ("runs", "mlflow.db", "--name mlflow.db: MLflow's own in"),
        ("runs", "lost", "holds what a sweep left .trials, report.html. and no ledger.sqlite"),
        ("runs", "../one", "sweep name '../one' is not usable"),
    ],
)
def test_it_is_refused(corpus: Corpus, tmp_path: Path, runs: str, name: str, what: str) -> None:
    (tmp_path / "runs" / "lost" / "trials").mkdir(parents=True)
    (tmp_path / "runs" / "lost" / "report.html").touch()
    before = sorted(tmp_path.rglob("*"))
    places = [corpus.manifest.path, "--features", corpus.features_dir]
    arguments = ["run", "quick", *places, "--name", name, "--runs", tmp_path / runs]
    done = call_inside("search", *arguments, "--serial", status=2)
    assert re.search(what, done.stderr), done.stderr
    assert sorted(tmp_path.rglob("*")) == before
