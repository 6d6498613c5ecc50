"""AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) through torch's fused step.

To the bit what `torch.optim.AdamW(fused=True)` does; but torch's class imports torch's compiler
when one is made, which costs every process 1.7 s and 80 MB (docs/LOG.md, 2026-11-25), and sorts its
parameters by device and type in every step.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

BETAS, EPS = (0.9, 0.999), 1e-8  # as in torch


class Optimizer(Protocol):
    """What a run asks of its optimizer; torch's have it too."""

    def step(self) -> object: ...
    def zero_grad(self) -> object: ...
    def state_dict(self) -> Any: ...
    def load_state_dict(self, state_dict: Any) -> object: ...


class AdamW:
    """Weight decay is applied to every parameter."""

    def __init__(
        self, parameters: Iterable[nn.Parameter], *, lr: float, weight_decay: float
    ) -> None:
        self.parameters, self.lr, self.weight_decay = list(parameters), lr, weight_decay
        # By the parameter's place, from its first gradient on.
        self.states: dict[int, dict[str, Tensor]] = {}

    @torch.no_grad()
    def step(self) -> None:
        """Change every parameter that has a gradient."""
        gradients = {
            place: parameter.grad
            for place, parameter in enumerate(self.parameters)
            if parameter.grad is not None
        }
        for place in gradients:
            if place not in self.states:
                parameter = self.parameters[place]
                self.states[place] = {
                    "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }
        states = [self.states[place] for place in gradients]
        steps = [state["step"] for state in states]
        torch._foreach_add_(steps, 1)
        torch._fused_adamw_(
            [self.parameters[place] for place in gradients],
            list(gradients.values()),
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            steps,
            lr=self.lr,
            beta1=BETAS[0],
            beta2=BETAS[1],
            weight_decay=self.weight_decay,
            eps=EPS,
            amsgrad=False,
            maximize=False,
        )

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, dict[int, dict[str, Tensor]]]:
        """{"state": {place: {"step", "exp_avg", "exp_avg_sq"}}}, the tensors themselves."""
        return {"state": self.states}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take copies of another's state, on the parameters' devices."""
        self.states = {
            place: {
                name: value.detach().to(self.parameters[place].device, copy=True)
                for name, value in state.items()
            }
            for place, state in state_dict["state"].items()
        }
