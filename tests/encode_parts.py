"""Processes that encode and are killed, what they leave, features of earlier versions, and commands
that errors print.
"""

import multiprocessing
import os
import re
import shlex
import shutil
import signal
import sys
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import torch
from typer.testing import CliRunner

import mmm.cli.app
import mmm.encoders.jobs
import mmm.features.writer
from mmm.cli.app import app
from mmm.features.store import list_recipes
from mmm.features.writer import PartialStore
from tests.conftest import names_in

_PRELOADED = [
    "mmm.cli.app",
    "mmm.encoders.extract",
    "torch",
    "torchaudio.transforms",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "tests.encode_parts",
]


def forks() -> ForkServerContext:
    """Where processes start with everything imported. There is one server of them a test run, so
    all tests share what it imports.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


def _encode_and_die(words: list[str], num_rows: int | None) -> None:
    torch.set_num_threads(1)
    mmm.encoders.jobs._LOOP_BUDGET, mmm.features.writer._SYNC_S = 1.0, 0.0
    put, left = PartialStore.put, num_rows

    def put_and_die(store: PartialStore, row: int, *values: Any) -> None:
        nonlocal left
        put(store, row, *values)
        if left is not None:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    PartialStore.put = put_and_die  # type: ignore[method-assign]
    sys.argv = ["mmm", *words]
    mmm.cli.app.main()


def encode_until(words: list[str], num_rows: int | None = None) -> int | None:
    """Run `mmm` in a process of its own whose progress is on the disk after every batch, one second
    of speech, and which dies of SIGKILL at the row `num_rows`, in the middle of its batch; its exit
    status.
    """
    process = forks().Process(target=_encode_and_die, args=(words, num_rows))
    process.start()
    process.join()
    return process.exitcode


def num_done(features: Path) -> int:
    """Rows of the 40 utterances that are on the disk, of unfinished stores too."""
    return 40 * len(list_recipes(features)) + sum(
        file.read_bytes().count(1) for file in features.glob(".*.partial/done")
    )


def contents(features: Path) -> dict[str, bytes]:
    """Every file of every store."""
    return {
        f"{path.name}/{file}": (path / file).read_bytes()
        for path in list_recipes(features)
        for file in names_in(path)
    }


def make_old(features_dir: Path) -> None:
    """As an earlier version wrote it: without hashes of the audio and without checksums."""
    for store in list_recipes(features_dir):
        (store / "audio_hashes.npy").unlink()
        (store / "checksums.json").unlink()


def run_printed(message: str) -> None:
    """Run what an error says to run, word for word."""
    commands = re.split(
        r"(?:; run|; make it again|, run|\? run|for example): ", message.splitlines()[-1]
    )[-1]
    for command in commands.split(" && "):
        words = shlex.split(command)
        if words[:2] == ["rm", "-r"]:
            assert words[2:]
            for folder in words[2:]:
                shutil.rmtree(folder)
        else:
            assert words[:2] in (["mmm", "encode"], ["mmm", "features"]), message
            done = CliRunner().invoke(app, words[1:], catch_exceptions=False)
            assert done.exit_code == 0, done.output
