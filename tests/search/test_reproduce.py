"""`mmm-search reproduce`: a trial trained again is the same to the bit on this machine, and what is
not the same is told; a serial sweep repeats itself.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmm.features.store import list_recipes
from search.engine.controller import Controller
from search.ledger.events import create_sweep, read_events, read_history
from search.ledger.history import History
from search.ledger.record_json import body_of
from search.ledger.records import ClockMoved, Close, Epoch, Session
from search.ledger.spec import SweepSpec
from search.reproduce import Reproduction, reproduce, sentences
from search.space.settings import SettingsCheck, trial_config
from tests.conftest import Corpus
from tests.search.test_folds import folds_spec, same_words, swept, write_sessions
from tests.sweep_parts import SMALL_SPACE, call_here, small_spec, train_serially


def train_sweep(folder: Path, spec: SweepSpec) -> History:
    with create_sweep(folder, spec) as ledger:
        controller = Controller(ledger, spec, SMALL_SPACE, "cpu", lambda: None)
        controller.open_session("mmm-search run", threads=1)
        check = SettingsCheck(spec)
        for context in (1, 2, 3):  # what the space may ask for
            one = {"architecture": "vanilla_concat", "context": context}
            check.features(trial_config(one, spec))
        ledger.append(check.data())
        for _ in train_serially(controller):
            pass
        controller.close_session("done")
    return read_history(folder / "ledger.sqlite")


@pytest.fixture(scope="module")
def place(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With runs/small, a sweep on a copy of the features."""
    folder = tmp_path_factory.mktemp("reproduce")
    shutil.copytree(corpus.features_dir, folder / "features")
    spec = replace(small_spec(corpus), features=str(folder / "features"), trials=3, first_rung=2)
    train_sweep(folder / "runs" / "small", spec)
    return folder


def again(history: History, number: int) -> Reproduction:
    *_, found = reproduce(history, number)
    return found


def test_every_trial_is_reproduced_to_the_bit(place: Path) -> None:
    history = read_history(place / "runs" / "small" / "ledger.sqlite")
    for number, trial in history.trials.items():
        found = again(history, number)
        assert (found.is_equal, found.expects_equal, found.holds) == (True, True, True)
        assert (found.num_epochs, found.changed, found.first) == (len(trial.epochs), (), None)


def test_every_fold_is_reproduced_of_a_sweep_that_was_killed_meanwhile(tmp_path: Path) -> None:
    (tmp_path / "sessions").mkdir()
    corpus = write_sessions(tmp_path / "sessions", same_words)
    history = swept(corpus, tmp_path / "folds", folds_spec(corpus, trials=1), reports_each=2)
    assert len(history.sessions) > 1
    found = again(history, 0)
    assert (found.is_equal, found.num_epochs) == (True, len(history.trials[0].all_epochs))
    assert found.num_epochs > len(history.trials[0].epochs)


def test_a_record_that_training_does_not_give_is_not_reproduced(place: Path) -> None:
    history = read_history(place / "runs" / "small" / "ledger.sqlite")
    trial = history.trials[0]
    second = trial.epochs[1]
    trial.epochs[1] = replace(second, metrics={**second.metrics, "macro_f1": 0.123})
    found = again(history, 0)
    assert not found.holds
    assert found.first is not None
    assert (found.first.epoch, found.first.metric, found.first.recorded) == (2, "macro_f1", 0.123)
    told = " ".join(sentences(found))
    assert "the first that differs is of epoch 2: macro_f1" in told
    assert "The data are as they were" in told


def test_elsewhere_a_tolerance_holds(place: Path) -> None:
    history = read_history(place / "runs" / "small" / "ledger.sqlite")
    history.sessions = [(when, replace(one, processor="another")) for when, one in history.sessions]
    trial = history.trials[0]
    first = trial.epochs[0]
    trial.epochs[0] = replace(first, train_loss=first.train_loss * 1.0005)
    found = again(history, 0)
    assert (found.is_equal, found.expects_equal, found.holds) == (False, False, True)
    assert (
        "(scores 0.01, losses 0.001 of their value), because it was trained on another kind"
        in " ".join(sentences(found))
    )
    trial.epochs[0] = replace(first, train_loss=first.train_loss * 1.005)
    assert not again(history, 0).holds


@pytest.mark.filterwarnings("ignore:.*no checksums")
def test_features_that_were_changed_are_named(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place, tmp_path / "moved")
    ledger = tmp_path / "moved" / "runs" / "small" / "ledger.sqlite"
    history = read_history(ledger)
    features = tmp_path / "moved" / "features"
    history.spec = replace(history.spec, features=str(features))
    for folder in list_recipes(features, Path(history.spec.manifest)):
        for name in ("values", "pooled"):
            array = np.load(folder / f"{name}.npy", allow_pickle=False)
            np.save(folder / f"{name}.npy", (array * np.float16(1.01)).astype(np.float16))
        (folder / "checksums.json").unlink(missing_ok=True)
    found = again(history, 0)
    assert not found.holds
    assert any("encoded anew with other values" in one for one in found.changed)
    assert "The data were changed since it was trained" in " ".join(sentences(found))


def test_the_command_says_it_and_its_status_is_that_of_a_check(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["reproduce", "small", "--runs", place / "runs"]
    status, told, _ = call_here(capsys, monkeypatch, *arguments, "--trial", 1)
    assert status == 0
    assert "every metric equal to the bit" in told
    status, told, _ = call_here(capsys, monkeypatch, *arguments, "--json")
    assert (status, json.loads(told)["is_equal"]) == (0, True)
    status, _, errors = call_here(capsys, monkeypatch, *arguments, "--trial", 9)
    assert (status, "no trial 9; its trials are 0 to 2" in errors) == (2, True)


def without_times(history_file: Path) -> list[object]:
    """What a ledger says, but when and how long."""
    found: list[object] = []
    for event in read_events(history_file):
        body = event.body
        if isinstance(body, ClockMoved | Close | Session):
            continue
        told = body_of(body)
        if isinstance(body, Epoch):
            timed = ("seconds", "alone_seconds", "started", "ended", "memory_mb")
            told = {k: v for k, v in told.items() if k not in (*timed, "ms_per_utterance")}
        found.append((event.kind, event.trial, told))
    return found


def test_a_serial_sweep_of_the_same_seed_has_the_same_ledger_but_for_times(
    corpus: Corpus, tmp_path: Path
) -> None:
    spec = small_spec(corpus, trials=12, epochs=3, first_rung=1)
    ledgers = []
    for place in ("one", "two"):
        train_sweep(tmp_path / place / "small", spec)
        written = without_times(tmp_path / place / "small" / "ledger.sqlite")
        ledgers.append(json.loads(json.dumps(written).replace(str(tmp_path / place), "")))
    assert ledgers[0] == ledgers[1]
    assert sum(kind == "epoch" for kind, _, _ in ledgers[0]) > 12
