"""A file of the user's own is loaded beside its neighbours, and what is installed goes first."""

import random
import sys
from pathlib import Path

import pytest

from mmm.user_code import user_code


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder / "mine.py"


def test_a_file_imports_its_neighbours_after_what_is_installed(tmp_path: Path) -> None:
    mine = write(
        tmp_path,
        mine="import nearby, random\ndef make():\n    return nearby.WIDTH, random.random\n",
        nearby="WIDTH = 8\n",
        random="raise RuntimeError('this is not the one')\n",
    )
    before = list(sys.path)
    module, make = user_code(f"{mine}:make", "system")
    assert make() == (8, random.random)
    assert module.__file__ == str(mine)
    assert sys.path == before


def test_a_file_that_ends_the_process_or_empties_the_path_does_neither(tmp_path: Path) -> None:
    before = list(sys.path)
    mine = write(tmp_path, mine="import sys\nsys.exit(0)\n")
    with pytest.raises(ValueError, match=r"mine\.py: cannot be loaded as a system: SystemExit: 0"):
        user_code(f"{mine}:make", "system")
    mine = write(tmp_path, mine="import sys\nsys.path.remove(sys.path[-1])\ndef make(): pass\n")
    user_code(f"{mine}:make", "system")
    assert sys.path == before


def test_a_file_that_fails_leaves_the_path_as_it_was(tmp_path: Path) -> None:
    mine = write(tmp_path, mine="import broken\n", broken="1 / 0\n")
    before = list(sys.path)
    with pytest.raises(ValueError, match=r"mine\.py: cannot be loaded as a system: ZeroDivision"):
        user_code(f"{mine}:make", "system")
    assert sys.path == before
