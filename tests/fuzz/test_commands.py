"""Command lines, spaces of the user's own, and points to enqueue."""

import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from search.ledger.events import create_sweep, read_history
from search.ledger.records import Suggestion
from search.plan.checks import check
from search.space.enqueue import read_points
from search.space.load import SpaceError, ask_for
from spaces.quick import KNOWN_GOOD
from tests.conftest import Corpus
from tests.fuzz.parts import NASTY, content_of, counted, inputs, json_text, told_by
from tests.sweep_parts import small_spec, write_space

# Commands that end by themselves and start nothing, and options of each.
_COMMANDS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("mmm", "corpus-report"): ("-o",),
    ("mmm", "features"): ("--rename", "--remove"),
    ("mmm", "predict"): (
        "--audio",
        "--text",
        "--history",
        "--speaker",
        "--dialogue",
        "--folder",
        "-o",
    ),
    ("mmm", "test"): ("--features", "--all"),
    ("mmm", "baselines"): ("--features", "--metric", "--speech", "--text"),
    ("mmm", "check-architecture"): ("--own", "--width"),
    ("mmm", "encode"): ("--features", "--context", "--layer", "--audio-encoder", "--device"),
    ("mmm", "prepare", "csv"): ("-o", "--emotion", "--column", "--shares", "--encoding", "--folds"),
    ("mmm", "prepare", "meld"): ("-o", "--emotion", "--seed"),
    ("mmm", "prepare", "kemdy20"): ("-o", "--dev-sessions", "--text", "--with-ai-hub"),
    ("mmm", "prepare", "iemocap"): ("-o", "--labels", "--folds"),
    ("search", "status"): ("--runs",),
    ("search", "report"): ("--runs",),
    ("search", "compare"): ("--runs", "-o"),
    ("search", "reproduce"): ("--runs", "--trial", "--device"),
    ("search", "paper"): ("--features", "-o", "--seeds", "--test-sessions", "--speech"),
    ("search", "export"): ("--runs", "-o", "--trial", "--top", "--register"),
    ("search", "export-study"): ("--runs",),
    ("search", "mlflow-sync"): ("--runs", "--tracking-uri"),
    ("search", "resume"): ("--runs", "--trials", "--enqueue", "--time-budget", "--workers"),
    ("search", "run"): ("--features", "--name", "--runs", "--trials", "--epochs", "--precision"),
    ("search", "plan"): ("--features", "--trials", "--epochs", "--json"),
}
_WORDS = NASTY.filter(lambda text: "\0" not in text) | st.sampled_from(
    ["there.csv", "empty", "pipe", "link", "loop", "x.py:f", "quick", "full", "0,1", "1-2", "2h"]
)


@inputs(0.14)
@example(("mmm", "predict"), ["x" * 300], {})
@example(("search", "status"), ["x" * 90], {"--runs": "y" * 300})
@example(("mmm", "corpus-report"), ["there.csv"], {"-o": "pipe"})
@given(
    command=st.sampled_from(sorted(_COMMANDS)),
    words=st.lists(_WORDS, max_size=3),
    values=st.dictionaries(st.integers(0, 9), _WORDS, max_size=4),
)
def test_a_command_line_is_answered_in_one_message(
    command: tuple[str, ...], words: list[str], values: dict[Any, str]
) -> None:
    module, *names = command
    options = [
        part
        for place, value in values.items()
        for part in (
            _COMMANDS[command][place % len(_COMMANDS[command])]
            if isinstance(place, int)
            else place,
            value,
        )
    ]
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name) / "here"
        folder.mkdir()
        patch.chdir(folder)
        (folder / "empty").mkdir()
        (folder / "there.csv").write_text("audio,text\n")
        (folder / "link").symlink_to("there.csv")
        (folder / "loop").symlink_to("loop")
        before = content_of(folder)
        told = told_by("command lines", module, *names, *words, *options, statuses=(0, 1, 2))
        if told.status == 2:
            left = content_of(folder)
            new = {key: left[key] for key in left if key not in before}
            assert {key: left[key] for key in before} == before
            assert not [key for key in new if not key.endswith(".lock")], new


