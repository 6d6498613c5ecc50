"""`mmm-search compare`: sweeps side by side, and whether their scores compare."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from search.ledger.events import Entry, create_sweep
from search.ledger.records import (
    Baseline,
    DataNote,
    End,
    ManifestDigest,
    SplitDigest,
    Suggestion,
)
from search.ledger.spec import SweepSpec
from search.results.comparison import compare, page_of
from tests.search.results.test_report import history_in
from tests.sweep_parts import METRIC, call_here, epoch_entry, history_of

SPEC = SweepSpec("a", "quick", "manifest.csv", "features", trials=2, epochs=2, workers=1)


def split_of(utterances: int, rows: str) -> SplitDigest:
    return SplitDigest(utterances, rows, "texts", "labels", {"happy": utterances})


def data(dev: SplitDigest, sha256: str = "0" * 64) -> DataNote:
    profile = json.dumps({"train": 9, "dev": dev.utterances, "classes": ["happy", "sad"]})
    splits = {"train": split_of(9, "train"), "dev": dev}
    return DataNote(ManifestDigest("corpus", "/data/manifest.csv", sha256, profile, splits), ())


def entries(score: float, lr: float, dev: SplitDigest, sha256: str = "0" * 64) -> list[Entry]:
    settings = {"architecture": "late_fusion", "context": 2, "lr": lr, "seed": 1, "epochs": 2}
    settings |= {"c": 0.1, "class_weight": "none", "speech": "fbank", "text": "[red]<i>n</i>"}
    metrics = {METRIC: 0.4}
    return [
        data(dev, sha256),
        Baseline(settings, metrics, 1.0, "", 9, 0),  # type: ignore[arg-type]
        (0, Suggestion({"lr": lr}, {}, settings)),
        (0, epoch_entry(1, score)),
        (0, End("complete", "")),
    ]


def write_sweep(runs: Path, name: str, what: list[Entry]) -> None:
    with create_sweep(runs / name, replace(SPEC, name=name)) as ledger:
        ledger.append(*what)


CONFIRMED = {
    "confirmed_in": "a-confirm",
    "metric": METRIC,
    "level": 0.95,
    "units": "dialogues",
    "to_leader": [],
    "baseline": None,
    "finalists": [
        {"name": "trial 0", "architecture": "late_fusion", "trial": 0, "mean": 0.55}
        | {"low": 0.5, "high": 0.6, "scores": [0.54, 0.56], "search_score": 0.7}
    ],
}


def test_a_table_and_a_page_have_what_each_sweep_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sweep(tmp_path, "a", entries(0.7, 0.01, split_of(4, "dev")))
    write_sweep(tmp_path, "b", entries(0.6, 0.02, split_of(4, "dev"), "1" * 64))
    (tmp_path / "a" / "confirm.json").write_text(json.dumps(CONFIRMED))
    page = tmp_path / "page.html"
    arguments = ["compare", "a", "b", "--runs", tmp_path]
    status, told, _ = call_here(capsys, monkeypatch, *arguments, "--out", page)
    assert status == 0
    for shown in ("0.7000", "0.5500", "0.5000 to 0.6000", "0.4000", "fbank", "[red]<i>n</i>"):
        assert shown in told
    assert re.search(r"lr +│ +0\.01 │ +0\.02", told)
    assert "same utterances, texts, labels and splits" in told
    assert "not confirmed with fresh seeds yet: b" in told
    written = page.read_text(encoding="utf-8")
    assert "[red]&lt;i&gt;n&lt;/i&gt;" in written  # text is text
    assert not re.search(r"<i>|(?:src|href)=\"http", written)  # and nothing is fetched
    status, told, _ = call_here(capsys, monkeypatch, *arguments, "--json")
    found = json.loads(told)
    assert found["same_data"] is True
    assert found["settings"] == {"lr": [0.01, 0.02]}
    assert [side["best"]["score"] for side in found["sweeps"]] == [0.7, 0.6]
    assert found["sweeps"][0]["leader"]["mean"] == 0.55


def test_sweeps_of_other_data_are_said_not_to_compare() -> None:
    here = history_of(SPEC, *entries(0.7, 0.01, split_of(4, "dev")))
    there = history_of(
        replace(SPEC, name="b", metric="accuracy"),
        data(split_of(6, "other"), "1" * 64),
    )
    found = compare([(here, None), (there, None)])
    assert found.same_data is False
    assert found.sentences[0] == (
        "b was run on other data than a (dev: other utterances (6 instead of 4)): their scores do"
        " not compare."
    )
    assert "They were scored differently" in found.sentences[1]
    with pytest.raises(ValueError, match="two sweeps at least"):
        compare([(here, None)])


def test_a_sweep_of_an_earlier_version_can_be_compared(tmp_path: Path) -> None:
    history = history_in(tmp_path)
    found = compare([(history, None), (history, None)])
    assert found.settings == {}
    assert "In no setting" in page_of(found)
