"""The head as ONNX, for runtimes without torch: from encoded speech and text to logits, any batch
size and any lengths. The labels of the logits are in its metadata, as a JSON list named `labels`.

The encoders are not in it. What it takes is what `Predictor.inputs` gives: float32 speech and text
with boolean masks.
"""

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from mmm.bundle.read import Bundle
from mmm.training.batches import Batch
from mmm.training.config import Dims, TrainConfig
from mmm.training.evaluate import forward

INPUTS = ("speech", "speech_mask", "text", "text_mask")
TOLERANCE = 1e-5  # of a probability, between torch and onnxruntime
_MISSING = (
    "ONNX needs onnx, onnxscript and onnxruntime; install them with: pip install 'mmm-search[onnx]'"
)


class OnnxError(ValueError):
    """A head that cannot be written as ONNX, or that computes something else there."""


def export_onnx(bundle: Bundle) -> bytes:
    """The model as an ONNX file's content, checked against torch on random inputs. Raises
    OnnxError.
    """
    return onnx_of(bundle.model, bundle.config, bundle.dims, bundle.name, bundle.labels)


def onnx_of(
    model: nn.Module, config: TrainConfig, dims: Dims, name: str, labels: Sequence[str] = ()
) -> bytes:
    """The same of a model in evaluation mode that is in no bundle."""
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise OnnxError(_MISSING) from None
    try:
        content = _translated(model, config, dims, labels)
        _check(content, model, config, dims, name)
    except Exception as error:
        if config.system_sha256 is None or isinstance(error, OnnxError):
            raise
        # Code of the user's own, of which torch or onnxruntime need not know every operation.
        what = " ".join(str(error).split())[:300]
        raise OnnxError(f"{name}: cannot be written as ONNX: {what}") from error
    return content


def _translated(model: nn.Module, config: TrainConfig, dims: Dims, labels: Sequence[str]) -> bytes:
    lengths = max(2, dims.speech_positions - 1), max(2, dims.text_positions - 1)
    example = _random_batch(config, dims, 3, *lengths)
    batch, frames, tokens = (torch.export.Dim(name) for name in ("batch", "frames", "tokens"))
    axes: list[dict[int, Any]] = [{0: batch}] * 4
    if not config.is_pooled:
        axes = [{0: batch, 1: length} for length in (frames, frames, tokens, tokens)]
    elif config.takes_frames:
        axes = [{0: batch, 2: frames}] * 2 + [{0: batch}] * 2
    with _quiet():
        program = torch.onnx.export(
            model,
            _tensors(example),
            dynamo=True,
            dynamic_shapes=tuple(axes),
            input_names=list(INPUTS),
            output_names=["logits"],
            verbose=False,
        )
    assert program is not None
    translated = program.model_proto
    if labels:
        named = translated.metadata_props.add()
        named.key, named.value = "labels", json.dumps(labels, ensure_ascii=False)
    content: bytes = translated.SerializeToString()
    return content


def labels_of(session: Any) -> tuple[str, ...]:
    """The labels of a session's logits; none of a file that was written before 2026-11-27."""
    return tuple(json.loads(session.get_modelmeta().custom_metadata_map.get("labels", "[]")))


def open_session(content: bytes) -> Any:
    """An onnxruntime session on the CPU."""
    try:
        import onnxruntime
    except ImportError:
        raise OnnxError(_MISSING) from None
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def onnx_logits(session: Any, batch: Batch) -> npt.NDArray[np.float32]:
    """(B, C) logits of a session for a batch."""
    # A system that does not look at a mask has no input for it.
    taken = {put.name for put in session.get_inputs()}
    feed = {
        name: tensor.numpy()
        for name, tensor in zip(INPUTS, _tensors(batch), strict=True)
        if name in taken
    }
    logits: npt.NDArray[np.float32] = session.run(None, feed)[0]
    return logits


def _check(content: bytes, model: nn.Module, config: TrainConfig, dims: Dims, name: str) -> None:
    session = open_session(content)
    most_frames, most_tokens = dims.speech_positions, dims.text_positions
    for size, frames, tokens in (
        (1, 1, 1),
        (1, most_frames, most_tokens),
        (2, 1, most_tokens),
        (7, min(2, most_frames), min(2, most_tokens)),
    ):
        batch = _random_batch(config, dims, size, frames, tokens)
        with torch.inference_mode():
            expected = forward(model, batch).softmax(dim=-1)
        shares = torch.from_numpy(onnx_logits(session, batch)).softmax(dim=-1)
        difference = float((shares - expected).abs().max())
        if not difference <= TOLERANCE:
            raise OnnxError(
                f"{name}: ONNX gives probabilities that differ from torch's by"
                f" {difference:.1e} (batch of {size}, {frames} frames, {tokens} tokens; expected at"
                f" most {TOLERANCE:.0e}); nothing was written"
            )


def _tensors(batch: Batch) -> tuple[torch.Tensor, ...]:
    return batch.speech, batch.speech_mask, batch.text, batch.text_mask


def _random_batch(config: TrainConfig, dims: Dims, size: int, frames: int, tokens: int) -> Batch:
    generator = torch.Generator().manual_seed(size)
    shapes: list[tuple[int, ...]] = [(size, frames), (size, tokens)]
    if config.is_pooled:
        shapes = [(size, config.context), (size, 1)]
        if config.takes_frames:
            shapes[0] = (size, config.context, frames)
    masks = [torch.rand(shape, generator=generator) > 0.3 for shape in shapes]
    for mask in masks:
        mask[:, 0] = True
    speech, text = (
        torch.randn((*mask.shape, width), generator=generator) * mask.unsqueeze(-1)
        for mask, width in zip(masks, (dims.speech_width, dims.text_width), strict=True)
    )
    if config.is_pooled:
        text = text[:, 0]
    return Batch(speech, masks[0], text, masks[1], torch.zeros(size, dims.num_classes))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of its inner doubts; what counts is checked afterwards."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
