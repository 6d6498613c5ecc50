"""Processes that encode and are killed, what they leave, features of earlier versions, and commands
that errors print.
"""

import multiprocessing
import re
import shlex
import shutil
from multiprocessing.context import ForkServerContext
from pathlib import Path

from typer.testing import CliRunner

from mmm.cli.app import app
from mmm.features.store import list_recipes
from tests.conftest import names_in

_PRELOADED = [
    "mmm.cli.app",
    "mmm.encoders.extract",
    "torch",
    "torchaudio.transforms",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "tests.mmm.cli.test_encode_command",
    "tests.mmm.encoders.test_encode_huggingface_killed",
]


def forks() -> ForkServerContext:
    """Where processes start with everything imported. There is one server of them a test run, so
    all tests share what it imports.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


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
    commands = re.split(r"(?:; run|; make it again|, run|\? run): ", message.splitlines()[-1])[-1]
    for command in commands.split(" && "):
        words = shlex.split(command)
        if words[:2] == ["rm", "-r"]:
            assert words[2:]
            for folder in words[2:]:
                shutil.rmtree(folder)
        else:
            assert words[:2] == ["mmm", "encode"], message
            done = CliRunner().invoke(app, words[1:], catch_exceptions=False)
            assert done.exit_code == 0, done.output
