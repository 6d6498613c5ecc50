import torch
from safetensors.torch import load, save

from mmm.tensors import tensor_bytes


def test_bytes_are_those_of_safetensors() -> None:
    tensors = {"weight": torch.randn(7, 5), "step": torch.tensor(3.0), "none": torch.zeros(0, 3), "half": torch.randn(3).bfloat16(),
               "rows": torch.arange(4), "mask": torch.tensor([True, False]), "ä": torch.randn(2, 3, 4).double()}  # fmt: skip
    assert tensor_bytes(tensors) == save(tensors)
    assert tensor_bytes(tensors, {"run": '{"epoch": 3}'}) == save(tensors, {"run": '{"epoch": 3}'})


def test_weights_in_any_layout_come_back_and_shared_ones_twice() -> None:
    weight = torch.randn(6, 4, requires_grad=True)
    found = load(tensor_bytes({"transposed": weight.mT, "part": weight[:, 1:3], "whole": weight, "again": weight}))
    torch.testing.assert_close(found["transposed"], weight.detach().mT, rtol=0, atol=0)
    torch.testing.assert_close(found["part"], weight.detach()[:, 1:3], rtol=0, atol=0)
    torch.testing.assert_close(found["again"], weight.detach(), rtol=0, atol=0)
