"""From a table with names of its own to a finished sweep: three commands."""

import json
from pathlib import Path

import pytest

from search.ledger.events import read_history
from tests.mmm.corpora.test_tables import acted, write
from tests.sweep_parts import call_inside


@pytest.mark.slow
def test_a_table_is_a_finished_sweep_over_folds_three_commands_later(tmp_path: Path) -> None:
    _, *rows = acted(tmp_path, ("평온", "신남", "sad"))
    table = [[*row, f"actor{n % 6}"] for n, row in enumerate(rows)]
    source = write(tmp_path / "own.csv", [["clip", "said", "mood", "actor"], *table], ";")
    manifest, features = tmp_path / "manifest.csv", tmp_path / "features"
    dealt = ("--folds", "3", "--strict")
    renamed = ("--column", "text=said", "--column", "emotion=mood")
    call_inside("mmm", "prepare", "csv", source, *renamed, *dealt, "-o", manifest)
    small = ("--frame-rate", "10", "--num-mels", "8", "--text-width", "16", "--max-tokens", "16")
    call_inside("mmm", "encode", manifest, "--features", features, *small)
    sweep = ("--name", "own", "--trials", "2", "--epochs", "2", "--serial", "--folds")
    runs = tmp_path / "runs"
    call_inside("search", "run", "quick", manifest, "--features", features, *sweep, "--runs", runs)
    history = read_history(runs / "own" / "ledger.sqlite")
    assert {trial.state for trial in history.trials.values()} <= {"complete", "pruned"}
    bundle = json.loads((runs / "own" / "bundle" / "config.json").read_text())
    assert bundle["labels"] == ["sad", "신남", "평온"]
