"""The `mmm prepare` commands with the options that all of them have, and the way from a table with
names of its own to what can be encoded.
"""

import json
import shlex
import sys
from pathlib import Path

import pytest
import typer.main

import mmm.cli.app
from mmm.corpora.options import PrepareOptions
from mmm.manifest_csv import read_manifest
from tests.corpus_parts import Kemdy20, write_ai_hub
from tests.mmm.corpora.test_acted_corpora import ravdess
from tests.mmm.corpora.test_other_corpora import write_iemocap, write_kemdy19, write_meld
from tests.mmm.corpora.test_tables import acted, write

_COMMON = {f"--{name.replace('_', '-')}" for name in PrepareOptions.__dataclass_fields__}


def run(monkeypatch: pytest.MonkeyPatch, line: str) -> int:
    monkeypatch.setattr(sys, "argv", shlex.split(line))
    with pytest.raises(SystemExit) as ended:
        mmm.cli.app.main()
    return int(ended.value.code or 0)


def test_every_prepare_has_the_options_that_all_have() -> None:
    group = typer.main.get_command(mmm.cli.app.app).commands["prepare"]  # type: ignore[attr-defined]
    assert len(group.commands) == 10
    for name, command in group.commands.items():
        options = {option for one in command.params for option in one.opts}
        assert options >= _COMMON, name


def test_a_table_with_its_own_names_takes_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    header, *rows = acted(tmp_path, ("기쁨", "상처", "frustrated", "??"))
    rows = [[*row, f"actor{n % 6}"] for n, row in enumerate(rows)]
    write(tmp_path / "own.csv", [["clip", "said", "mood", "who"], *rows], ";")
    assert header == ["path", "text", "label"]
    line = "mmm prepare csv own.csv --column audio=clip --column text=said --column emotion=mood"
    assert (
        run(
            monkeypatch,
            f"{line} --column speaker=who --emotion 상처=hurt --drop-emotion '??' --split-by"
            " speaker --shares 0.6,0.2,0.2 --strict -o out/manifest.csv",
        )
        == 0
    )
    manifest = read_manifest(tmp_path / "out" / "manifest.csv")
    assert manifest.classes == ("frustrated", "hurt", "기쁨")
    assert manifest.utterances[0].audio == "../wavs/clip00.wav"
    assert len({(one.speaker, one.split) for one in manifest.utterances}) == 6
    printed = capsys.readouterr().out
    assert "next: mmm encode out/manifest.csv --features out/features" in printed
    assert "without a label" in printed
    account = json.loads((tmp_path / "out" / "manifest.account.json").read_text())
    assert account["leaks"] == []
    assert account["noted"]["fields are divided by ';'"] == ["own.csv"]


def test_leaks_are_printed_with_the_option_and_refused_with_strict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    header, *rows = acted(tmp_path)
    table = [[*row, f"p{n % 6}", ("train", "dev", "test")[n % 3]] for n, row in enumerate(rows)]
    table[1][-1] = "train"
    write(tmp_path / "x.csv", [[*header, "speaker", "split"], *table])
    assert run(monkeypatch, "mmm prepare csv x.csv") == 0
    printed = capsys.readouterr().out
    assert "leak: 1 speaker is in more than one split: p1 (train, dev)" in printed
    assert "to deal so that less is shared: --split-by speaker\n" in printed
    before = (tmp_path / "manifest.csv").read_bytes()
    assert run(monkeypatch, "mmm prepare csv x.csv --strict") == 2
    assert capsys.readouterr().err == (
        "error: x.csv: --strict refuses what is shared:\n"
        "  1 speaker is in more than one split: p1 (train, dev)\n"
        "  1 session is in more than one split: p1 (train, dev)\n"
        "deal so that less is: --split-by speaker; or leave --strict out\n"
    )
    assert (tmp_path / "manifest.csv").read_bytes() == before
    assert run(monkeypatch, "mmm prepare csv x.csv --strict --split-by speaker") == 0


def test_splits_and_folds_are_asked_of_every_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Kemdy20(tmp_path / "kemdy20", 4).write()
    write_kemdy19(tmp_path / "kemdy19")
    write_ai_hub(tmp_path / "ai-hub")
    write_iemocap(tmp_path / "iemocap")
    write_meld(tmp_path / "meld")
    ravdess(tmp_path / "ravdess")
    none = "--dev-sessions none --test-sessions none"
    for reader, options, num_folds in (
        ("kemdy20", f"{none} --folds all", 4),
        ("kemdy20", "--dev-sessions 3 --test-sessions 4 --folds all", 3),
        ("kemdy19", f"{none} --folds 3", 3),
        ("ai-hub", "--folds 4 --fold-by dialogue --column text=text", 4),
        ("iemocap", "--folds all", 5),
        ("meld", "--folds 2 --fold-by dialogue", 2),
        ("ravdess", "--folds 4", 4),
    ):
        assert run(monkeypatch, f"mmm prepare {reader} {reader} {options}") == 0, reader
        manifest = read_manifest(tmp_path / "manifest.csv")
        assert manifest.num_folds == num_folds, reader
        assert {one.split for one in manifest.utterances} >= {"train", "dev"}
        assert all((one.fold is None) == (one.split == "test") for one in manifest.utterances)


def test_options_that_no_corpus_can_have_are_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    ravdess(tmp_path / "r")
    for options, message in (
        ("--seed -1", "--seed -1 is too small; expected at least 0"),
        ("--shares 1,2", "--shares '1,2': expected those of train, dev and test"),
        ("--column voice=speaker", "--column 'voice=speaker': expected the manifest's column"),
        (
            "--column session=voice",
            "--column session=voice: no column 'voice' (found: utterance_id",
        ),
        ("--emotion calm", "--emotion 'calm': expected NAME=EMOTION"),
        ("--emotion calm=x --drop-emotion calm", "'calm' is in --emotion and in --drop-emotion"),
        ("--folds 30", "--fold-by speaker makes 4 groups, too few for 30 folds"),
        ("--split-by who", "unknown --split-by 'who'; expected one of speaker, session, dialogue"),
    ):
        assert run(monkeypatch, f"mmm prepare ravdess r {options}") == 2, options
        assert capsys.readouterr().err.startswith(f"error: {message}"), options
    assert not (tmp_path / "manifest.csv").exists()
