"""Predictions and metrics of a model on a split."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mmm.metrics import Metrics, classification_metrics
from mmm.training.batches import Batch, SplitData
from mmm.training.pack import Pack

_POOLED_BATCH_SIZE = 1024
_TIMES = 2  # as much as in training, which keeps what the gradients need


def forward(model: nn.Module, batch: Batch) -> Tensor:
    """Logits (B, C)."""
    logits: Tensor = model(batch.speech, batch.speech_mask, batch.text, batch.text_mask)
    return logits


def probabilities(model: nn.Module, data: SplitData, device: torch.device) -> Tensor:
    """(N, C) class probabilities in the split's order, on the CPU."""
    return _probabilities(lambda batch: forward(model, batch).unsqueeze(0), 1, data, device)[0]


def pack_probabilities(pack: Pack, data: SplitData, device: torch.device) -> Tensor:
    """(M, N, C) class probabilities of a pack's M members, in the split's order, on the CPU."""
    if len(pack.runs) == 1:
        return probabilities(pack.runs[0].model, data, device).unsqueeze(0)
    return _probabilities(
        lambda batch: pack.forward(batch.for_members(len(pack.runs))), len(pack.runs), data, device
    )


@torch.inference_mode()
def _probabilities(
    forward_all: Callable[[Batch], Tensor], num_members: int, data: SplitData, device: torch.device
) -> Tensor:
    parts: Sequence[Tensor] = (everyone := torch.arange(len(data))).split(_POOLED_BATCH_SIZE)
    if data.config.takes_frames:
        parts = data.parts(everyone, device, _TIMES / num_members)
    shares = torch.empty(num_members, len(data), data.dims.num_classes)
    for rows in parts:
        shares[:, rows] = forward_all(data.batch(rows, device)).float().softmax(dim=-1).cpu()
    return shares


def evaluate(model: nn.Module, data: SplitData, device: torch.device) -> Metrics:
    """Metrics of `model` on `data`, the mean cross-entropy in nats as `loss` among them."""
    return score(probabilities(model, data, device), data)


def score(shares: Tensor, data: SplitData) -> Metrics:
    """Metrics of (N, C) class probabilities against the split's labels.

    A row of a class that the model cannot answer is wrong, and its class counts with an F1 of 0;
    the loss, which would be infinite there, is the mean over the other rows.
    """
    metrics = classification_metrics(data.truth.numpy(), shares.argmax(dim=1).numpy(), data.names)
    loss = -(data.labels * shares.clamp(min=1e-12).log()).sum(dim=1)
    if len(data.names) > data.labels.shape[1]:
        loss = loss[data.truth < data.labels.shape[1]]
    return {"loss": float(loss.mean()) if len(loss) else 0.0, **metrics}
