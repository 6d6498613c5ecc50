"""README, CONTRIBUTING and docs/: commands and Python in them run, in a small form, and what they name exists."""

import ast
import importlib
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
import typer

from tests.conftest import write_corpus, write_wav
from tests.sweep_parts import TIMEOUT_S

_ROOT = Path(__file__).parent.parent
_README = _ROOT / "README.md"
_LOG = _ROOT / "docs" / "LOG.md"  # what was true on its day: nothing in it has to exist today
PAGES = [_README, *sorted({_ROOT / "CONTRIBUTING.md", *(_ROOT / "docs").glob("*.md")} - {_LOG})]
_SCRIPTS = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]["scripts"]
_MODULES = {program: importlib.import_module(entry.split(":")[0]) for program, entry in _SCRIPTS.items()}
_PROGRAM = "|".join(sorted(_SCRIPTS, key=len, reverse=True))
# The same commands at a size that takes seconds; `$MELD_RAVDESS` is this folder.
_SMALL_ENCODERS = "--frame-rate 10 --num-mels 8 --text-width 16 --max-tokens 48"
_SMALLER = (
    (r"\$MELD_RAVDESS/", ""),
    (r"--epochs \d+", "--epochs 2"),
    (r"^(mmm-search resume .*--trials) \d+", r"\1 4"),
    (r"^(mmm-search (?:run|plan) .*--trials) \d+", r"\1 3"),
    (r"^(mmm-search (?:run|plan) .*)$", r"\1 --workers 1"),
    (r"--frame-rate 6.25 --num-mels 40 --text-width 128 --max-tokens 48", _SMALL_ENCODERS),
    (r"^(mmm encode manifest.csv --features features)$", rf"\1 {_SMALL_ENCODERS}"),
)
# In a process of their own: what starts Ray, and what sets up its process for training.
_APART = re.compile(r"mmm-search (run|resume|encode) |mmm (train|profile) ")
# Nothing that a repository has to hold, though it looks like a file.
_ELSEWHERE = re.compile(
    r"(runs|mlartifacts|features|path/to|kresnik|beomi)/|.*\b(NAME|CLASS)\b"
)
_OF_OTHERS = re.compile(r"(python|pip|mlflow|make|git|\.venv/bin/(?!mmm)\S+|RAY_)\b")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the file that it is to be (often none), its text."""

    page: Path
    language: str
    file: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Lines of ours, where it is of the shell; one that ends in a backslash goes on."""
        whole = re.sub(r"\s*\\\n\s*", " ", self.text)
        lines = whole.splitlines() if self.language in ("", "sh") else []
        return [line for line in lines if re.match(rf"({_PROGRAM}) [a-z]", line)]


def _blocks(pages: Iterable[Path] = PAGES) -> list[Block]:
    fence = re.compile(r"^```(\w*) ?(\S*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    return [
        Block(page, *found) for page in pages for found in fence.findall(page.read_text("utf-8"))
    ]


def _prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def _in_backticks(page: Path) -> list[str]:
    """What a page has in backticks, with line breaks as spaces."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", _prose(page))]


def _reading_order() -> list[Path]:
    """README, and the pages in the order of its links."""
    named = [_ROOT / link for link in re.findall(r"\]\(([\w/.-]+\.md)[#)]", _README.read_text())]
    return [_README, *(page for page in dict.fromkeys(named) if page in PAGES)]


# Commands and Python of all pages, in one folder, one after the other.


def _small(line: str) -> str:
    for large, small in _SMALLER:
        line = re.sub(large, small, line)
    return line


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str


def _run(
    line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Done:
    """Run a command in this folder; most of them in this process, which has imported all."""
    program, *arguments = shlex.split(line)
    if _APART.match(line):
        module = {"mmm": "mmm", "mmm-search": "search"}[program]
        environment = {**os.environ, "PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)
    monkeypatch.setattr(sys, "argv", [program, *arguments])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        _MODULES[program].main()
    return Done(int(ended.value.code or 0), *capsys.readouterr())


def _open_ui(folder: Path) -> int:
    """Start `mmm-search ui`, fetch its page and stop it; the HTTP status."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    command = [sys.executable, "-m", "search", "ui", "--port", str(port)]
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    ) as server:  # fmt: skip
        try:
            assert server.stderr is not None
            said = []
            for line in server.stderr:
                said.append(line)
                if "Uvicorn running on" in line:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as page:
                        return int(page.status)
            raise AssertionError("".join(said))
        finally:
            os.killpg(server.pid, 9)


