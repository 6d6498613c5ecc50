"""What both command lines have before their commands: --version, -v, -q, completion, and a help
that comes at once; and the options that are made of a record.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

import mmm
import mmm.cli.app
import search.cli.app
from mmm.cli.options import options_of
from mmm.console import console
from mmm.setting import Setting, option_faults
from mmm.training.config import Params
from tests.conftest import Corpus
from tests.sweep_parts import TIMEOUT_S, call, environment

APPS = {"mmm": mmm.cli.app.app, "search": search.cli.app.app}
HEAVY = "torch ray mlflow optuna pandas sklearn scipy matplotlib transformers"


@pytest.mark.parametrize("module", APPS)
def test_help_waits_for_no_library(module: str) -> None:
    code = (
        f"import sys, {module}.cli.app; from typer.testing import CliRunner;"
        f" assert CliRunner().invoke({module}.cli.app.app, ['--help']).exit_code == 0;"
        f" print(set('{HEAVY}'.split()) & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("module", APPS)
def test_the_version_is_told(module: str) -> None:
    done = CliRunner().invoke(APPS[module], ["--version"])
    assert (done.exit_code, done.stdout) == (0, f"mmm-search {mmm.__version__}\n")


@pytest.mark.parametrize("module", APPS)
def test_the_shell_can_complete_commands(module: str) -> None:
    words = {"COMP_WORDS": "x re", "COMP_CWORD": "1", "_X_COMPLETE": "complete_bash"}
    done = CliRunner().invoke(APPS[module], [], prog_name="x", env=words)
    expected = {"mmm": "", "search": "report\nreproduce\nresume\n"}[module]
    assert set(done.stdout.split()) == set(expected.split())


def test_verbose_says_where_an_error_arises() -> None:
    words = ("corpus-report", "none.csv")
    plain, verbose = call("mmm", *words, status=2), call("mmm", "-v", *words, status=2)
    assert plain.stderr.startswith("error: none.csv: no such manifest")
    assert verbose.stderr.startswith("Traceback (most recent call last):\n")
    assert verbose.stderr.endswith(plain.stderr)


def test_quiet_says_results_alone(corpus: Corpus, tmp_path: Path) -> None:
    words = ["-q", "train", corpus.manifest.path, "--features", corpus.features_dir]
    words += ["--out", tmp_path / "bundle", "--architecture", "vanilla_concat", "--epochs", 2]
    try:
        said = CliRunner().invoke(mmm.cli.app.app, list(map(str, words))).stdout
    finally:
        console.is_quiet = False
    assert "epoch   1/2" not in said
    assert f"bundle {tmp_path / 'bundle'} (sha256 " in said


@dataclass(frozen=True)
class Oven:
    """A record of settings."""

    minutes: Annotated[int, Setting("How long.", 1, 90)] = 20
    mode: Annotated[str, Setting("How.", choices=("fan", "grill"))] = "fan"
    light_s: Annotated[float | None, Setting("Lit.", flag="--light", parse=float)] = None
    serial: str = ""  # not for people


def test_a_command_has_an_option_for_each_setting_of_a_record() -> None:
    got: list[Params] = []
    app = typer.Typer()

    @app.command()
    @options_of(Oven, mode="Fan or grill.")
    def bake(dish: str, *, given: Params, again: bool = False) -> None:
        got.append(given)

    text = " ".join(CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).stdout.split())
    for part in ("How long. [default: 20]", "Fan or grill. [default: fan]", "--light"):
        assert part in text
    assert "serial" not in text
    CliRunner().invoke(app, ["pie", "--minutes", "5"], catch_exceptions=False)
    CliRunner().invoke(app, ["pie", "--light", "2.5", "--again"], catch_exceptions=False)
    assert got == [
        {"minutes": 5, "mode": "fan"},
        {"minutes": 20, "mode": "fan", "light_s": 2.5},
    ]


def test_values_out_of_range_are_told_as_options() -> None:
    assert list(option_faults(Oven(0, "steam"))) == [
        "--minutes 0 is too small; expected at least 1 and at most 90",
        "unknown --mode 'steam'; expected one of fan, grill",
    ]
