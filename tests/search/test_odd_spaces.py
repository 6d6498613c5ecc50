"""Spaces of the user's own that return or choose among what no ledger gives back as it was, that
end the process, take long, or are changed between sessions.
"""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from search.engine.controller import Controller
from search.ledger.events import create_sweep, read_history
from search.plan.checks import check
from search.space.load import load_space, telling
from spaces import Space
from tests.conftest import Corpus
from tests.sweep_parts import call_inside, small_spec, suggest_small, train_serially, write_space

_SPACE = """
import numpy as np

def suggest(trial):
    found = {{"architecture": "vanilla_concat", "context": 1, "batch_size": 6, "width": 8,
             "classifier_hidden": 12, "lr": trial.suggest_float("lr", 1e-4, 5e-3)}}
    {body}
    return found
"""
_PAIR = 'found["width"], found["context"] = trial.suggest_categorical("pair", {choices})'


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (_PAIR.format(choices="[(8, 1), (16, 2)]"), r"a choice of 'pair' is \(8, 1\); expected"),
        (_PAIR.format(choices="[[8, 1], [16, 2]]"), r"a choice of 'pair' is \[8, 1\]; expected"),
        ('trial.suggest_categorical("w", list(np.arange(2)))', r"a choice of 'w' is np.int64\(0\)"),
        ('trial.suggest_categorical("w", [len])', "a choice of 'w' is <built-in function len>"),
        ('found["width"] = np.int64(8)', "width is a int64; expected text, a number"),
        ('found["dropout"] = np.float32(0.1)', "dropout is a float32; expected text"),
        ('found["dropout"] = np.array([0.1])', "dropout is a ndarray; expected text"),
        ('found["dropout"] = float("nan")', "dropout=nan is out of range"),
        ('found["width"] = {"a": 8}', "width is a dict; expected text"),
        ("found[5] = 8", "TypeError: 5 is no name of a setting"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("suggest(trial)", "RecursionError: maximum recursion depth exceeded"),
        ("return 5", "TypeError: 'int' object is not iterable"),
        ('trial.suggest_categorical("w", [])', "must contain one or more elements"),
        ('trial.suggest_float("w", 0, float("inf"))', "OverflowError: Range exceeds"),
        ('found["width"] = 10**400', "width=a whole number of 1,329 bits is out of range"),
        ('found["batch_size"] = 2**70', "batch_size=a whole number of 71 bits is out of range"),
        ('found["width"] = 2**62', "no vanilla_concat of these sizes can be made: "),
        ('found["label_policy"] = "x" * 10**6', r"x'... \(1,000,000 letters\); expected at most 5"),
        ("found.update(dict.fromkeys(map(str, range(10**5)), 1))", "100,006 settings; expected at"),
        ('trial.suggest_int("w", 0, 2**70)', "the range of 'w' is a whole number of 71 bits"),
        ('trial.suggest_categorical("w", [1, 10**400])', "a choice of 'w' is a whole number of 1,"),
        ('trial.suggest_categorical("w", [1.0, float("nan")])', "a choice of 'w' is nan, which eq"),
        (r'trial.suggest_categorical("w", ["\ud800"])', "'w' is '.ud800', which holds half a char"),
        ('trial.suggest_categorical("w", list(range(1001)))', "'w' has 1,001 choices; expected at"),
        ("trial.suggest_int(5, 0, 1)", "the name of a parameter is 5; expected text"),
        ('raise __import__("asyncio").CancelledError', "CancelledError: "),
        ('raise type("Odd", (Exception,), {"__str__": lambda _: 5})', "Odd: an error without a"),
        ('raise ValueError("x" * 10**7)', r"x\.\.\. \(10,000,000 letters\)"),
    ],
)
def test_what_cannot_be_recorded_or_trained_is_refused_before_anything_is_written(
    corpus: Corpus, tmp_path: Path, body: str, what: str
) -> None:
    name = write_space(tmp_path / "odd.py", _SPACE.format(body=body))
    with pytest.raises(ValueError, match=what) as found:
        check(small_spec(corpus, space=name))
    assert len(str(found.value)) < 2000


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("raise SystemExit", "cannot be loaded as a space: SystemExit: "),
        ("raise BaseException(5)", "cannot be loaded as a space: BaseException: 5"),
        (
            "KNOWN_GOOD = 5\ndef suggest(trial): return {}",
            "KNOWN_GOOD is 5; expected a list of poi",
        ),
        (
            "KNOWN_GOOD = [[1, 2]]\ndef suggest(trial): return {}",
            r"KNOWN_GOOD is \[\[1, 2\]\]; expected",
        ),
        ("suggest = dict", "cannot be used as a space: no signature found"),
    ],
)
def test_a_file_that_is_no_space_is_refused_by_its_name(
    tmp_path: Path, text: str, what: str
) -> None:
    with pytest.raises(ValueError, match=f"odd.py: {what}"):
        load_space(write_space(tmp_path / "odd.py", text))