def _fill(folder: Path, empty_store: Path) -> None:
    """A corpus and what the pages say is there."""
    manifest = write_corpus(folder)
    shutil.move(manifest.path, folder / "your.csv")
    (folder / "runs").mkdir()
    shutil.copy(empty_store, folder / "runs")
    write_wav(folder / "x.wav", 1.0, 300.0, 1)
    (folder / "recordings").mkdir()
    write_wav(folder / "recordings" / "x.wav", 0.5, 400.0, 2)
    (folder / "recordings" / "x.txt").write_text("Fine.\n")
    for block in _blocks():
        if block.file:
            (folder / block.file).write_text(block.text, encoding="utf-8")


@pytest.mark.slow
def test_every_command_and_every_python_block_runs(
    tmp_path: Path,
    empty_store: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each distinct small form once, so that pages that go the same way share its corpus and its sweep."""
    monkeypatch.chdir(tmp_path)
    _fill(tmp_path, empty_store)
    blocks = _blocks(_reading_order())
    lines = [_small(line) for block in blocks for line in block.commands]
    # Pages after the first of their way take its manifest as there.
    ordered = sorted(dict.fromkeys(lines), key=lambda line: not line.startswith("mmm prepare"))
    assert len(ordered) >= 25, ordered
    for line in ordered:
        if line == "mmm-search ui":
            assert _open_ui(tmp_path) == 200
            continue
        done = _run(line, capsys, monkeypatch)
        if "--audio-encoder published" in line:
            # The published encoders are downloaded, which tests never do: all but that is done.
            assert done.status == 2, line + done.out + done.err
            assert done.err.startswith("error: encoder 'kresnik/wav2vec2-large-xlsr-korean' cannot")
            assert "Traceback" not in done.err
            continue
        assert done.status == 0, line + done.out + done.err
        assert "Traceback" not in done.err, line + done.err
    assert (tmp_path / "best" / "checksums.json").is_file()
    assert "x.wav" in (tmp_path / "answers.csv").read_text()
    for page in _reading_order():
        names: dict[str, Any] = {}
        for block in _blocks([page]):
            if block.language == "python":
                exec(compile(block.text, f"{page.name}: {block.text}", "exec"), names)


# What the pages name.


def _commands() -> dict[str, click.Command]:
    """Every command by its whole name."""

    def below(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        yield name, command
        for part, inner in getattr(command, "commands", {}).items():
            yield from below(f"{name} {part}", inner)

    apps = {program: typer.main.get_command(module.app) for program, module in _MODULES.items()}
    return {name: command for program, app in apps.items() for name, command in below(program, app)}


_COMMANDS = _commands()


def _options(command: click.Command) -> set[str]:
    with click.Context(command) as context:
        return {option for parameter in command.get_params(context)
                for option in (*parameter.opts, *parameter.secondary_opts)}  # fmt: skip


_ALL_OPTIONS = {option for command in _COMMANDS.values() for option in _options(command)}


def unknown_options(text: str) -> list[str]:
    """Options in a command line, or in backticks, that what it names does not have."""
    options = re.findall(r"(?<![\w-])--[a-z][\w-]*", text)
    script = re.match(r"python (?:-m )?(benchmarks[./]\w+)", text)
    if script:
        known = set(re.findall(r"--[a-z][\w-]*", _script(script[1]).read_text()))
    elif _OF_OTHERS.match(text):
        return []
    else:
        words = text.removeprefix(".venv/bin/").split()
        names = [" ".join(words[:n]) for n in (3, 2, 1)]
        command = next((_COMMANDS[name] for name in names if name in _COMMANDS), None)
        known = _ALL_OPTIONS if command is None else _options(command)
    return [option for option in options if option not in known]


def _script(name: str) -> Path:
    return _ROOT / f"{name.removesuffix('.py').replace('.', '/')}.py"


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def broken_links(page: Path, text: str) -> list[str]:
    """Links and pictures whose file, or heading in it, is not there."""
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://[\w.-]+/\S+$", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        anchors = {slug(h) for h in re.findall(r"^#+ (.+)$", _prose(file), re.MULTILINE)} if anchor else set()  # fmt: skip
        if not file.is_file() or (anchor and anchor not in anchors):
            found.append(target)
    return found


def missing_files(spans: Iterable[str]) -> list[str]:
    """Paths and scripts that the repository does not hold."""
    found = []
    for span in spans:
        script = re.match(r"python (?:-m )?(benchmarks[./]\w+)", span)
        if script and not _script(script[1]).is_file():
            found.append(span)
        is_path = re.fullmatch(r"[\w.-]+(/[\w.-]+)+/?|[\w.-]+/", span)
        if is_path and not _ELSEWHERE.match(span) and not (_ROOT / span).exists():
            found.append(span)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_options_and_files_that_a_page_names_exist(page: Path) -> None:
    spans = _in_backticks(page)
    blocks = _blocks([page])
    lines = [line.strip() for block in blocks for line in block.text.splitlines()]
    scripts = [line for line in lines if re.match(r"(python |\.venv/bin/)", line)]
    ours = [*scripts, *(line for block in blocks for line in block.commands)]
    assert broken_links(page, _prose(page)) == []
    assert [(text, unknown) for text in [*spans, *ours] if (unknown := unknown_options(text))] == []
    assert missing_files([*spans, *ours]) == []


def test_the_checks_of_pages_see_what_is_wrong() -> None:
    assert unknown_options("mmm encode m.csv --features DIR --trials 3") == ["--trials"]
    assert unknown_options("--trials 3 --no-such-thing") == ["--no-such-thing"]
    assert unknown_options("python benchmarks/search_quality.py --warm --cold") == ["--cold"]
    assert missing_files(["docs/LOG.md", "mmm/no_such.py", "runs/NAME/x", "a/path/to/it"]) == [
        "mmm/no_such.py",
        "a/path/to/it",
    ]
    text = "[a](docs/LOG.md) [b](docs/none.md) [c](#limits) [d](#none) [e](https://x.org/y) [f](http:)"
    assert broken_links(_README, text) == ["docs/none.md", "#none", "http:"]
    assert slug("Budgets, constraints, and `points` of your own") == (
        "budgets-constraints-and-points-of-your-own"
    )


def test_the_table_of_commands_is_complete() -> None:
    table = (_ROOT / "docs" / "commands.md").read_text("utf-8")
    names = re.findall(rf"^\| `((?:{_PROGRAM}) (?:prepare )?[a-z0-9-]+)", table, re.MULTILINE)
    groups = {name for name, command in _COMMANDS.items() if hasattr(command, "commands")}
    assert sorted(names) == sorted(set(_COMMANDS) - groups)


def test_every_page_is_reached_from_readme() -> None:
    assert set(_reading_order()) == set(PAGES)


def test_readme_stays_short() -> None:
    text = _README.read_text("utf-8")
    assert len(text.encode()) <= 10_000
    pictures = re.findall(r"!\[.+\]\((.+)\)", text)
    assert len(pictures) == 2
    assert max((_ROOT / picture).stat().st_size for picture in pictures) < 150_000
    assert len(re.findall(r"^\| ?-", text, re.MULTILINE)) == 1  # one table


def test_make_targets_are_the_first_two_commands() -> None:
    makefile = (_ROOT / "Makefile").read_text()
    first = _blocks([_README])[0].text
    assert re.findall(r"^make (\w+)", first, re.MULTILINE) == ["sweep", "test"]
    assert "sweep: $(INSTALLED)\n\t$(BIN)/mmm-search quickstart\n" in makefile
    assert "make test" in (_ROOT / ".ci" / "run").read_text()


def test_python_blocks_are_python() -> None:
    for block in _blocks():
        if block.language == "python":
            ast.parse(block.text, filename=str(block.page))
