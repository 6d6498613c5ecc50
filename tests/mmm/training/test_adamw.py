"""Our AdamW against torch's, and what it is there for."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from mmm.training.adamw import AdamW

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=pytest.mark.skipif(
            not torch.cuda.is_available(), reason="needs a CUDA GPU, none is here"
        ),
    ),
]


def models(device: str) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    one = nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 3)).to(device)
    other = nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 3)).to(device)
    other.load_state_dict(one.state_dict())
    return one, other


def train(
    model: nn.Module, optimizer: AdamW | torch.optim.Optimizer, device: str, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    for number in range(6):
        loss = model(torch.randn(4, 5, generator=generator).to(device)).square().sum()
        loss.backward()
        if number % 2:
            # A parameter without a gradient is left as it is, and its steps are not counted.
            next(model.parameters()).grad = None
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("device", DEVICES)
def test_it_does_to_the_bit_what_torchs_does(device: str) -> None:
    one, other = models(device)
    ours = AdamW(one.parameters(), lr=1e-2, weight_decay=0.1)
    theirs = torch.optim.AdamW(other.parameters(), lr=1e-2, weight_decay=0.1, fused=True)
    train(one, ours, device, 1)
    train(other, theirs, device, 1)
    for name, value in other.state_dict().items():
        assert one.state_dict()[name].equal(value)
    found, expected = ours.state_dict()["state"], theirs.state_dict()["state"]
    assert found.keys() == expected.keys()
    for place, state in expected.items():
        assert found[place].keys() == state.keys()
        for name, value in state.items():
            assert found[place][name].equal(value)


@pytest.mark.parametrize("device", DEVICES)
def test_it_goes_on_from_its_state(device: str) -> None:
    one, other = models(device)
    ours = AdamW(one.parameters(), lr=1e-2, weight_decay=0.1)
    train(one, ours, device, 1)
    other.load_state_dict(one.state_dict())
    again = AdamW(other.parameters(), lr=1e-2, weight_decay=0.1)
    again.load_state_dict(ours.state_dict())
    train(one, ours, device, 2)
    train(other, again, device, 2)
    for name, value in one.state_dict().items():
        assert other.state_dict()[name].equal(value)


def test_training_imports_no_compiler() -> None:
    program = """
import sys, torch
from mmm.training.adamw import AdamW
import mmm.training.fit, mmm.training.profile
model = torch.nn.Linear(2, 2)
optimizer = AdamW(model.parameters(), lr=1, weight_decay=0)
# as packs do
torch.func.functional_call(model, dict(model.named_parameters()), torch.ones(1, 2)).sum().backward()
optimizer.step()
print([name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=100
    )
    assert done.stdout.strip() == "[]"
