"""Several runs of one shape as one batched model: their weights stacked, each product one batched
product.

The members stay ordinary runs. Their parameters are views into the stack, so that checkpoints,
optimizers and best weights know nothing of it.
"""

from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import Tensor
from torch.func import functional_call

from mmm.models.layers import Drop, keep_all
from mmm.training.batches import Batch
from mmm.training.config import ParamValue, TrainConfig
from mmm.training.pack_adamw import PackAdamW
from mmm.training.run import Run

# What members may differ in; all else decides shapes, the rows of a batch, or when the optimizer
# steps.
FREE = {
    "lr",
    "weight_decay",
    "dropout",
    "seed",
    "class_weight",
    "label_smoothing",
    "weighted_sampling",
    "shuffle",
    "epochs",
}


def pack_shape(config: TrainConfig) -> tuple[tuple[str, ParamValue], ...]:
    """Runs with equal shapes on the same features can train in one pack."""
    return tuple((name, value) for name, value in asdict(config).items() if name not in FREE)


class Pack:
    """The members' models as one. Raises ValueError where their shapes differ.

    One member alone is its own model, without a stack; but not of the pooled systems, which are
    packed the most: in a stack of one each product is rounded as in a stack of many, so that their
    results are the same to the bit, however wild the learning rate.
    """

    def __init__(self, runs: Sequence[Run], *, is_side_by_side: bool | None = None) -> None:
        """`is_side_by_side`: one optimizer for all members, with their weights in one tensor
        [on a GPU].
        """
        first = set(pack_shape(runs[0].config))
        others = {pair for run in runs for pair in pack_shape(run.config)} - first
        if differing := sorted({name for name, _ in others}):
            raise ValueError(
                f"runs of different shapes cannot train in one pack; {', '.join(differing)} differ"
            )
        self.runs = list(runs)
        self._model = runs[0].model
        self._stack: dict[str, Tensor] = {}
        self._optimizer: PackAdamW | None = None  # of all members, where that is faster
        config = runs[0].config
        may_stack = config.system_sha256 is None or config.in_packs is True
        self.is_stacked = len(runs) > 1 or (config.is_pooled and may_stack)
        if not self.is_stacked:
            return
        if is_side_by_side is None:
            is_side_by_side = runs[0].device.type != "cpu"
        if is_side_by_side:
            self._optimizer = PackAdamW(runs)
            self._stack = self._optimizer.stack
            return
        for name, _ in self._model.named_parameters():
            parameters = [run.model.get_parameter(name) for run in runs]
            stacked = torch.stack([parameter.detach() for parameter in parameters])
            for parameter, view in zip(parameters, stacked, strict=True):
                parameter.data = view
            self._stack[name] = stacked.requires_grad_()

    def forward(self, batch: Batch, drop: Drop = keep_all) -> Tensor:
        """Logits (M, B, C) of a batch (M, B, ...); of one member, (B, C) of (B, ...)."""
        inputs = (batch.speech, batch.speech_mask, batch.text, batch.text_mask, drop)
        logits: Tensor
        if self._stack:
            logits = functional_call(self._model, self._stack, inputs)
        else:
            logits = self._model(*inputs)
        return logits

    def step(self) -> None:
        """Each member's optimizer takes its share of the gradients."""
        if self._optimizer is not None:
            self._optimizer.step()
            self.forget_gradients()
            return
        for name, stacked in self._stack.items():
            assert stacked.grad is not None
            for run, gradient in zip(self.runs, stacked.grad, strict=True):
                run.model.get_parameter(name).grad = gradient
        for run in self.runs:
            run.optimizer.step()
        self.forget_gradients()

    def forget_gradients(self) -> None:
        if self._optimizer is not None:
            self._optimizer.forget_gradients()
            return
        for run in self.runs:
            run.optimizer.zero_grad()
        for stacked in self._stack.values():
            stacked.grad = None

    def dissolve(self) -> None:
        """Give the members memory of their own again, so that one that has left does not hold that
        of all.
        """
        if self._optimizer is not None:
            self._optimizer.dissolve()
        elif self._stack:
            for run in self.runs:
                for parameter in run.model.parameters():
                    parameter.data = parameter.data.clone()
        self._stack, self._optimizer = {}, None
