from collections.abc import Iterable, Iterator

import pytest
import torch
from safetensors.torch import load, save

from mmm.training.tensor_file import checked_bytes, load_checked, tensor_bytes


def test_bytes_are_those_of_safetensors() -> None:
    tensors = {
        "weight": torch.randn(7, 5),
        "step": torch.tensor(3.0),
        "none": torch.zeros(0, 3),
        "half": torch.randn(3).bfloat16(),
        "rows": torch.arange(4),
        "mask": torch.tensor([True, False]),
        "ä": torch.randn(2, 3, 4).double(),
    }
    assert tensor_bytes(tensors) == save(tensors)
    assert tensor_bytes(tensors, {"run": '{"epoch": 3}'}) == save(tensors, {"run": '{"epoch": 3}'})


def test_weights_in_any_layout_come_back_and_shared_ones_twice() -> None:
    weight = torch.randn(6, 4, requires_grad=True)
    found = load(
        tensor_bytes(
            {"transposed": weight.mT, "part": weight[:, 1:3], "whole": weight, "again": weight}
        )
    )
    torch.testing.assert_close(found["transposed"], weight.detach().mT, rtol=0, atol=0)
    torch.testing.assert_close(found["part"], weight.detach()[:, 1:3], rtol=0, atol=0)
    torch.testing.assert_close(found["again"], weight.detach(), rtol=0, atol=0)


def with_flips(content: bytes, places: Iterable[int]) -> Iterator[bytes]:
    """A copy for each place, in which that bit is another one."""
    for place in places:
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        yield bytes(flipped)


def test_every_flipped_bit_of_kept_weights_is_refused() -> None:
    tensors = {
        "layer.weight": torch.randn(3, 5),
        "layer.bias": torch.randn(3),
        "half": torch.randn(4).bfloat16(),
    }
    content = checked_bytes(tensors)
    found, is_checked = load_checked(content)
    assert is_checked
    assert all(torch.equal(found[name], value) for name, value in tensors.items())
    for flipped in with_flips(content, range(8 * len(content))):
        with pytest.raises(
            ValueError,
            match=(
                r"damaged: (its checksum is not the recorded one|it has lost its checksum|Error"
                r" while)"
            ),
        ):
            load_checked(flipped)
    for length in range(len(content)):
        with pytest.raises(ValueError, match="damaged: "):
            load_checked(content[:length])


def test_weights_of_an_earlier_version_are_read_and_said_to_be_unchecked() -> None:
    found, is_checked = load_checked(tensor_bytes({"weight": torch.ones(2)}))
    assert torch.equal(found["weight"], torch.ones(2))
    assert not is_checked
