"""What every fuzz test holds a command to, and how many inputs each gets.

Whatever is put in, a command ends with status 0, or with 2 and one message of ours: no traceback,
nothing that a terminal would obey. What is refused leaves the folder as it was. What more there is
to hold, what is accepted above all, is said where it is tested.

`make test` draws a hundred inputs, always the same; `make fuzz` five thousand, others each time,
and Hypothesis prints the seed of one that fails.
"""

import contextlib
import io
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

import mmm.cli.app
import search.cli.app
from mmm.console import console, printable, run_app

TOTAL = int(os.environ.get("MMM_FUZZ", "100"))
_SHORT = TOTAL <= 100
_PROGRAMS = {"mmm": ("mmm", mmm.cli.app.app), "search": ("mmm-search", search.cli.app.app)}


@dataclass
class Tally:
    """Of one kind of input."""

    inputs: int = 0
    refused: int = 0
    seconds: float = 0.0


TALLIES: dict[str, Tally] = {}


@dataclass
class Told:
    status: int
    out: str
    err: str

    @property
    def is_accepted(self) -> bool:
        return self.status == 0


def inputs(share: float) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """So large a share of all inputs."""
    return settings(
        max_examples=max(2, round(share * TOTAL)),
        deadline=None,
        database=None,
        derandomize=_SHORT,
        print_blob=True,
        phases=[Phase.explicit, Phase.generate] + ([] if _SHORT else [Phase.shrink]),
        suppress_health_check=list(HealthCheck),
    )


@contextlib.contextmanager
def counted(kind: str) -> Any:
    """Counts an input of this kind; what the block is given says whether it was refused."""
    tally, began = TALLIES.setdefault(kind, Tally()), time.monotonic()
    answers: list[bool] = []
    try:
        yield answers.append
    finally:
        tally.inputs += 1
        tally.refused += any(answers)
        tally.seconds += time.monotonic() - began


def told_by(
    kind: str,
    module: str,
    *arguments: object,
    stdin: bytes = b"",
    is_data: bool = False,
    statuses: tuple[int, ...] = (0, 2),
) -> Told:
    """What a command answers in this process, after what holds for every command was checked; what
    it raises fails the test. `is_data`: stdout is for programs.
    """
    program, app = _PROGRAMS[module]
    out, err = io.StringIO(), io.StringIO()
    before = sys.argv, sys.stdin, console.is_quiet, console.is_verbose
    with counted(kind) as refused:
        try:
            sys.argv = [program, *map(str, arguments)]
            sys.stdin = io.TextIOWrapper(io.BytesIO(stdin))
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                run_app(app)
            status: int | str | None = 0
        except SystemExit as ended:
            status = ended.code or 0
        finally:
            sys.argv, sys.stdin, console.is_quiet, console.is_verbose = before
        refused(status == 2)
    told = Told(int(status), out.getvalue(), err.getvalue())
    shown = told.err if is_data else told.out + told.err
    assert told.status in statuses, told
    assert "Traceback" not in told.err, told
    is_usage = told.err.startswith("Usage: ")  # typer's own, of words just typed
    assert is_usage or printable(shown) == shown, told
    if told.status == 2:
        assert is_usage or told.err.count("error: ") >= 1, told
        assert len(told.err) < 20_000, told
    return told


def content_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


# Text that markup, terminals, CSV, shells, file systems or Unicode make something of.
NASTY = st.sampled_from(
    [
        *("", " ", "-", "--", "0", "-1", "1e999", "nan", "None", "true", "[]", "{}", "null"),
        *("[/red]", "[bold]x[/]", "\x1b[31m", "\x9b1m", "\x00", "\x7f", "\u202egnp.exe", "\ufeff"),
        *("<script>alert(1)</script>", "<img src=x>", "![](http://x)", "a|b", "a;b", "a,b", '"'),
        *("'", "`x`", "$(x)", "%20", "?x=1#y", "../x", "a/b", "a\\b", "x" * 300, "x" * 5000),
        *("\n", "\r", "\t", "가나다", "e\u0301", "\u1112\u1161", "😀", "\u200b", "\u2028", "$a$"),
        *("{0}", "%s", "=1+1", "train", "neutral", "sad", "happy;sad", "NaN", "1,5", "1.0", "٣"),
    ]
)
TEXT = NASTY | st.text(max_size=12) | st.tuples(NASTY, NASTY).map("".join)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats()
    | TEXT
    | st.sampled_from([10**400, -1, 0, 1]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Other bytes than these: a bit flipped, cut, longer, a stretch moved, or zeroed."""
    place = draw(st.integers(0, max(0, len(content) - 1)))
    how = draw(st.sampled_from(["flip", "flip", "flip", "cut", "longer", "zero", "insert", "none"]))
    found = bytearray(content)
    if how == "flip" and content:
        found[place] ^= 1 << draw(st.integers(0, 7))
    elif how == "cut":
        del found[place:]
    elif how == "longer":
        found += draw(st.binary(min_size=1, max_size=20))
    elif how == "zero":
        found[place : place + 16] = bytes(len(found[place : place + 16]))
    elif how == "insert":
        found[place:place] = draw(st.binary(min_size=1, max_size=20))
    elif how == "none":
        found = bytearray(draw(st.binary(max_size=40)))
    return bytes(found)


@st.composite
def changed_json(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value in which one part, however deep, is another, gone, or new."""
    if isinstance(value, dict) and value and draw(st.integers(0, 4)):
        key = draw(st.sampled_from(sorted(value)))
        how = draw(st.sampled_from(["in", "in", "in", "gone", "new"]))
        if how == "gone":
            return {name: one for name, one in value.items() if name != key}
        if how == "new":
            return {**value, draw(TEXT): draw(JSON)}
        return {**value, key: draw(changed_json(value[key]))}
    if isinstance(value, list) and value and draw(st.integers(0, 2)):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], draw(changed_json(value[place])), *value[place + 1 :]]
    if isinstance(value, int | float) and not isinstance(value, bool) and draw(st.booleans()):
        return draw(st.sampled_from([0, -value, value * 2, value + 1, 10**9, 0.5, float("nan")]))
    return draw(JSON)


@st.composite
def json_text(draw: st.DrawFn, value: Any) -> str:
    """The text of a changed JSON value, sometimes of the same, of none, or too deep."""
    how = draw(st.integers(0, 19))
    if how == 0:
        return draw(st.sampled_from(["[", '{"a":', "[[],"])) * 100_000
    if how == 1:
        return draw(TEXT)
    if how == 2:
        return json.dumps(value)
    return json.dumps(draw(changed_json(value)))
