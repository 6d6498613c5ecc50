"""README, CONTRIBUTING and docs/: their commands and their Python run in a small form, and what
they name exists.
"""

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
import torch
import typer
from transformers import BertConfig, BertModel

from tests.conftest import write_corpus, write_wav
from tests.mmm.encoders.test_speech_families import save_whisper
from tests.mmm.encoders.test_text_families import SIZE, WORDS, bert_tokenizer

_ROOT = Path(__file__).parent.parent
_README = _ROOT / "README.md"
_LOG = _ROOT / "docs" / "LOG.md"  # each entry was true on its day: nothing in it has to exist
PAGES = [_README, *sorted({_ROOT / "CONTRIBUTING.md", *(_ROOT / "docs").glob("*.md")} - {_LOG})]
_SCRIPTS = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]["scripts"]
_MODULES = {
    program: importlib.import_module(entry.split(":")[0]) for program, entry in _SCRIPTS.items()
}
_PROGRAM = "|".join(sorted(_SCRIPTS, key=len, reverse=True))
# The same commands at a size that takes seconds, Ray in one of them. `$MELD_RAVDESS` is this
# folder, and what the built-in encoders make by default is as large as in README.
_SMALL_ENCODERS = "--frame-rate 10 --num-mels 8 --text-width 16 --max-tokens 48"
_SMALLER = (
    (r"\$MELD_RAVDESS/", ""),
    (r"--epochs \d+", "--epochs 2"),
    (r"^(mmm-search resume .*--trials) \d+", r"\1 4 --serial"),
    (r"^(mmm-search (?:run|plan) .*--trials) \d+", r"\1 3"),
    (r"^(mmm-search confirm \w+) .*", r"\1 --top 2 --seeds 2 --serial"),
    (r"openai/whisper-base --layers 2,4,6", "tiny-whisper --layers 1,3"),
    (r"sentence-transformers/all-MiniLM-L6-v2", "tiny-bert"),
    (r"--frame-rate 6.25 --num-mels 40 --text-width 128 --max-tokens 48", _SMALL_ENCODERS),
    (r"^(mmm encode manifest.csv --features features)$", rf"\1 {_SMALL_ENCODERS}"),
)
# In a process of their own: what starts Ray, and what sets up its process for training.
_APART = re.compile(
    r"mmm-search (run|resume) (?!.*--serial)|mmm-search encode |mmm (train|profile) "
)
_TIMEOUT_S = 300.0
# Nothing that a repository has to hold, though it looks like a file.
_ELSEWHERE = re.compile(
    r"(runs|mlartifacts|features|path/to|kresnik|beomi)/|.*\b(NAME|CLASS)\b",
)
_OF_OTHERS = re.compile(r"(python|pip|mlflow|make|git|ray|scancel|\.venv/bin/(?!mmm)\S+)\b")
_BENCHMARK = re.compile(r"python (?:-m )?(benchmarks[./]\w+)")


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


def _blocks(*pages: Path) -> list[Block]:
    fence = re.compile(r"^```(\w*) ?(\S*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    return [
        Block(page, *found) for page in pages for found in fence.findall(page.read_text("utf-8"))
    ]


def _prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def _reading_order() -> list[Path]:
    """README, and the pages in the order of its links."""
    links = re.findall(r"\]\(([\w/.-]+\.md)[#)]", _README.read_text("utf-8"))
    return [
        _README,
        *(page for page in dict.fromkeys(_ROOT / link for link in links) if page in PAGES),
    ]


# Commands and Python of all pages, in one folder, one after the other.


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str


def _small(line: str) -> str:
    for large, small in _SMALLER:
        line = re.sub(large, small, line)
    return line