_BODY = """
import math, random
import numpy as np

def suggest(trial):
    found = {{"architecture": {architecture}, "context": 1, "batch_size": 6, "width": 8,
             "classifier_hidden": 12, "lr": {lr}}}
{lines}
    return found
"""
_CHOICES = (
    *('["vanilla_concat", "mlp_mixer"]', '["three_way_concat"]', "[None, 1]", "[(1, 2), (3, 4)]"),
    *("[[1], [2]]", "[len]", "list(np.arange(3))", '[float("nan"), 1.0]', "[True, 1, 0]", "[]"),
    *('["\\x1b[31m", "[/red]"]', '["a" * 9000, "b"]', "[1.0, 2]", '["\\ud800", "x"]', "range(3)"),
)
_NUMBERS = (
    *("0.0, 1.0", "1e-5, 1e-1, log=True", "0, 0", "1, 0", "0.0, float('inf')", "0.0, float('nan')"),
    *("0.0, 1.0, step=0.3", "-1e308, 1e308", "1, 10", "0, 10, log=True", "'a', 'b'", "None, 1"),
)
_NAMES = ("dropout", "w", "", "\\x1b[31m", "[/red]", "가/나 %20?", "x" * 300, "lr", "weight_decay")


@st.composite
def _line(draw: st.DrawFn) -> str:
    name, key = draw(st.sampled_from(_NAMES)), draw(st.sampled_from(_NAMES))
    kind = draw(st.sampled_from(["categorical", "float", "int"]))
    arguments = draw(st.sampled_from(_CHOICES if kind == "categorical" else _NUMBERS))
    value = f'trial.suggest_{kind}("{name}", {arguments})'
    odd = ["object()", "np.float32(0.1)", "{}", "1j", "b'x'", "math.nan", "raise_()", "5", "None"]
    rare = draw(st.sampled_from(odd))
    shape = draw(st.sampled_from(["plain", "plain", "key", "rare", "raise", "condition"]))
    return {
        "plain": value,
        "key": f'found["{key}"] = {value}',
        "rare": f'found["{key}"] = {rare} if random.random() < 0.01 else 0.1',
        "raise": "if random.random() < 0.01: raise random.choice([KeyError, SystemExit])(5)",
        "condition": f'if found["lr"] > 2e-3: {value}',
    }[shape]


def _kept(shown: str) -> str:
    return re.sub(r"\\ud[89a-f][0-9a-f]{2}", "?", shown)


@inputs(0.04)
@given(lines=st.lists(_line(), min_size=1, max_size=3))
@example(lines=['trial.suggest_categorical("dropout", ["\\ud800", "x"])'])
def test_what_a_space_suggests_is_refused_or_comes_back_from_the_ledger_as_it_was(
    corpus: Corpus, lines: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        text = _BODY.format(
            architecture='"vanilla_concat"',
            lr='trial.suggest_float("lr", 1e-4, 5e-3, log=True)',
            lines="\n".join(f"    {line}" for line in lines),
        )
        spec = small_spec(corpus, space=write_space(Path(name) / "mine.py", text))
        with counted("spaces") as refused:
            try:
                space = check(spec).space
            except (ValueError, FileNotFoundError) as error:
                refused(True)
                assert len(str(error)) > 10
                return
            try:
                trial, settings = ask_for(space, {})
            except SpaceError as error:
                suggestion = Suggestion(error.params, error.distributions, {})
            else:
                suggestion = Suggestion(dict(trial.params), {}, dict(settings))
            with create_sweep(Path(name) / "sweep", spec) as ledger:
                ledger.append((0, suggestion))
            found = read_history(Path(name) / "sweep" / "ledger.sqlite").trials[0]
            # The ledger keeps half a character, which no file can hold, as a question mark.
            assert repr(found.params) == _kept(repr(suggestion.params))
            assert found.settings == suggestion.settings


@inputs(0.04)
@given(data=st.data())
def test_points_are_taken_or_refused_with_their_file(corpus: Corpus, data: st.DataObject) -> None:
    point = dict(KNOWN_GOOD[0])
    text = data.draw(json_text(data.draw(st.sampled_from([point, [point, point]]))))
    with tempfile.TemporaryDirectory() as name, counted("points") as refused:
        file = Path(name) / "points.json"
        file.write_text(text, errors="replace")
        try:
            check(small_spec(corpus, space="quick"), read_points(file))
        except ValueError as error:
            refused(True)
            assert str(file) in str(error)