@pytest.mark.parametrize(
    ("odd", "what"),
    [
        (lambda trial: trial.suggest_categorical("pair", [(1, 2)]), "a choice of 'pair' is (1, 2)"),
        (lambda trial: trial.suggest_categorical("pair", [object()]), "a choice of 'pair' is <obj"),
        (lambda _: {"width": object()}, "width is a object; expected text"),
        (lambda _: {5: 3}, "5 is no name of a setting"),
    ],
)
def test_what_turns_up_late_fails_its_trial_and_the_next_one_runs(
    corpus: Corpus, tmp_path: Path, odd: Callable[..., object], what: str
) -> None:
    calls = 0

    def suggest(trial: object) -> dict[str, object]:
        nonlocal calls
        settings = suggest_small(trial)  # type: ignore[arg-type]
        if is_open:
            calls += 1
        if calls == 2:
            found = odd(trial)
            return settings | (found if isinstance(found, dict) else {})
        return settings

    spec = small_spec(corpus, trials=3, epochs=1)
    is_open = False
    with create_sweep(tmp_path / "small", spec) as ledger:
        controller = Controller(ledger, spec, Space(suggest), "cpu", lambda: None)
        controller.open_session("")
        is_open = True
        for _ in train_serially(controller):
            pass
    trials = read_history(tmp_path / "small" / "ledger.sqlite").trials.values()
    assert [trial.state for trial in trials].count("failed") == 1
    assert len(trials) == 3
    assert any(what in trial.reason for trial in trials)


def test_a_space_that_takes_long_is_told_of_ever_more_rarely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    clock = iter(range(1000))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))  # a second a call
    space = telling(Space(lambda _: {}), told.append)
    for _ in range(100):
        space.suggest(None)
    assert len(told) == 6
    assert told[0].startswith("the space's function took 2 s in 2 calls so far; it is called")
    assert told[-1].startswith("the space's function took 64 s in 64 calls")


@pytest.mark.slow  # MLflow is sent two sessions
def test_a_changed_space_is_told_of_and_both_texts_are_in_the_ledger(
    corpus: Corpus, empty_store: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    shutil.copy(empty_store, runs)
    text = _SPACE.format(body='found["dropout"] = trial.suggest_float("dropout", 0.0, 0.2)')
    name = write_space(tmp_path / "mine.py", text)
    places = [corpus.manifest.path, "--features", corpus.features_dir, "--runs", runs]
    small = ["--trials", 2, "--epochs", 1, "--packs", "off"]
    done = call_inside("search", "run", "--serial", name, *places, "--name", "one", *small)
    assert "the space was changed" not in done.stdout
    write_space(tmp_path / "mine.py", text.replace("0.2)", "0.6)"))
    done = call_inside("search", "resume", "one", "--serial", "--runs", runs, "--trials", 3)
    sentence = f"the space was changed before trial 2: {name} has another text (SHA-256 "
    assert done.stdout.startswith(f"warning: {sentence}") or f"\nwarning: {sentence}" in done.stdout
    assert sentence in call_inside("search", "status", "one", "--runs", runs).stdout
    assert "the space was changed before trial 2" in (runs / "one" / "report.html").read_text()
    history = read_history(runs / "one" / "ledger.sqlite")
    assert [before for before, _ in history.spaces] == [0, 2]
    assert history.spaces[0][1].text == text
    assert history.spaces[1][1].text == (tmp_path / "mine.py").read_text()
