"""Text is text: markup and terminal sequences in reasons, settings, paths and corpora are shown and
do nothing.
"""

import io
import re
import shutil
import sys
import warnings
from pathlib import Path

import pytest
from rich.table import Table

import mmm.cli.app
from mmm.bundle.write import save_run_bundle
from mmm.console import PlainConsole, _show_warning, plain, printable
from mmm.files import Unchecked
from search.engine.controller import Controller
from search.ledger.events import create_sweep, read_history
from search.results.report import write_report
from tests.conftest import HEADER, Corpus, trained, write_manifest, write_wav
from tests.sweep_parts import SMALL_SPACE, call, call_here, call_inside, small_spec, write_space
from tests.test_imports import name_of, sources

HOSTILE = "[/red] [bold]x[/] :cat: \x1b[31m\x9b1m \ud800"
SHOWN = r"[/red] [bold]x[/] :cat: \x1b[31m\x9b1m "
SPACE = """
def suggest(trial):
    note = trial.suggest_categorical("[/note] $a$b$", ["[/red]", "[bold]", "[link=x]"])
    study = getattr(trial, "study", None)
    if study is not None and study.direction.name == "MAXIMIZE" and trial.number == 1:
        raise RuntimeError("[/red] [bold]x[/] :cat: \\x1b[31m\\x9b1m \\ud800")
    return {"architecture": "vanilla_concat", "context": trial.suggest_int("context", 1, 3),
            "width": 8, "batch_size": 6,
            "lr": trial.suggest_float("lr", 1e-3, 1e-2)}
"""


def is_harmless(text: str) -> bool:
    return re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", text) is None


