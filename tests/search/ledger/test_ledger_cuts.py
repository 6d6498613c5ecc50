"""A ledger that was cut or damaged: a torn write-ahead log loses its last transactions and nothing
else; a damaged file is refused.
"""

import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from search.engine.asha import rung_scores
from search.engine.controller import Controller
from search.ledger.events import (
    Entry,
    LedgerError,
    create_sweep,
    open_sweep,
    read_events,
    read_history,
)
from search.ledger.records import Event, Warned
from search.suggest.searcher import Searcher
from search.tracking.delivery import sync
from search.tracking.store import EXPERIMENT, default_tracking_uri
from tests.conftest import Corpus
from tests.search.ledger.test_ledger import SPEC, end, session, suggest
from tests.sweep_parts import METRIC, SMALL_SPACE, epoch_entry, small_spec, train_serially

LOG_HEADER, FRAME_HEADER, PAGE = 32, 24, 4096


@dataclass(frozen=True)
class Files:
    """Bytes of a ledger that its writer left open, its events, and (size of the log, events) after
    each transaction.
    """

    main: bytes
    log: bytes
    events: list[Event]
    commits: list[tuple[int, int]]

    def write(self, folder: Path, main: bytes | None = None, log: bytes | None = None) -> Path:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "ledger.sqlite").write_bytes(self.main if main is None else main)
        (folder / "ledger.sqlite-wal").write_bytes(self.log if log is None else log)
        return folder / "ledger.sqlite"

    def committed(self, cut: int) -> list[Event]:
        """Events of the transactions that are whole in a log of `cut` bytes."""
        return self.events[
            : max(
                (count for size, count in self.commits if size <= cut), default=self.commits[0][1]
            )
        ]


# A transaction that fills pages of its own between small ones.
TRANSACTIONS: list[list[Entry]] = [
    [session(), suggest(0)],
    [(0, epoch_entry(1, 0.5)), Warned(0, "기쁨" * 700)],
    [(0, epoch_entry(2, 0.5)), end(0, "complete")],
]


@pytest.fixture(scope="module", params=[0, 1], ids=["all in the log", "the first in the file"])
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("ledger")
    log = folder / "ledger.sqlite-wal"
    opened, commits = create_sweep(folder, SPEC), [(0, 0)]
    if request.param:
        with opened:  # closed, it leaves no log
            pass
        opened, commits = open_sweep(folder), [(0, 1)]
    with opened as ledger:
        if not request.param:
            commits.append((log.stat().st_size, 1))
        for entries in TRANSACTIONS:
            ledger.append(*entries)
            commits.append((log.stat().st_size, commits[-1][1] + len(entries)))
        return Files(
            ledger.path.read_bytes(), log.read_bytes(), list(read_events(ledger.path)), commits
        )


def ends_of_frames(log: bytes) -> Iterator[int]:
    yield from range(LOG_HEADER, len(log) + 1, FRAME_HEADER + PAGE)


@pytest.mark.parametrize("stride", [pytest.param(1, marks=pytest.mark.slow), 83])
def test_a_log_cut_at_any_byte_loads_exactly_its_committed_events(
    files: Files, tmp_path: Path, stride: int, record_property: Callable[[str, object], None]
) -> None:
    path = files.write(tmp_path / "cut")
    log = path.with_name("ledger.sqlite-wal")
    near = {
        end + step for end in (0, *ends_of_frames(files.log)) for step in (-1, 0, 1, FRAME_HEADER)
    }
    cuts = {
        *range(0, len(files.log) + 1, stride),
        *(cut for cut in near if 0 <= cut <= len(files.log)),
    }
    lost = 0
    for cut in sorted(cuts, reverse=True):
        os.truncate(log, cut)
        found = list(read_events(path))
        assert found == files.committed(cut), cut
        lost += len(files.committed(cut)) - len(found)
    record_property(
        "lost", f"{len(cuts)} cuts of a log: {lost} events of transactions that were whole before"
    )
    assert log.read_bytes() == b""  # reading changes nothing


def test_a_ledger_whose_log_was_cut_is_written_on(files: Files, tmp_path: Path) -> None:
    draw = random.Random(1)
    cuts = {
        0,
        len(files.log),
        *ends_of_frames(files.log),
        *(draw.randrange(len(files.log)) for _ in range(12)),
    }
    for cut in cuts:
        path = files.write(tmp_path / "cut", log=files.log[:cut])
        kept = files.committed(cut)
        for number in (1, 2):  # the second time from a file that was closed well
            is_new = not kept and number == 1
            with create_sweep(path.parent, SPEC) if is_new else open_sweep(path.parent) as ledger:
                ledger.append(Warned(0, f"{number}"), Warned(0, "and on"))
        found = list(read_events(path))
        assert found[: len(kept)] == kept, cut
        assert [event.seq for event in found] == list(range(1, max(1, len(kept)) + 5)), cut


