"""Records of events and their JSON: what was written comes back, by earlier and later versions
too.
"""

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from search.ledger.events import LedgerError, create_sweep, read_history
from search.ledger.record_json import body_of, record_of
from search.ledger.records import (
    Baseline,
    Checkpoint,
    ClockMoved,
    Close,
    DataNote,
    DeadWorker,
    End,
    Epoch,
    GoesOnAlone,
    LostNode,
    ManifestDigest,
    OutOfMemory,
    PackMeasured,
    Prior,
    Record,
    RungDecision,
    Session,
    SplitDigest,
    StoreDigest,
    Suggestion,
    Sweep,
    UnknownEvent,
    Warned,
    as_json,
)
from search.ledger.spec import SweepSpec
from tests.sweep_parts import METRIC, epoch_entry

SPEC = SweepSpec("first", "quick", "m.csv", "features", trials=6, epochs=4, workers=2)
SPLITS = {"train": SplitDigest(3, "r", "t", "l", {"sad": 2, "happy": 1})}
MANIFEST = ManifestDigest("corpus", "m.csv", "ab", "{}", SPLITS)
STORE = StoreDigest("text", 2, "char-ngram", "cd", "features/cd", {"context": 2}, {"train": "ef"})
RECORDS: list[Record] = [
    Session(replace(SPEC, enqueue=[{"lr": 0.1, "width": None}]), "here", "mmm-search run"),
    Prior("elsewhere", {"lr": 0.1}, {1: 0.25, 10: 0.5}),
    Baseline({"c": 0.1}, {METRIC: 0.5, "per_class": {"sad": {"f1": 0.5}}}, 1.0, "ab", 7, 0),
    Suggestion({"lr": 0.1}, {"lr": "{}"}, {"lr": 0.1, "masked": True}, "enqueued 0", "float32", 9),
    Suggestion({}, {}, {}),
    epoch_entry(1, 0.5),
    replace(
        epoch_entry(1, 0.5),
        started=1.0,
        memory_mb=2.0,
        together=1,
        ms_per_utterance=3.0,
        tables='{"confusion_matrix":[[1]]}',
        copied_from=0,
    ),
    Checkpoint(3, "ab", "checkpoint-00003.safetensors"),
    RungDecision(3, "continue", "rank 1 of 2"),
    End("pruned", "rank 2 of 2"),
    End("failed", "killed", "Traceback", is_lost=True),
    Close("done", 1.0, None),
    Close("done", 1.0, 0.9, 2.0),
    Warned(0, "기쁨"),
    GoesOnAlone(0, "killed"),
    DeadWorker(0, "killed"),
    OutOfMemory(0, "killed", "half"),
    LostNode(0, "killed"),
    ClockMoved(3600.0),
    PackMeasured("mlp_mixer", 32, None, {"1": 0.5, "4": 0.25}, 4),
    DataNote(MANIFEST, (STORE,)),
    DataNote(MANIFEST, (STORE,), (0, 2), ("train: other labels",), only_train_labels=True),
    DataNote(replace(MANIFEST, splits=None), (replace(STORE, recipe=None, content=None),)),
    UnknownEvent("confirm", '{"seeds":3}'),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_comes_back_from_json(record: Record) -> None:
    assert record_of(record.kind, json.loads(as_json(body_of(record)))) == record


def test_what_version_0_1_0_wrote_is_written_again_to_the_letter() -> None:
    for path in sorted(Path("tests/data/version_0_1_0/runs").glob("*/ledger.sqlite")):
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?immutable=1", uri=True)) as file:
            lines = file.execute("SELECT kind, body FROM events").fetchall()
        assert len(lines) > 100
        for kind, text in lines:
            record = record_of(kind, json.loads(text))
            if isinstance(record, Sweep | Session):  # a specification has gained fields since
                before = json.loads(text)["spec"]
                assert before.items() <= record.spec.as_json().items()
                assert record == Sweep(record.spec, text) or record.host == "example"  # type: ignore[union-attr]
            else:
                assert as_json(body_of(record)) == text


def test_what_an_earlier_version_did_not_write_has_its_default() -> None:
    body = {"epoch": 1, "train_loss": 1.0, "seconds": 2.0, "alone_seconds": 2.0, "ended": 3.0}
    metrics = {METRIC: 0.5, "per_class": {"sad": {"f1": 0.5}}}  # before tables were text
    found = record_of("epoch", {**body, "metrics": metrics})
    assert isinstance(found, Epoch)
    assert (found.metrics, found.all_metrics) == ({METRIC: 0.5}, metrics)
    assert (found.started, found.together, found.copied_from) == (None, None, None)
    assert record_of("end", {"state": "pruned", "reason": "why"}) == End("pruned", "why")
    old = {"source": "x", "params": {}, "scores": {"2": 0.5}, "epoch_seconds": 1.0}
    assert record_of("prior", old) == Prior("x", {}, {2: 0.5})


def test_what_a_later_version_adds_is_passed_over_except_in_the_specification(
    tmp_path: Path,
) -> None:
    assert record_of("checkpoint", {"epoch": 1, "sha256": "ab", "path": "p", "bytes": 7}) == (
        Checkpoint(1, "ab", "p")
    )
    assert record_of("note", {"about": "weather"}) == UnknownEvent("note", '{"about":"weather"}')
    with create_sweep(tmp_path, SPEC) as ledger:
        ledger.append(UnknownEvent("confirm", "{}"), UnknownEvent("session", '{"spec":{"moon":1}}'))
    with pytest.raises(
        LedgerError,
        match=(
            r"ledger\.sqlite: event 3 \(session\) is none that this version of mmm-search reads"
            r" \(the specification has moon\); go on with the version that wrote it, or start anew"
        ),
    ):
        read_history(tmp_path / "ledger.sqlite")


def test_a_body_that_lacks_what_every_version_wrote_is_refused(tmp_path: Path) -> None:
    with create_sweep(tmp_path, SPEC) as ledger:
        ledger.append(UnknownEvent("close", "{}"))
    with pytest.raises(LedgerError, match=r"event 2 \(close\) is none that .*'why', 'seconds'"):
        read_history(tmp_path / "ledger.sqlite")
