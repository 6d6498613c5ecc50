"""The commands themselves: what they print, what they refuse with status 2, and that a refusal
leaves the old manifest alone.
"""

import json
import sys
from pathlib import Path

import pytest

import mmm.cli.app
from tests.corpus_parts import Kemdy20, write_ai_hub


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """`mmm ARGUMENTS` in this process; the exit status."""
    monkeypatch.setattr(sys, "argv", ["mmm", *arguments])
    with pytest.raises(SystemExit) as ended:
        mmm.cli.app.main()
    return int(ended.value.code or 0)


def test_prepare_prints_what_was_repaired_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = Kemdy20(tmp_path / "corpus")
    layout.rows[1][1][4] = "disqust"
    corpus, clips = layout.write(), write_ai_hub(tmp_path / "hub")
    (corpus / "wav" / "Session01" / "Thumbs.db").touch()
    out = tmp_path / "manifest.csv"
    options = ["--dev-sessions", "2", "--test-sessions", "3", "-o", str(out)]
    assert (
        run(
            monkeypatch,
            "prepare",
            "kemdy20",
            str(corpus),
            "--with-ai-hub",
            str(clips),
            "--emotion",
            "상처=",
            *options,
        )
        == 0
    )
    printed = " ".join(capsys.readouterr().out.split())
    for line in (
        "│ utterances │ 14 │ 4 │ 4 │",
        "repaired ┌───┬",
        (
            "│ 1 │ label disqust read as disgust │ Sess01_eval.csv line 4"
            " (Sess01_script01_User002M_001) │"
        ),
        "left out ┌───┬",
        "│ 1 │ stray files │ wav/Session01/Thumbs.db │",
        "│ 2 │ labelled 상처, left out as asked │ labels.csv line 7 (F_000006.wav), ... │",
        "to know ┌────┬",
        "│ 10 │ clips of AI Hub added (10 train, 0 dev, 0 test) │ AIHub_F_000001, ... │",
        f"next: mmm encode {out} --features {tmp_path / 'features'}",
    ):
        assert line in printed, line
    account = json.loads((tmp_path / "manifest.account.json").read_text())
    assert account["num_utterances"] == 22
    assert account["left_out"]["labelled 상처, left out as asked"] == [
        "labels.csv line 7 (F_000006.wav)",
        "labels.csv line 13 (M_000006.wav)",
    ]
    before = out.read_bytes()
    assert run(monkeypatch, "prepare", "kemdy20", str(corpus), "-o", str(out)) == 2
    assert capsys.readouterr().err.startswith(
        "error: --dev-sessions asks for session 29-32, which the corpus does not have (found: 1-3);"
        " name others"
    )
    assert (
        run(monkeypatch, "prepare", "kemdy20", str(corpus), "--emotion", "상처=sad", *options) == 2
    )
    assert (
        capsys.readouterr().err
        == "error: --emotion names '상처', which is no label of the corpus (found: neutral, angry,"
        " happy, disqust)\n"
    )
    layout.rows[1][2][4] = "joyful"
    layout.write()
    assert run(monkeypatch, "prepare", "kemdy20", str(corpus), *options) == 2
    assert (
        f"error: {corpus}: 1 fault\n  annotation/Sess01_eval.csv: line 5: unknown emotion 'joyful'"
        in capsys.readouterr().err
    )
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "corpus",
        "hub",
        "manifest.account.json",
        "manifest.csv",
    ]


def test_a_generated_corpus_is_reported_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, page = tmp_path / "corpus", tmp_path / "report.html"
    assert run(monkeypatch, "demo-corpus", str(corpus), "--sessions", "3", "--scripts", "1") == 0
    assert (
        f"mmm prepare kemdy20 {corpus} --dev-sessions 2 --test-sessions 3 -o {corpus}/manifest.csv"
        in capsys.readouterr().out
    )
    assert run(monkeypatch, "corpus-report", str(corpus / "manifest.csv"), "-o", str(page)) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "│ speakers │ 2 │ 2 │ 2 │ 6 │" in printed
    assert "no leaks between splits" in printed
    assert page.read_text().startswith("<!doctype html>")
    assert (
        run(monkeypatch, "demo-corpus", str(corpus), "--layout", "kemdy20", "--sessions", "3") == 2
    )
    assert capsys.readouterr().err == f"error: {corpus}: not an empty folder; name a new one\n"
    assert run(monkeypatch, "demo-corpus", str(corpus), "--layout", "demo", "--scripts", "2") == 2
    assert capsys.readouterr().err == "error: --scripts is of --layout kemdy20\n"
    (corpus / "wav" / "Session01").rename(corpus / "gone")
    assert run(monkeypatch, "corpus-report", str(corpus / "manifest.csv")) == 2
    assert "does not exist below" in capsys.readouterr().err
