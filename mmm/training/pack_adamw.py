"""AdamW of a pack's members at once: their weights and moments lie side by side in one tensor each.

On a GPU a step of a small head costs what its launches cost: a step for each of 64 members took
0.2 ms each, most of a training step (docs/LOG.md, 2026-11-27). Here all of them take a dozen.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mmm.training.adamw import BETAS, EPS, AdamW
from mmm.training.run import Run

_ALIGNED = 32  # weights that every parameter's place is a multiple of: products want addresses so


class PackAdamW:
    """Takes the members' weights and moments into memory of its own; parameters and states of the
    members become views into it, until `dissolve`.

    Each member goes on from its own step with its own learning rate and weight decay. Every
    parameter has to have a gradient.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = runs
        device, number = runs[0].device, len(runs)
        self._names = [name for name, _ in runs[0].model.named_parameters()]
        self._shapes = [weight.shape for weight in runs[0].model.parameters()]
        self._starts, total = [], 0
        for shape in self._shapes:
            self._starts.append(total)
            total += -(-shape.numel() // _ALIGNED) * _ALIGNED
        self._weights, self._first, self._second = (
            torch.zeros(number, total, device=device) for _ in range(3)
        )
        self._steps = torch.zeros(number, 1, device=device)
        for member, run in enumerate(runs):
            self._take(member, run)
        self._lr = torch.tensor([[run.config.lr] for run in runs], device=device)
        decays = [[1 - run.config.lr * run.config.weight_decay] for run in runs]
        self._decays = torch.tensor(decays, device=device)
        self._gradients = torch.zeros_like(self._weights)
        self.stack: dict[str, Tensor] = {}  # name -> (M, ...) weights, leaves of autograd
        for name, start, shape in zip(self._names, self._starts, self._shapes, strict=True):
            weights = self._weights[:, start : start + shape.numel()].view(number, *shape)
            self.stack[name] = weights.requires_grad_()

    def _take(self, member: int, run: Run) -> None:
        states = _optimizer(run).states
        parameters = zip(run.model.parameters(), self._starts, self._shapes, strict=True)
        for place, (parameter, start, shape) in enumerate(parameters):

            def view(of: Tensor, start: int = start, shape: torch.Size = shape) -> Tensor:
                return of[member, start : start + shape.numel()].view(shape)

            view(self._weights).copy_(parameter.detach())
            parameter.data = view(self._weights)
            if place in states:
                view(self._first).copy_(states[place]["exp_avg"])
                view(self._second).copy_(states[place]["exp_avg_sq"])
                self._steps[member] = states[place]["step"]
            states[place] = {
                "step": self._steps[member, 0],
                "exp_avg": view(self._first),
                "exp_avg_sq": view(self._second),
            }

    @torch.no_grad()
    def step(self) -> None:
        """Change every member's weights by the gradients of `stack`."""
        for (name, weights), start in zip(self.stack.items(), self._starts, strict=True):
            assert weights.grad is not None, name
            gradient = weights.grad.flatten(1)
            self._gradients[:, start : start + gradient.shape[1]] = gradient
        gradients, (first_beta, second_beta) = self._gradients, BETAS
        self._steps += 1
        self._weights *= self._decays
        self._first.lerp_(gradients, 1 - first_beta)
        self._second.mul_(second_beta).addcmul_(gradients, gradients, value=1 - second_beta)
        step_sizes = self._lr / (1 - first_beta**self._steps)
        roots = (1 - second_beta**self._steps).sqrt()
        denominators = (self._second.sqrt() / roots).add_(EPS)
        self._weights -= self._first * step_sizes / denominators

    def forget_gradients(self) -> None:
        for weights in self.stack.values():
            weights.grad = None

    def dissolve(self) -> None:
        """Give the members memory of their own again."""
        for run in self.runs:
            for parameter in run.model.parameters():
                parameter.data = parameter.data.clone()
            for state in _optimizer(run).states.values():
                state.update({name: value.clone() for name, value in state.items()})


def _optimizer(run: Run) -> AdamW:
    assert isinstance(run.optimizer, AdamW)
    return run.optimizer
