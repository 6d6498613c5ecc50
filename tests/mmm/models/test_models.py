"""The contract that every architecture keeps, parameter counts of the published systems, and the
mixer block.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmm.models import ARCHITECTURES
from mmm.models.mlp_mixer import Block, MlpMixer
from mmm.models.positions import Positions
from mmm.training.config import Dims, make_config, published_params
from mmm.training.contract import CHECKS, CONTEXT, DIMS, Candidate, Check
from mmm.training.run import build_model

SPEECH_POSITIONS, TEXT_POSITIONS = DIMS.speech_positions, DIMS.text_positions
POOLED = ("vanilla_concat", "three_way_concat", "gated_fusion", "late_fusion")
every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)


def build(name: str, seed: int | None = 0, **changes: Any) -> nn.Module:
    settings: dict[str, Any] = {
        "speech_width": DIMS.speech_width,
        "text_width": DIMS.text_width,
        "num_classes": DIMS.num_classes,
        "classifier_hidden": 9,
        "masked": True,
    }
    if name in POOLED:
        settings |= {"context": CONTEXT, "width": 8}
    else:
        settings |= {"speech_positions": SPEECH_POSITIONS, "text_positions": TEXT_POSITIONS}
    if name == "cross_attention":
        settings |= {"layers": 2, "heads": 4}
    if name == "mlp_mixer":
        settings |= {"width": 8, "num_blocks": 2, "residual": "standard"}
    if seed is not None:
        torch.manual_seed(seed)
    return ARCHITECTURES[name](**(settings | changes)).double().eval()


def candidate(name: str) -> Candidate:
    return Candidate(
        lambda: build(name, seed=None), name in POOLED, dtype=torch.float64, tolerance=1e-12
    )


@every_architecture
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.claim)
def test_every_system_keeps_the_contract(name: str, check: Check) -> None:
    check.run(candidate(name))


@pytest.mark.parametrize(("name", "parts"), [("vanilla_concat", 1), ("three_way_concat", 3)])
def test_a_missing_turn_gives_zeros_to_the_classifier(name: str, parts: int) -> None:
    """One turn of three: its parts and the text reach the classifier. Published: the bias of the
    others does too.
    """
    for masked, expected in ((True, 8 + parts * 8), (False, 8 + parts * 8 * CONTEXT)):
        model = build(name, masked=masked)
        model(*candidate(name).inputs([1], [1])).logsumexp(dim=-1).sum().backward()
        gradient = model.get_parameter("classifier.0.weight").grad
        assert gradient is not None
        assert int((gradient.abs().sum(dim=0) > 0).sum()) == expected


@every_architecture
def test_every_real_position_matters(name: str) -> None:
    model, (speech, speech_mask, text, text_mask) = build(name), candidate(name).full()
    speech, text = speech.requires_grad_(), text.requires_grad_()
    model(speech, speech_mask, text, text_mask).square().sum().backward()
    for inputs in (speech, text):
        assert inputs.grad is not None
        assert (inputs.grad.abs().sum(dim=-1) > 0).all()


def linear(width_in: int, width_out: int) -> int:
    return width_in * width_out + width_out


def classifier(width: int, hidden: int) -> int:
    return linear(width, hidden) + linear(hidden, 7)


# docs/reference-systems.md, by hand: 1024-wide speech, 768-wide text, 512 + 128 positions, 7
# classes, LayerNorm = 2 D.
_PROJECTIONS = linear(1024, 256) + linear(768, 256)
_MIXER = (
    _PROJECTIONS
    + 2 * linear(640, 640)
    + 2 * linear(256, 256)
    + 2 * 256
    + 2 * 256
    + classifier(256, 512)
)
_ONE_WAY = (
    linear(768, 3 * 768) + linear(768, 768) + linear(768, 3072) + linear(3072, 768) + 3 * 2 * 768
)


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("vanilla_concat", {}, _PROJECTIONS + classifier(256 + 256, 512)),
        ("vanilla_concat", {"context": 3}, _PROJECTIONS + classifier(3 * 256 + 256, 512)),
        ("three_way_concat", {}, _PROJECTIONS + classifier(3 * 256 + 256, 768)),
        ("three_way_concat", {"context": 5}, _PROJECTIONS + classifier(3 * 5 * 256 + 256, 768)),
        ("cross_attention", {}, 1024 * 768 + 2 * _ONE_WAY + classifier(2 * 768, 512)),
        ("mlp_mixer", {}, _MIXER),
        ("mlp_mixer", {"residual": "standard"}, _MIXER + 2 * 256),
        ("mlp_mixer", {"context": 3}, _MIXER),
    ],
)
def test_published_sizes_have_the_published_number_of_parameters(
    name: str, changes: dict[str, Any], expected: int
) -> None:
    model = build_model(make_config(published_params(name) | changes), Dims(1024, 768, 512, 128, 7))
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_standard_block_is_tolstikhins_when_nothing_is_padded() -> None:
    torch.manual_seed(0)
    block = Block(6, 4, residual="standard").double()
    nn.init.normal_(block.token_norm.weight)
    nn.init.normal_(block.channel_norm.bias)
    x = torch.randn(3, 6, 4, dtype=torch.float64)
    # Tolstikhin et al. 2021, equation 1.
    first, second = block.token_mixing
    u = x + second(functional.gelu(first(block.token_norm(x).mT))).mT
    expected = u + block.channel_mixing(block.channel_norm(u))
    found = block(
        x.flatten(0, 1), Positions(torch.ones(3, 6, dtype=torch.bool), masked=True), torch.arange(6)
    )
    torch.testing.assert_close(found, expected.flatten(0, 1), rtol=0, atol=1e-12)


def test_standard_mixer_is_tolstikhins_when_nothing_is_padded() -> None:
    model, (speech, speech_mask, text, text_mask) = (
        build("mlp_mixer"),
        candidate("mlp_mixer").full(),
    )
    assert isinstance(model, MlpMixer)

    def norm(values: Tensor, layer: nn.Module) -> Tensor:
        centred = values - values.mean(dim=-1, keepdim=True)
        scaled = centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()
        return scaled * layer.weight + layer.bias  # type: ignore[operator]

    def mlp(values: Tensor, layer: nn.Module) -> Tensor:
        first, second = layer.children()
        hidden = values @ first.weight.T + first.bias  # type: ignore[operator, union-attr]
        gelu = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
        return gelu @ second.weight.T + second.bias  # type: ignore[operator, union-attr]

    x = torch.cat([model.text_projection(text), model.speech_projection(speech)], dim=1)
    for block in model.blocks:
        assert isinstance(block, Block)
        x = x + mlp(norm(x, block.token_norm).mT, block.token_mixing).mT
        x = x + mlp(norm(x, block.channel_norm), block.channel_mixing)
    expected = mlp(norm(x, model.final_norm).mean(dim=1), model.classifier)
    torch.testing.assert_close(
        model(speech, speech_mask, text, text_mask), expected, rtol=0, atol=1e-12
    )


def test_mixer_positions_keep_their_weights_in_every_batch() -> None:
    """Speech starts at position `text_positions`, however short the batch's texts are."""
    model, inputs = build("mlp_mixer"), candidate("mlp_mixer").inputs([4, 6], [2, 1])
    assert isinstance(model, MlpMixer)
    speech, speech_mask, text, text_mask = inputs
    before = model(*inputs)
    with torch.no_grad():
        for block in model.blocks:
            assert isinstance(block, Block)
            unused = [
                *range(2, TEXT_POSITIONS),
                *range(TEXT_POSITIONS + 6, TEXT_POSITIONS + SPEECH_POSITIONS),
            ]
            first, second = block.token_mixing.children()
            first.weight[:, unused] = 100.0  # type: ignore[operator, index]
            second.weight[unused] = 100.0  # type: ignore[operator, index]
    assert torch.equal(model(speech, speech_mask, text, text_mask), before)


def test_heads_that_do_not_divide_the_text_width_are_refused() -> None:
    with pytest.raises(ValueError, match="heads=5 does not divide the text width 16"):
        build("cross_attention", heads=5)
