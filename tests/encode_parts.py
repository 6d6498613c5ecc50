"""Processes that encode and are killed, and what they leave."""

import multiprocessing
from multiprocessing.context import ForkServerContext
from pathlib import Path

from mmm.store import list_recipes
from tests.conftest import names_in

_PRELOADED = [
    "mmm.cli", "mmm.extract", "torch", "torchaudio.transforms",
    "transformers.models.auto.modeling_auto", "transformers.models.auto.tokenization_auto",
    "tests.test_encode_command", "tests.test_encode_huggingface_killed",
]  # fmt: skip


def forks() -> ForkServerContext:
    """Where processes start with everything imported. There is one server of them a test run, so all tests share what it imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


def contents(features: Path) -> dict[str, bytes]:
    """Every file of every store."""
    return {f"{path.name}/{file}": (path / file).read_bytes() for path in list_recipes(features) for file in names_in(path)}
