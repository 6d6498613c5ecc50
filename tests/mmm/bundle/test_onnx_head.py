"""Every system as ONNX: `export_onnx` itself holds it against torch for several batch sizes and
lengths.
"""

import re
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch

from mmm.bundle.onnx_head import OnnxError, export_onnx, onnx_logits
from mmm.bundle.read import Bundle, load_bundle
from mmm.bundle.write import save_run_bundle
from mmm.models import ARCHITECTURES
from mmm.training.batches import Batch
from mmm.training.evaluate import forward
from tests.conftest import Corpus, trained


def made(corpus: Corpus, path: Path, architecture: str, **changes: Any) -> Bundle:
    save_run_bundle(
        trained(corpus, architecture, epochs=1, context=2, **changes),
        path,
        name=architecture,
    )
    return load_bundle(path)


@pytest.mark.slow  # five seconds each: torch's exporter traces and translates
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_validation_batch_has_torchs_logits(
    corpus: Corpus, tmp_path: Path, architecture: str, masked: bool
) -> None:
    run = trained(corpus, architecture, epochs=1, context=2, masked=masked)
    save_run_bundle(run, tmp_path / "bundle", name=architecture)
    bundle = load_bundle(tmp_path / "bundle")
    batch: Batch = run.dev.batch(torch.arange(len(run.dev)), torch.device("cpu"))
    with torch.inference_mode():
        expected = forward(bundle.model, batch)
    session = onnxruntime.InferenceSession(export_onnx(bundle), providers=["CPUExecutionProvider"])
    torch.testing.assert_close(
        torch.from_numpy(onnx_logits(session, batch)), expected, rtol=0, atol=1e-5
    )


def test_a_head_that_computes_something_else_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    bundle = made(corpus, tmp_path / "bundle", "vanilla_concat")

    class Shaky(torch.nn.Module):
        """Answers differently while torch exports it."""

        def forward(
            self,
            speech: torch.Tensor,
            speech_mask: torch.Tensor,
            text: torch.Tensor,
            text_mask: torch.Tensor,
        ) -> torch.Tensor:
            logits: torch.Tensor = bundle.model(speech, speech_mask, text, text_mask)
            return logits * 2.0 if torch.compiler.is_exporting() else logits

    shaky = Bundle(**{**vars(bundle), "model": Shaky()})
    with pytest.raises(
        OnnxError,
        match=re.escape("vanilla_concat: ONNX gives probabilities that differ from torch's by "),
    ):
        export_onnx(shaky)