def test_a_sweep_with_markup_in_reasons_settings_and_paths_ends_well_and_can_be_looked_at(
    corpus: Corpus,
    empty_store: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = tmp_path / "[red]runs[" / "[x]"
    runs.mkdir(parents=True)
    shutil.copy(empty_store, runs)
    space = write_space(runs.parent / "space[bold].py", SPACE)
    done = call_inside(
        "search",
        "run",
        "--serial",
        space,
        corpus.manifest.path,
        "--features",
        corpus.features_dir,
        "--name",
        "first",
        "--trials",
        6,
        "--epochs",
        2,
        "--packs",
        "off",
        "--runs",
        runs,
    )
    assert f"trial 1 failed (the space failed: RuntimeError: {SHOWN}?): " in done.stdout
    assert (
        f"report {runs / 'first' / 'report.html'}, leaderboard"
        f" {runs / 'first' / 'leaderboard.csv'}, bundle " in done.stdout
    )
    assert "[/note] $a$b$=[" in done.stdout
    assert "MLflow did not" not in done.stdout
    assert is_harmless(done.stdout + done.stderr)
    history = read_history(runs / "first" / "ledger.sqlite")
    assert [trial.state for trial in history.trials.values()].count("failed") == 1
    assert (
        history.trials[1].reason
        == "the space failed: RuntimeError: [/red] [bold]x[/] :cat: \x1b[31m\x9b1m ?"
    )
    status, out, _ = call_here(capsys, monkeypatch, "status", "first", "--runs", runs)
    assert status == 0
    assert f"trial 1 failed: the space failed: RuntimeError: {SHOWN}?\n" in out
    assert is_harmless(out)
    (runs / "first" / "report.html").unlink()
    status, out, err = call_here(capsys, monkeypatch, "report", "first", "--runs", runs)
    assert (status, err) == (0, "")
    assert out.startswith(f"wrote {runs / 'first' / 'report.html'} and ")
    page = (runs / "first" / "report.html").read_text(encoding="utf-8")
    assert f"<code>{space.rpartition('/')[2]}</code>" in page
    assert "[/red] [bold]x[/] :cat:" in page
    assert str(runs) not in page  # whose machine it was concerns nobody


def test_html_in_a_reason_is_text_in_the_report(corpus: Corpus, tmp_path: Path) -> None:
    spec = small_spec(corpus, command="<b>x</b>")
    with create_sweep(tmp_path / "small", spec) as ledger:
        controller = Controller(ledger, spec, SMALL_SPACE, "cpu", lambda: None)
        controller.open_session("")
        (order,) = controller.next_orders()
        controller.fail(order.number, "<script>alert(1)</script>", "")
        write_report(tmp_path / "report.html", ledger.history)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "\\u003cscript>alert(1)\\u003c/script>" in page  # in what the trial unfolds to
    assert "<pre>&#39;&lt;b&gt;x&lt;/b&gt;&#39;</pre>" in page


def call_mmm(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["mmm", *map(str, arguments)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        mmm.cli.app.main()
    told = capsys.readouterr()
    return int(ended.value.code or 0), told.out, told.err


def test_a_corpus_report_shows_markup_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "[/corpus]"
    write_wav(folder / "[/a].wav", 0.1, 200.0, 0)
    rows = [
        [
            f"[/u{number}]",
            f"[/d{number}]",
            "1",
            f"[/s{number}]",
            "[/red]\x9b1m",
            "[bold]said[/] <script>",
            "[/a].wav",
            "sad",
            split,
        ]
        for number, split in enumerate(("train", "dev", "test"))
    ]
    write_manifest(folder / "manifest.csv", rows, HEADER)
    status, out, err = call_mmm(
        capsys, monkeypatch, "corpus-report", folder / "manifest.csv", "-o", tmp_path / "page.html"
    )
    assert (status, err) == (0, "")
    for part in (
        "[/corpus]/manifest.csv",
        "[/u0]",
        "[/s1]",
        r"leak: 1 speaker is in more than one split: [/red]\x9b1m (train, dev, test)",
    ):
        assert part in out, part
    assert is_harmless(out)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script" not in page


def test_predictions_of_a_dialogue_show_markup_as_it_is(
    corpus: Corpus,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save_run_bundle(trained(corpus, "vanilla_concat"), tmp_path / "bundle", name="[/red]")
    path = corpus.manifest.audio_path(corpus.manifest.utterances[1])
    (tmp_path / "turns.csv").write_text(
        f"audio,text,speaker\n{path},[/red] a\\[b :cat:\x1b[31m,[bold]A\n"
    )
    status, out, err = call_mmm(
        capsys, monkeypatch, "predict", tmp_path / "bundle", "--dialogue", tmp_path / "turns.csv"
    )
    assert (status, err) == (0, "")
    assert r"[/red] a\[b :cat:\x1b[31m" in out
    assert "[bold]A" in out
    assert is_harmless(out)
    places = [corpus.manifest.path, "--features", corpus.features_dir]
    done = call(
        "mmm",
        "train",
        *places,
        "--out",
        tmp_path / "[/out]",
        "--architecture",
        "vanilla_concat",
        "--name",
        "[/red]\x1b[31m",
        "--epochs",
        1,
    )
    assert done.stdout.startswith(r"[/red]\x1b[31m: ")
    assert f"bundle {tmp_path / '[/out]'} (sha256 " in done.stdout
    assert is_harmless(done.stdout)


def test_an_error_shows_what_a_terminal_would_obey(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, _, err = call_mmm(
        capsys, monkeypatch, "corpus-report", "nowhere[/red]\x1b[31m\udcff.csv"
    )
    assert status == 2
    assert err.startswith(r"error: nowhere[/red]\x1b[31m\udcff.csv: no such manifest")


def test_a_warning_shows_what_a_terminal_would_obey(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = _show_warning
        warnings.warn("\x1b[31m[/red]: read unchecked", Unchecked, stacklevel=1)
    assert capsys.readouterr().err == "warning: \\x1b[31m[/red]: read unchecked\n"


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_console_takes_every_string_as_text(is_terminal: bool) -> None:
    console = PlainConsole(
        file=io.StringIO(), width=90, force_terminal=is_terminal, color_system=None, _environ={}
    )
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    console.print(HOSTILE)
    console.print(table)
    with console.status(HOSTILE):
        pass
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    shown = SHOWN + r"\ud800"
    assert text.startswith(f"{shown}\n")
    assert text.count(shown) >= 4
    lines = [line for line in text.splitlines() if line[:1] in "┏┃│└┡"]
    assert len({len(line) for line in lines}) == 1
    if not is_terminal:
        assert is_harmless(text)


def test_ordinary_text_is_left_alone() -> None:
    text = "그래 okay\tя ¿?\n 😀 ‏ا"
    assert printable(text) == text
    assert printable("a\r\nb\rc") == r"a" "\n" r"b\rc"
    assert plain(HOSTILE).plain == SHOWN + r"\ud800"


def test_no_other_console_is_made() -> None:
    for file in sources():
        if name_of(file) != "mmm/console.py":
            assert (
                re.search(
                    r"(?<!Plain)Console\(|from_markup|markup=True", file.read_text(encoding="utf-8")
                )
                is None
            ), file
