"""Predictions and metrics of a model on a split."""

from typing import Any

import torch
from torch import Tensor, nn

from mmm.batches import Batch, SplitData
from mmm.metrics import classification_metrics

_BATCH_SIZE = 256


def forward(model: nn.Module, batch: Batch) -> Tensor:
    """Logits (B, C)."""
    logits: Tensor = model(batch.speech, batch.speech_mask, batch.text, batch.text_mask)
    return logits


@torch.inference_mode()
def probabilities(model: nn.Module, data: SplitData, device: torch.device) -> Tensor:
    """(N, C) class probabilities in the split's order, on the CPU."""
    model.eval()
    # Utterances of like length share a batch: less padding to compute on.
    lengths = torch.from_numpy(data.features.speech.offsets).diff()[data.features.speech_rows[data.indices]]
    order = torch.arange(len(data)) if data.config.is_pooled else lengths.argsort(stable=True)
    found = torch.empty(len(data), data.dims.num_classes)
    for rows in order.split(_BATCH_SIZE):
        found[rows] = forward(model, data.batch(rows, device)).float().softmax(dim=-1).cpu()
    return found


def evaluate(model: nn.Module, data: SplitData, device: torch.device) -> dict[str, Any]:
    """Metrics of `model` on `data`, the mean cross-entropy in nats as `loss` among them."""
    return score(probabilities(model, data, device), data)


def score(found: Tensor, data: SplitData) -> dict[str, Any]:
    """Metrics of (N, C) class probabilities against the split's labels."""
    metrics = classification_metrics(
        data.labels.argmax(dim=1).numpy(), found.argmax(dim=1).numpy(), data.features.manifest.classes
    )
    loss = -(data.labels * found.clamp(min=1e-12).log()).sum(dim=1).mean()
    return {"loss": float(loss), **metrics}
