"""The ledger: events are only added, one writer holds it, and folding them up gives a sweep's
state.
"""

import json
import os
import re
import shlex
import socket
import sqlite3
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search.ledger.events import (
    Entry,
    LedgerError,
    create_sweep,
    open_sweep,
    read_events,
    read_history,
)
from search.ledger.history import History
from search.ledger.lock import STALE_S
from search.ledger.record_json import body_of
from search.ledger.records import (
    Checkpoint,
    Close,
    End,
    EndState,
    Event,
    Session,
    Suggestion,
    Sweep,
    Warned,
    as_json,
)
from search.ledger.spec import SweepSpec
from tests.sweep_parts import METRIC, epoch_entry, events_of

SPEC = SweepSpec("first", "quick", "manifest.csv", "features", trials=6, epochs=4, workers=2)
SETTINGS = {"architecture": "vanilla_concat", "context": 1}


def suggest(number: int) -> Entry:
    return number, Suggestion({}, {}, SETTINGS)


def end(number: int, state: EndState) -> Entry:
    return number, End(state, f"why {state}")


def session(**changes: Any) -> Session:
    return Session(replace(SPEC, **changes), "here", "mmm-search run")


def fold(*timed: tuple[float, Entry]) -> History:
    history = History.of(events_of(*(entry for _, entry in timed), at=[when for when, _ in timed]))
    assert history is not None
    return history


SWEEP = Sweep(SPEC)
CLOSE = Close("done", 1.0, None)


def test_events_come_back_as_they_were_appended_and_in_their_order(tmp_path: Path) -> None:
    with create_sweep(tmp_path, SPEC) as ledger:
        ledger.append(session())
        ledger.append(suggest(0))
        ledger.append((0, epoch_entry(1, 0.25)), Warned(0, "기쁨"))
    events = list(read_events(tmp_path / "ledger.sqlite"))
    assert [(event.seq, event.kind, event.trial) for event in events] == [
        (1, "sweep", None),
        (2, "session", None),
        (3, "suggest", 0),
        (4, "epoch", 0),
        (5, "note", None),
    ]
    assert events[0].body.spec == SPEC
    assert [event.body for event in events[1:]] == [
        session(),
        suggest(0)[1],
        epoch_entry(1, 0.25),
        Warned(0, "기쁨"),
    ]
    assert [event.seq for event in read_events(tmp_path / "ledger.sqlite", after=3)] == [4, 5]


def test_opening_again_adds_behind_what_is_there(tmp_path: Path) -> None:
    with create_sweep(tmp_path, SPEC) as ledger:
        ledger.append(session(), suggest(0))
    before = list(read_events(tmp_path / "ledger.sqlite"))
    with open_sweep(tmp_path) as ledger:
        assert list(ledger.history.trials) == [0]
        ledger.append(suggest(1))
        assert list(ledger.history.trials) == [0, 1]
    after = list(read_events(tmp_path / "ledger.sqlite"))
    assert after[:3] == before
    assert [event.seq for event in after] == [1, 2, 3, 4]


def test_an_append_that_fails_midway_leaves_nothing(tmp_path: Path) -> None:
    with create_sweep(tmp_path, SPEC) as ledger:
        ledger.append(suggest(0))
        with pytest.raises(TypeError, match="not JSON serializable"):
            ledger.append((0, epoch_entry(1, 0.5)), (0, Checkpoint(1, "", tmp_path)))
        assert ledger.history.trials[0].epochs == []
        assert len(list(read_events(ledger.path))) == 2
        ledger.append((0, epoch_entry(1, 0.75)))
    assert read_history(tmp_path / "ledger.sqlite").trials[0].scores(METRIC) == {1: 0.75}


def test_a_second_writer_is_refused_and_told_who_holds_the_sweep(tmp_path: Path) -> None:
    with create_sweep(tmp_path / "first", SPEC) as ledger:
        with pytest.raises(LedgerError) as refused:
            open_sweep(tmp_path / "first").__enter__()
        assert re.fullmatch(
            rf"sweep 'first' is being run by \S.*, process {os.getpid()} on {socket.gethostname()},"
            r" since \d{4}-\d\d-\d\d "
            r"\d\d:\d\d:\d\d, last heartbeat \d+ s ago; wait for it, or choose another --name",
            str(refused.value),
        )
        ledger.append(suggest(0))
    with open_sweep(tmp_path / "first") as ledger:
        assert list(ledger.history.trials) == [0]


def holder(host: str, age_s: float) -> str:
    """What the lock of a process that did not release it says."""
    return json.dumps(
        {
            "owner": "kim",
            "host": host,
            "process": 7,
            "since": "2026-01-01 10:00:00",
            "heartbeat": time.time() - age_s,
        }
    )


def test_a_process_that_died_on_this_host_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text(holder(socket.gethostname(), 1.0))
    with create_sweep(tmp_path, SPEC) as ledger:
        assert ledger.lock.replaced is None
    assert (tmp_path / "lock").read_text() == ""


