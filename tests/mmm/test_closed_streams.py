"""Whoever starts a command may have closed its standard input, output or error."""

import os
import subprocess
import sys

import pytest

_ANSWERS = """
import os
import typer
from mmm.console import console, new_app, run_app

app = new_app("")

@app.command()
def go() -> None:
    console.say("said")
    os._exit(os.open(os.devnull, os.O_RDONLY))  # 3 where no standard stream's number is free

run_app(app)
"""


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_a_command_whose_standard_streams_are_closed_runs_and_no_file_takes_their_place(
    closed: tuple[int, ...],
) -> None:
    redirections = " ".join(f"{number}>&-" for number in closed)
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -c "$1" go {redirections}', sys.executable, _ANSWERS],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout == ("" if 1 in closed else "said\n")