def _run(line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Done:
    """Run a command in this folder; most of them in this process, which has imported all."""
    program, *arguments = shlex.split(line)
    if _APART.match(line):
        command = [sys.executable, "-m", _SCRIPTS[program].split(".")[0], *arguments]
        environment = {**os.environ, "PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)
    monkeypatch.setattr(sys, "argv", [program, *arguments])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        _MODULES[program].main()
    torch.set_num_threads(1)  # as before: a serial sweep has taken all cores
    return Done(int(ended.value.code or 0), *capsys.readouterr())


def _open_ui(folder: Path) -> int:
    """Start `mmm-search ui`, fetch its page and stop it; the HTTP status."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "search", "ui", "--port", str(port)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with server:
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
            server.terminate()


def _fill(folder: Path, empty_store: Path) -> None:
    """A corpus and what the pages say is there."""
    shutil.move(write_corpus(folder).path, folder / "your.csv")
    (folder / "runs").mkdir()
    shutil.copy(empty_store, folder / "runs")
    save_whisper(folder / "tiny-whisper")
    config = BertConfig(
        vocab_size=len(WORDS), max_position_embeddings=64, **{**SIZE, "hidden_size": 16}
    )
    BertModel(config).save_pretrained(folder / "tiny-bert")
    bert_tokenizer(folder / "tiny-bert", WORDS)
    write_wav(folder / "x.wav", 1.0, 300.0, 1)
    write_wav(folder / "recordings" / "x.wav", 0.5, 400.0, 2)
    (folder / "recordings" / "x.txt").write_text("Fine.\n")
    for block in _blocks(*PAGES):
        if block.file:
            (folder / block.file).write_text(block.text, encoding="utf-8")


@pytest.mark.slow
def test_every_command_and_every_python_block_runs(
    tmp_path: Path,
    empty_store: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each distinct small form once: pages that go the same way share its corpus and its sweep."""
    monkeypatch.chdir(tmp_path)
    _fill(tmp_path, empty_store)
    pages = _reading_order()
    lines = [_small(line) for block in _blocks(*pages) for line in block.commands]
    # README has a manifest before it shows how to make one.
    lines = sorted(dict.fromkeys(lines), key=lambda line: not line.startswith("mmm prepare"))
    assert len(lines) >= 20, lines
    for line in lines:
        if line == "mmm-search ui":
            assert _open_ui(tmp_path) == 200
            continue
        done = _run(line, capsys, monkeypatch)
        assert "Traceback" not in done.err, line + done.err
        if "--audio-encoder published" in line:
            # The published encoders are downloaded, which tests never do: all but that is done.
            assert done.status == 2, line + done.out + done.err
            assert done.err.startswith("error: encoder 'kresnik/wav2vec2-large-xlsr-korean' cannot")
        else:
            assert done.status == 0, line + done.out + done.err
    assert (tmp_path / "best" / "checksums.json").is_file()
    for page in pages:
        names: dict[str, Any] = {}
        for block in _blocks(page):
            if block.language == "python":
                exec(compile(block.text, f"a block of {page.name}", "exec"), names)


# What the pages name.


def _commands() -> dict[str, click.Command]:
    """Every command by its whole name."""

    def below(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        yield name, command
        for part, inner in getattr(command, "commands", {}).items():
            yield from below(f"{name} {part}", inner)

    apps = {program: typer.main.get_command(module.app) for program, module in _MODULES.items()}
    return dict(pair for program, app in apps.items() for pair in below(program, app))


_COMMANDS = _commands()


def _options(command: click.Command) -> set[str]:
    with click.Context(command) as context:
        parameters = command.get_params(context)
    return {name for one in parameters for name in (*one.opts, *one.secondary_opts)}


def _script(name: str) -> Path:
    return _ROOT / f"{name.replace('.', '/')}.py"


def unknown_options(text: str) -> list[str]:
    """Options in a command line, or in backticks, that what it names does not have."""
    if benchmark := _BENCHMARK.match(text):
        known = set(re.findall(r"--[a-z][\w-]*", _script(benchmark[1]).read_text("utf-8")))
    elif _OF_OTHERS.match(text):
        return []
    else:
        words = text.removeprefix(".venv/bin/").split()
        names = [" ".join(words[:number]) for number in (3, 2, 1)]
        named = [_COMMANDS[name] for name in names if name in _COMMANDS]
        known = {option for one in named[:1] or _COMMANDS.values() for option in _options(one)}
    return [
        option for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", text) if option not in known
    ]


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def _anchors(page: Path) -> list[str]:
    return [slug(heading) for heading in re.findall(r"^#+ (.+)$", _prose(page), re.MULTILINE)]


def broken_links(page: Path, text: str) -> list[str]:
    """Links and pictures whose file, or heading in it, is not there."""
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://[\w.-]+/\S+$", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.is_file() or (anchor and anchor not in _anchors(file)):
            found.append(target)
    return found


def missing_files(spans: Iterable[str]) -> list[str]:
    """Paths and scripts that the repository does not hold."""
    found = []
    for span in spans:
        if benchmark := _BENCHMARK.match(span):
            is_there = _script(benchmark[1]).is_file()
        else:
            is_path = re.fullmatch(r"[\w.-]+(/[\w.-]+)+/?|[\w.-]+/", span)
            is_there = not is_path or bool(_ELSEWHERE.match(span)) or (_ROOT / span).exists()
        found += [] if is_there else [span]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_links_options_and_files_that_a_page_names_exist(page: Path) -> None:
    prose, blocks = _prose(page), _blocks(page)
    assert broken_links(page, prose) == []
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
    spans += [line for block in blocks for line in block.commands]
    lines = [line.strip() for block in blocks for line in block.text.splitlines()]
    spans += [line for line in lines if line.startswith(("python ", ".venv/bin/"))]
    assert missing_files(spans) == []
    assert {span: unknown for span in spans if (unknown := unknown_options(span))} == {}


def test_the_checks_of_pages_see_what_is_wrong() -> None:
    assert unknown_options("mmm encode m.csv --features DIR --trials 3") == ["--trials"]
    assert unknown_options("--trials 3 --no-such-thing") == ["--no-such-thing"]
    assert unknown_options("python benchmarks/search_quality.py --warm --cold") == ["--cold"]
    assert missing_files(
        ["docs/LOG.md", "runs/NAME/x", "mmm/none.py", "python -m benchmarks.no"]
    ) == [
        "mmm/none.py",
        "python -m benchmarks.no",
    ]
    links = (
        "[a](docs/LOG.md) [b](docs/none.md) [c](#limits) [d](#none) [e](https://x.org/y) [f](http:)"
    )
    assert broken_links(_README, links) == ["docs/none.md", "#none", "http:"]
    assert slug("Budgets, and `points` of your own") == "budgets-and-points-of-your-own"


def test_the_table_of_commands_is_complete() -> None:
    table = (_ROOT / "docs" / "commands.md").read_text("utf-8")
    names = re.findall(rf"^\| `((?:{_PROGRAM}) (?:prepare )?[a-z0-9-]+)", table, re.MULTILINE)
    exist = [name for name, command in _COMMANDS.items() if not hasattr(command, "commands")]
    assert sorted(names) == sorted(exist)


def test_readme_is_short_and_leads_to_every_page() -> None:
    text = _README.read_text("utf-8")
    assert len(text.encode()) <= 10_000
    pictures = re.findall(r"!\[.+\]\((.+)\)", text)
    assert [(_ROOT / picture).stat().st_size < 150_000 for picture in pictures] == [True, True]
    assert len(re.findall(r"^\| ---", text, re.MULTILINE)) == 1, "README has one table"
    assert set(_reading_order()) == set(PAGES)


def test_make_targets_are_the_first_two_commands() -> None:
    makefile = (_ROOT / "Makefile").read_text()
    first = _blocks(_README)[0].text
    assert re.findall(r"^make (\w+)", first, re.MULTILINE) == ["sweep", "test"]
    assert "sweep: $(INSTALLED)\n\t$(BIN)/mmm-search quickstart\n" in makefile
    assert "make test" in (_ROOT / ".ci" / "run").read_text()