def test_another_host_holds_the_sweep_as_long_as_it_gives_signs_of_life(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text(before := holder("node7", STALE_S - 10))
    who = (
        r"kim, process 7 on node7, since 2026-01-01 10:00:00, last heartbeat 50 s ago \(if it is"
        r" dead: free in 10 s\)"
    )
    with pytest.raises(
        LedgerError, match=f"is being run by {who}; wait for it, or choose another --name"
    ):
        open_sweep(tmp_path).__enter__()
    assert (tmp_path / "lock").read_text() == before
    (tmp_path / "lock").write_text(before[:20])  # as it is while it is written
    with pytest.raises(
        LedgerError,
        match="is being run by someone, process unknown on another host, since just now, last",
    ):
        open_sweep(tmp_path).__enter__()
    (tmp_path / "lock").write_text(holder("node7", STALE_S + 10))
    with create_sweep(tmp_path, SPEC) as ledger:
        assert (
            ledger.lock.replaced
            == "kim, process 7 on node7, since 2026-01-01 10:00:00, silent for 70 s"
        )
        assert json.loads((tmp_path / "lock").read_text())["host"] == socket.gethostname()


@pytest.mark.parametrize("ahead_s", [10.0, 86_400.0, float("nan")])
def test_a_dead_host_whose_clock_was_ahead_does_not_hold_the_sweep_until_then(
    tmp_path: Path, ahead_s: float
) -> None:
    lock = tmp_path / "lock"
    lock.write_text(holder("node7", -ahead_s))
    with pytest.raises(LedgerError, match=r"node7, .*\(if it is dead: free in (60|59|58) s\)"):
        open_sweep(tmp_path).__enter__()
    written = time.time() - STALE_S - 10
    os.utime(lock, (written, written))
    with create_sweep(tmp_path, SPEC) as ledger:
        assert "silent for 7" in (ledger.lock.replaced or "")


def test_the_heartbeat_is_renewed_without_touching_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.ledger.lock.HEARTBEAT_S", 0.001)
    with create_sweep(tmp_path, SPEC) as ledger:
        files = [ledger.path, ledger.path.with_name("ledger.sqlite-wal")]
        before = [file.read_bytes() for file in files]
        first = time.time()
        while float(json.loads((tmp_path / "lock").read_text())["heartbeat"]) < first + 0.01:
            assert time.time() < first + 60
        assert [file.read_bytes() for file in files] == before


def test_of_two_writers_that_no_lock_kept_apart_the_second_to_write_is_stopped(
    tmp_path: Path,
) -> None:
    with create_sweep(tmp_path, SPEC) as one:
        (tmp_path / "lock").unlink()
        with open_sweep(tmp_path) as other:
            other.append(suggest(0))
            with pytest.raises(
                LedgerError,
                match=r"ledger\.sqlite: another process writes to it as well; this one stops",
            ):
                one.append(suggest(0))
    assert read_history(tmp_path / "ledger.sqlite").trials.keys() == {0}


def test_a_ledger_of_another_format_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "ledger.sqlite")
    connection.execute(
        "CREATE TABLE events (seq INTEGER PRIMARY KEY, time REAL, kind TEXT, trial INTEGER, body"
        " TEXT)"
    )
    connection.close()
    expected = (
        r"ledger\.sqlite: a ledger of format 0, this version of mmm-search reads and writes 1; go"
        r" on with the version that"
    )
    with pytest.raises(LedgerError, match=expected):
        read_history(tmp_path / "ledger.sqlite")
    with pytest.raises(LedgerError, match=expected):
        open_sweep(tmp_path).__enter__()


def test_anyone_may_read_while_a_writer_holds_it(tmp_path: Path) -> None:
    with create_sweep(tmp_path, SPEC) as ledger:
        ledger.append(suggest(0))
        assert read_history(ledger.path).trials.keys() == {0}
        ledger.append(suggest(1))
        assert read_history(ledger.path).trials.keys() == {0, 1}