def test_a_missing_log_is_an_empty_one(files: Files, tmp_path: Path) -> None:
    path = files.write(tmp_path / "cut")
    path.with_name("ledger.sqlite-wal").unlink()
    assert list(read_events(path)) == files.committed(0)


def refused_or_same(files: Files, path: Path) -> str:
    """What the refusal of a damaged ledger says; empty where it is as it was. Anything else is a
    lost or changed event.
    """
    try:
        found = list(read_events(path))
    except LedgerError as error:
        content = path.read_bytes()
        with pytest.raises(LedgerError):
            open_sweep(path.parent).__enter__()
        assert path.read_bytes() == content
        assert str(error).startswith(f"{path}: ")
        return str(error)
    assert found == files.events
    try:
        with open_sweep(path.parent) as ledger:
            ledger.append(Warned(0, ""))
    except (
        LedgerError
    ) as error:  # all can be read, but the file's free pages or the like are damaged
        assert "cannot be written to (" in str(error)
        return str(error)
    assert list(read_events(path))[:-1] == files.events
    return ""


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A ledger that was closed well: all of it is in the file."""
    folder = tmp_path_factory.mktemp("closed")
    with create_sweep(folder, SPEC) as ledger:
        ledger.append(session(), suggest(0))
        for epoch in range(1, 13):
            ledger.append((0, epoch_entry(epoch, 0.5)), Warned(0, "x" * 900))
    return Files(
        (folder / "ledger.sqlite").read_bytes(),
        b"",
        list(read_events(folder / "ledger.sqlite")),
        [],
    )


def test_a_flipped_bit_is_refused_with_its_place_or_changes_nothing(
    closed: Files, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    draw = random.Random(1)
    said = []
    for place in [*range(16, 100, 3), *(draw.randrange(len(closed.main)) for _ in range(150))]:
        main = bytearray(closed.main)
        main[place] ^= 1 << draw.randrange(8)
        said.append(refused_or_same(closed, closed.write(tmp_path / "flipped", main=bytes(main))))
    assert (
        sum(
            "is not what was written; the file is damaged: restore it from a copy, or start anew"
            in text
            for text in said
        )
        > 50
    )
    refused = sum(map(bool, said))
    record_property(
        "lost",
        f"{len(said)} flipped bits: {refused} refused by name, {len(said) - refused} with no event"
        " changed",
    )


def test_a_flipped_letter_in_an_event_is_found_and_the_event_named(
    closed: Files, tmp_path: Path
) -> None:
    main = closed.main.replace(b'"epoch":7,', b'"epoch":6,')
    assert main != closed.main
    seq = next(event.seq for event in closed.events if getattr(event.body, "epoch", 0) == 7)
    path = closed.write(tmp_path / "flipped", main=main)
    assert (
        f"ledger.sqlite: event {seq} is not what was written; the file is damaged"
        in refused_or_same(closed, path)
    )
    assert [event.seq for event in read_events(path, after=seq)] == list(
        range(seq + 1, len(closed.events) + 1)
    )


def test_zeroed_and_missing_parts_are_refused_or_were_not_in_use(
    closed: Files, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    draw, said = random.Random(1), []
    for length in [16, 512, PAGE] * 8:
        place = draw.randrange(len(closed.main) - length)
        main = closed.main[:place] + bytes(length) + closed.main[place + length :]
        said.append(refused_or_same(closed, closed.write(tmp_path / "zeroed", main=main)))
    for place in [100, *range(512, len(closed.main), 1536)]:
        path = closed.write(tmp_path / "short", main=closed.main[:place])
        said.append(refused_or_same(closed, path))
        assert "the file is damaged: restore it from a copy" in said[-1]
    refused = sum(map(bool, said))
    record_property(
        "lost",
        f"{len(said)} zeroed or missing parts: {refused} refused by name, {len(said) - refused}"
        " with no event changed",
    )


def test_a_file_that_is_empty_beside_a_log_that_is_not_is_refused_and_the_log_stays(
    files: Files, tmp_path: Path
) -> None:
    path = files.write(tmp_path / "empty", main=b"")
    with pytest.raises(
        LedgerError,
        match=r"ledger\.sqlite: is empty, but ledger\.sqlite-wal is not; the file is damaged",
    ):
        read_history(path)
    with pytest.raises(LedgerError, match="is empty, but"):
        open_sweep(path.parent).__enter__()
    assert path.with_name("ledger.sqlite-wal").read_bytes() == files.log


def test_rows_that_someone_removed_or_changed_are_missed(closed: Files, tmp_path: Path) -> None:
    for change, said in (
        ("DELETE FROM events WHERE seq = 5", "event 5 is missing (the next is 6)"),
        (
            f"DELETE FROM events WHERE seq = {len(closed.events)}",
            f"ends with event {len(closed.events) - 1} instead of",
        ),
        ("DELETE FROM events WHERE seq = 1", "event 1 is missing (the next is 2)"),
        ("UPDATE events SET trial = 1 WHERE seq = 4", "event 4 is not what was written"),
        ("UPDATE events SET time = time + 1 WHERE seq = 4", "event 4 is not what was written"),
    ):
        path = closed.write(tmp_path / "changed")
        connection = sqlite3.connect(path)
        connection.execute(change)
        connection.commit()
        connection.close()
        assert said in refused_or_same(closed, path)


@pytest.fixture(scope="module")
def swept(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep killed in the middle of a trial, gone on with, and killed again when trials had ended
    in each way.
    """
    folder = tmp_path_factory.mktemp("swept") / "small"
    spec = small_spec(corpus, trials=12, epochs=4, first_rung=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("search.worker.slices.SLICE_S", 0.0)  # each epoch is a report of its own
        for ended in ({"complete"}, {"complete", "pruned"}):
            opened = open_sweep(folder) if folder.is_dir() else create_sweep(folder, spec)
            with opened as ledger:
                controller = Controller(ledger, spec, SMALL_SPACE, "cpu", lambda: None)
                controller.open_session("mmm-search run")
                for _ in train_serially(controller):
                    trials = controller.trials.values()
                    is_inside = any(trial.state == "running" and trial.epochs for trial in trials)
                    if is_inside and {trial.state for trial in trials} == ended | {"running"}:
                        break
    return folder


def test_rebuilding_twice_gives_the_same_history_study_and_rungs(swept: Path) -> None:
    one, other = (read_history(swept / "ledger.sqlite") for _ in range(2))
    assert one == other
    with open_sweep(swept) as ledger:
        assert ledger.history == one
    assert {trial.state for trial in one.trials.values()} >= {"complete", "pruned", "running"}
    for rung in one.spec.rungs:
        assert (
            rung_scores(one.trials, rung, METRIC) == rung_scores(other.trials, rung, METRIC) != {}
        )
    studies = []
    for history in (one, other):
        searcher = Searcher(SMALL_SPACE, METRIC, 1, history.trials)
        studies.append(
            [
                (
                    trial.number,
                    trial.state,
                    trial.values,
                    trial.params,
                    trial.distributions,
                    trial.intermediate_values,
                )
                for trial in searcher.study.get_trials()
            ]
        )
        assert [trial[5] for trial in studies[-1]] == [
            trial.scores(METRIC) for trial in history.trials.values()
        ]
        studies[-1].append(searcher.suggest(len(history.trials)))
    assert studies[0] == studies[1]


def mlflow_content(runs: Path) -> dict[str, Any]:
    """By trial, all that MLflow holds of a run except the names it was given by chance."""
    client = MlflowClient(tracking_uri=default_tracking_uri(runs))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    found = {}
    for run in client.search_runs([experiment.experiment_id]):
        tags = {
            tag: value
            for tag, value in run.data.tags.items()
            if tag not in ("mmm.sweep_id", "mmm.folder", "mlflow.parentRunId")
        }
        points = {
            name: [
                (point.step, point.timestamp, point.value)
                for point in client.get_metric_history(run.info.run_id, name)
            ]
            for name in run.data.metrics
        }
        about = (run.info.run_name, run.info.status, run.info.start_time, run.info.end_time)
        found[run.data.tags["mmm.trial"]] = (about, tags, run.data.params, points)
    return found


@pytest.mark.slow
def test_sending_a_ledger_to_two_stores_gives_both_the_same_content(
    swept: Path, tmp_path: Path
) -> None:
    contents = []
    for name in ("one", "other"):
        shutil.copytree(swept, tmp_path / name / "small")
        sync(tmp_path / name, "small", None)
        contents.append(mlflow_content(tmp_path / name))
    assert contents[0] == contents[1]
    trials = read_history(swept / "ledger.sqlite").trials
    assert contents[0].keys() == {"sweep", *map(str, trials)}
    for number, trial in trials.items():
        points = contents[0][str(number)][3].get(METRIC, [])  # none of one that was just suggested
        assert [(step, value) for step, _, value in points] == list(trial.scores(METRIC).items())
