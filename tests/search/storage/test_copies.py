"""A sweep is copied to a store while it runs, and another machine goes on with the copy."""

import contextlib
import os
import queue
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from search.ledger.events import read_events, read_history
from search.storage.copies import INDEX, Copies, Index, Taken
from search.storage.door import StorageError, Store
from search.storage.fetch import bring
from tests.conftest import Corpus
from tests.search.cluster.test_worker_death import processes_below
from tests.search.engine.test_controller import Sweep
from tests.sweep_parts import (
    call,
    call_inside,
    command,
    environment,
    small_spec,
    train_serially,
    write_space,
)

SPACE = """
def suggest(trial):
    return {"architecture": "vanilla_concat", "context": trial.suggest_int("context", 1, 3),
            "lr": trial.suggest_float("lr", 1e-3, 3e-2, log=True),
            "classifier_hidden": 12, "batch_size": 6, "width": 8}
"""


def copies_of(sweep: Sweep, url: object, tell: Callable[[str], None] = lambda _: None) -> Copies:
    return Copies(sweep.folder, Path(sweep.spec.manifest), str(url), 0.05, tell)


@pytest.fixture
def _every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report and a checkpoint of each."""
    monkeypatch.setattr("search.worker.slices.SLICE_S", 0.0)
    monkeypatch.setattr("search.worker.trial.CHECKPOINT_SHARE", 1e9)


@pytest.mark.usefixtures("_every_epoch")
def test_every_copy_has_what_its_ledger_names(corpus: Corpus, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path / "runs" / "small", small_spec(corpus, trials=3, epochs=6, first_rung=5))
    copies = copies_of(sweep, "memory://every")
    controller = sweep.controller()
    seen = set()
    for place, _ in enumerate(train_serially(controller)):
        copies.copy(ended=False)
        bring_to = tmp_path / f"other{place}"
        bring_as_if_elsewhere(copies.store, "memory://every", bring_to)
        history = read_history(bring_to / "small" / "ledger.sqlite")
        for trial in history.trials.values():
            folder = bring_to / "small" / "trials" / f"{trial.number:05d}"
            if trial.state == "running":
                for checkpoint in trial.checkpoints:
                    name = f"checkpoint-{checkpoint.epoch:05d}.safetensors"
                    assert (folder / name).is_file()
                    seen.add((trial.number, checkpoint.epoch))
            elif trial.state == "complete":
                assert (folder / "best.safetensors").is_file()
    assert len(seen) > 6
    controller.close_session("done")
    copies.copy(ended=True)
    there, here = set(copies.store.files()), sweep.folder.rglob("*")
    kept = {path.relative_to(sweep.folder).as_posix() for path in here if path.is_file()}
    assert there == (kept - {"lock", "ledger.sqlite-wal", "ledger.sqlite-shm"}) | {
        INDEX,
        "manifest.csv",
    }


def bring_as_if_elsewhere(store: Store, url: str, runs: Path) -> None:
    """What another machine does once it has waited."""
    index = Index.of(store)
    assert index is not None
    store.write(INDEX, replace(index, ended=True).as_bytes())
    said = bring(url, "small", runs)
    assert said is not None
    store.write(INDEX, index.as_bytes())


@pytest.mark.usefixtures("_every_epoch")
def test_a_sweep_that_is_brought_goes_on_as_an_undisturbed_one(
    corpus: Corpus, tmp_path: Path
) -> None:
    spec = small_spec(corpus, trials=4)
    whole = Sweep(tmp_path / "whole" / "small", spec).run()
    sweep = Sweep(tmp_path / "one" / "small", spec)
    reports = train_serially(sweep.controller())
    for _ in range(10):
        next(reports)
    copies = copies_of(sweep, tmp_path / "store")
    copies.copy(ended=False)
    reports.close()
    sweep._open.close()
    shutil.rmtree(tmp_path / "one")
    bring_as_if_elsewhere(copies.store, str(tmp_path / "store"), tmp_path / "other")
    other = Sweep(tmp_path / "other" / "small", spec)
    before = other.history
    after = other.run()
    states = [trial.state for trial in before.trials.values()]
    assert "running" in states
    assert set(states) != {"running"}
    for number, trial in after.trials.items():
        assert trial.scores("macro_f1") == whole.trials[number].scores("macro_f1")
        if number in before.trials and before.trials[number].state != "running":
            assert trial == before.trials[number]


def test_who_was_taken_for_dead_copies_nothing_more(corpus: Corpus, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path / "one" / "small", small_spec(corpus, trials=2))
    sweep.run()
    url = str(tmp_path / "store")
    first = copies_of(sweep, url)
    first.copy(ended=False)
    with pytest.raises(StorageError, match="on this machine runs the sweep; wait for it"):
        bring(url, "small", tmp_path / "other")
    index = Index.of(first.store)
    assert index is not None
    elsewhere = replace(index, host="another")
    first.store.write(INDEX, elsewhere.as_bytes())
    with pytest.raises(StorageError, match=r"on another runs the sweep.*free in \d+ s"):
        bring(url, "small", tmp_path / "other")
    first.store.write(INDEX, replace(elsewhere, written=index.written - 1000).as_bytes())
    said = bring(url, "small", tmp_path / "other")
    assert said is not None
    assert "where another copied it" in said
    other = Sweep(tmp_path / "other" / "small", sweep.spec)
    other.run(trials=3)
    copies_of(other, url).copy(ended=False)
    with pytest.raises(Taken, match="goes on with the sweep; nothing more is copied from here"):
        first.copy(ended=False)
    with pytest.raises(Taken, match="another state of the sweep"):
        copies_of(sweep, url).copy(ended=False)
    with pytest.raises(StorageError, match="move the folder away: mv "):
        bring(url, "small", tmp_path / "one")


def test_a_store_that_is_away_is_told_of_once_and_tried_again(
    corpus: Corpus, tmp_path: Path
) -> None:
    sweep = Sweep(tmp_path / "runs" / "small", small_spec(corpus, trials=1))
    sweep.run()
    disk = tmp_path / "disk"
    disk.write_text("no folder")
    told: queue.SimpleQueue[str] = queue.SimpleQueue()
    copies = copies_of(sweep, disk / "sweeps", told.put)
    copies.start()
    note = told.get(timeout=10)
    assert note.startswith(f"note: nothing can be copied to {disk}/sweeps/small (")
    assert "training goes on, and it is tried again every 0.05 s" in note
    disk.unlink()
    assert told.get(timeout=10) == f"note: copied to {disk}/sweeps/small again"
    copies.finish()
    assert told.get(timeout=10) == f"copied to {disk}/sweeps/small"
    assert told.empty()
    assert len(list(read_events(disk / "sweeps" / "small" / "ledger.sqlite"))) > 4


def test_what_a_killed_copy_left_is_not_taken_and_removed(corpus: Corpus, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path / "runs" / "small", small_spec(corpus, trials=1))
    sweep.run()
    store = tmp_path / "store" / "small"
    (store / "trials" / "00000").mkdir(parents=True)
    half = store / "trials" / "00000" / ".best.safetensors.0a1b2c3d.part"
    half.write_bytes(b"half")
    (store / "trials" / "00000" / "best.safetensors").write_bytes(b"of another")
    copies = copies_of(sweep, tmp_path / "store")
    copies.copy(ended=True)
    assert not half.exists()
    kept = sweep.folder / "trials" / "00000" / "best.safetensors"
    assert (store / "trials" / "00000" / "best.safetensors").read_bytes() == kept.read_bytes()


def copy_of(corpus: Corpus, folder: Path) -> tuple[Path, Path]:
    """Manifest and features at a place of their own."""
    folder.mkdir()
    shutil.copy(corpus.manifest.path, folder / "manifest.csv")
    shutil.copytree(corpus.features_dir, folder / "features")
    return folder / "manifest.csv", folder / "features"


@pytest.mark.slow  # two processes that import everything
def test_another_machine_goes_on_where_the_driver_and_its_disk_were_lost(
    corpus: Corpus, empty_store: Path, tmp_path: Path
) -> None:
    one, other, url = tmp_path / "one", tmp_path / "other", tmp_path / "bucket"
    manifest, features = copy_of(corpus, one)
    space = write_space(one / "space.py", SPACE)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    tracking = f"sqlite:///{tmp_path / 'mlflow.db'}"
    given = ["--features", features, "--name", "small", "--runs", one / "runs", "--serial"]
    given += ["--trials", 12, "--epochs", 60, "--first-rung", 20, "--tracking-uri", tracking]
    given += ["--storage", url, "--storage-interval", "0.2s", "--packs", "off"]
    with subprocess.Popen(
        command("search", "run", space, manifest, *given),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as driver:
        try:
            while driver.poll() is None and not has_some_ended(url / "small"):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    driver.wait(0.1)
            assert driver.poll() is None, driver.communicate()[1]
        finally:
            below = processes_below(driver.pid)
            driver.kill()
            for process in below:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
    one.rename(tmp_path / "lost")
    before = read_history(url / "small" / "ledger.sqlite")
    ended = {n: trial for n, trial in before.trials.items() if trial.state != "running"}

    features = copy_of(corpus, other)[1]
    (other / "manifest.csv").unlink()  # the copy has it
    resume = ["resume", "small", "--runs", other / "runs", "--storage", url, "--serial"]
    said = call_inside("search", *resume, status=2).stderr
    assert f"{one / 'features'}: the sweep's features are not on this machine" in said
    resume += ["--features", features]
    said = call_inside("search", *resume, status=2).stderr
    text = other / "runs" / "small" / "space.py"
    assert said.endswith(f" --space {text}:suggest\n"), said
    assert text.read_text() == SPACE
    done = call("search", *resume, "--space", f"{text}:suggest")
    assert f"copied to {url}/small" in done.stdout
    assert "warning" not in done.stdout

    ledger = other / "runs" / "small" / "ledger.sqlite"
    after = read_history(ledger)
    assert after.last_close is not None
    assert after.last_close.why == "done"
    assert {number: after.trials[number] for number in ended} == ended
    again = [e for e in read_events(ledger) if e.kind == "epoch" and e.trial in ended]
    assert len(again) == sum(len(trial.epochs) for trial in ended.values())
    # Nothing is trained from its beginning again.
    known = {n: t.checkpoints[0].epoch for n, t in before.trials.items() if t.checkpoints}
    sessions = 0
    for event in read_events(ledger):
        sessions += event.kind == "session"
        if event.kind == "epoch" and sessions == 2:
            assert event.body.epoch > known.get(event.trial, 0)
    found = MlflowClient(tracking_uri=tracking).search_runs(["1"])
    assert len(found) == 13
    assert "RUNNING" not in {run.info.status for run in found}
    assert read_history(url / "small" / "ledger.sqlite").last_close == after.last_close


def has_some_ended(store: Path) -> bool:
    """Whether a copy's ledger has several trials that ended, and one that has not."""
    if not (store / INDEX).is_file():
        return False
    states = [trial.state for trial in read_history(store / "ledger.sqlite").trials.values()]
    return len(states) >= 4 and "running" in states