def test_reading_sees_no_event_of_an_open_transaction(tmp_path: Path) -> None:
    with create_sweep(tmp_path, SPEC) as ledger:
        ledger.append(suggest(0))
        other = sqlite3.connect(ledger.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        other.execute(
            "INSERT INTO events VALUES (3, 0, 'suggest', 1, ?, 0)",
            [json.dumps(body_of(suggest(1)[1]))],
        )
        assert read_history(ledger.path).trials.keys() == {0}
        other.execute("ROLLBACK")
        other.close()


@pytest.mark.parametrize(
    "content",
    [b"not a database, whatever its name says" * 50, b"SQLite format 3\x00" + b"\xff" * 2000],
)
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(content)
    with pytest.raises(LedgerError, match=r"ledger\.sqlite: cannot be read as a ledger \("):
        read_history(path)
    with pytest.raises(LedgerError, match=r"ledger\.sqlite: cannot be read as a ledger \("):
        open_sweep(tmp_path).__enter__()
    assert path.read_bytes() == content


def test_a_ledger_in_which_nothing_started_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").touch()  # its writer died before the first byte
    refusal = "an empty ledger: the sweep never started; remove its folder"
    with pytest.raises(LedgerError, match=refusal):
        read_history(tmp_path / "ledger.sqlite")
    with pytest.raises(LedgerError, match=refusal):
        open_sweep(tmp_path).__enter__()
    with create_sweep(tmp_path, SPEC) as ledger:
        assert ledger.history.spec == SPEC


def test_a_sweep_is_not_begun_where_one_began(tmp_path: Path) -> None:
    folder = tmp_path / "my runs; rm x" / "first"
    with create_sweep(folder, SPEC):
        pass
    before = (folder / "ledger.sqlite").read_bytes()
    with pytest.raises(LedgerError, match=r"ledger\.sqlite: a sweep began here before") as found:
        create_sweep(folder, SPEC).__enter__()
    assert (folder / "ledger.sqlite").read_bytes() == before
    _, _, command = str(found.value).partition(" or go on with it: ")
    assert shlex.split(command) == ["mmm-search", "resume", "first", "--runs", str(folder.parent)]


def test_epochs_trained_again_replace_those_after_the_checkpoint() -> None:
    entries: list[Entry] = [SWEEP, suggest(0)]
    entries += [
        (0, epoch_entry(epoch, score)) for epoch, score in ((1, 0.1), (2, 0.2), (3, 0.9), (2, 0.4))
    ]
    history = fold(*((0.0, entry) for entry in entries))
    assert history.trials[0].scores(METRIC) == {1: 0.1, 2: 0.4}
    assert history.trials[0].best(METRIC) == (2, 0.4)


def test_tables_among_the_metrics_come_back_and_scores_are_read_without_them(
    tmp_path: Path,
) -> None:
    tables = {"per_class": {"기쁨": {"f1": 0.5}}, "confusion_matrix": [[1, 2], [3, 4]]}
    entry = replace(epoch_entry(1, 0.25), tables=as_json(tables))
    with create_sweep(tmp_path, SPEC) as ledger:
        ledger.append(suggest(0), (0, entry))
        written = ledger.history.trials[0]
    read = read_history(tmp_path / "ledger.sqlite").trials[0]
    assert written == read
    assert read.epochs[0].metrics == {METRIC: 0.25}
    assert read.metrics(1) == written.metrics(1) == {METRIC: 0.25, **tables}
    assert list(read_events(tmp_path / "ledger.sqlite"))[-1].body == entry


def test_the_best_epoch_is_the_earliest_of_equal_ones() -> None:
    entries: list[Entry] = [SWEEP, suggest(0), suggest(1)]
    entries += [(0, epoch_entry(epoch, score)) for epoch, score in ((1, 0.1), (2, 0.3), (3, 0.3))]
    history = fold(*((0.0, entry) for entry in entries))
    assert history.trials[0].best(METRIC) == (2, 0.3)
    assert history.trials[1].best(METRIC) is None


def test_the_ranking_is_by_best_epoch_then_number_and_failed_trials_are_last() -> None:
    entries: list[Entry] = [SWEEP, *(suggest(number) for number in range(5))]
    scored = ((0, 0.3), (1, 0.5), (2, 0.9), (3, 0.5))
    entries += [(number, epoch_entry(1, score)) for number, score in scored]
    entries += [
        end(0, "complete"),
        end(1, "pruned"),
        end(2, "failed"),
        end(3, "complete"),
        end(4, "failed"),
    ]
    history = fold(*((0.0, entry) for entry in entries))
    assert [trial.number for trial in history.ranked(METRIC)] == [1, 3, 0, 2]
    assert (history.trials[1].state, history.trials[1].reason) == ("pruned", "why pruned")


def test_time_used_adds_up_over_sessions_and_pauses_do_not_count() -> None:
    history = fold(
        (0.0, SWEEP), (10.0, session()), (40.0, CLOSE), (1000.0, session()), (1005.0, CLOSE)
    )
    assert history.used_s == 35.0


def test_a_killed_session_counts_up_to_its_last_event() -> None:
    history = fold(
        (0.0, SWEEP), (10.0, session()), (25.0, suggest(0)), (500.0, session()), (503.0, CLOSE)
    )
    assert history.used_s == 18.0


def test_a_resumed_session_changes_the_specification_and_reopens_the_sweep() -> None:
    history = fold((0.0, SWEEP), (1.0, session()), (2.0, CLOSE))
    assert history.last_close == CLOSE
    history.apply(Event(4, 3.0, None, session(trials=8, workers=1)))
    assert (history.spec.trials, history.spec.workers, history.spec.epochs) == (8, 1, 4)
    assert history.last_close is None


def test_a_sweep_whose_folder_is_moved_away_stops_instead_of_writing_to_two(tmp_path: Path) -> None:
    with create_sweep(tmp_path / "first", SPEC) as ledger:
        ledger.append(Close("interrupted", 1.0, None))
        (tmp_path / "first").rename(tmp_path / "moved")
        with pytest.raises(LedgerError, match="was moved or removed while the sweep ran; move its"):
            ledger.append(Close("done", 1.0, None))
        with create_sweep(tmp_path / "first", SPEC):  # another one at its place
            pass
        with pytest.raises(LedgerError, match="was moved or removed while the sweep ran"):
            ledger.append(Close("done", 1.0, None))
    assert len(list(read_events(tmp_path / "moved" / "ledger.sqlite"))) == 2
