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
from mmm.training.dropout import Dropout
from mmm.training.run import build_model

SPEECH_WIDTH, TEXT_WIDTH, CLASSES = 10, 16, 5
SPEECH_POSITIONS, TEXT_POSITIONS, CONTEXT = 12, 7, 3
POOLED = ("vanilla_concat", "three_way_concat", "gated_fusion", "late_fusion")
GARBAGE = (7.0, 1e30, float("inf"), float("nan"))
every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)
Inputs = tuple[Tensor, Tensor, Tensor, Tensor]


def build(name: str, seed: int = 0, **changes: Any) -> nn.Module:
    settings: dict[str, Any] = {
        "speech_width": SPEECH_WIDTH,
        "text_width": TEXT_WIDTH,
        "num_classes": CLASSES,
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
    torch.manual_seed(seed)
    return ARCHITECTURES[name](**(settings | changes)).double().eval()


def mask_of(lengths: list[int], size: int) -> Tensor:
    return torch.arange(size) < torch.tensor(lengths)[:, None]


def make_inputs(name: str, speech_lengths: list[int], text_lengths: list[int]) -> Inputs:
    """Random features up to each row's length, zeros beyond; for the pooled systems a length is a
    number of turns.
    """
    generator = torch.Generator().manual_seed(1)
    speech_mask = mask_of(speech_lengths, CONTEXT if name in POOLED else max(speech_lengths))
    speech = torch.randn(*speech_mask.shape, SPEECH_WIDTH, generator=generator, dtype=torch.float64)
    speech = torch.where(speech_mask[..., None], speech, 0.0)
    if name in POOLED:
        text = torch.randn(len(text_lengths), TEXT_WIDTH, generator=generator, dtype=torch.float64)
        return speech, speech_mask, text, torch.ones(len(text), 1, dtype=torch.bool)
    text_mask = mask_of(text_lengths, max(text_lengths))
    text = torch.randn(*text_mask.shape, TEXT_WIDTH, generator=generator, dtype=torch.float64)
    return speech, speech_mask, torch.where(text_mask[..., None], text, 0.0), text_mask


def ragged(name: str) -> Inputs:
    return make_inputs(name, [1, 2, 3] if name in POOLED else [1, 12, 5], [7, 2, 1])


def full(name: str) -> Inputs:
    return make_inputs(
        name, [CONTEXT] * 4 if name in POOLED else [SPEECH_POSITIONS] * 4, [TEXT_POSITIONS] * 4
    )


def with_garbage(name: str, inputs: Inputs, garbage: float) -> Inputs:
    speech, speech_mask, text, text_mask = inputs
    text = text if name in POOLED else torch.where(text_mask[..., None], text, garbage)
    return torch.where(speech_mask[..., None], speech, garbage), speech_mask, text, text_mask


def row_alone(name: str, inputs: Inputs, row: int) -> Inputs:
    """One row of a batch, cut to its own length."""
    speech, speech_mask, text, text_mask = (tensor[row : row + 1] for tensor in inputs)
    if name in POOLED:
        return speech, speech_mask, text, text_mask
    num_speech, num_text = int(speech_mask.sum()), int(text_mask.sum())
    return (
        speech[:, :num_speech],
        speech_mask[:, :num_speech],
        text[:, :num_text],
        text_mask[:, :num_text],
    )


@every_architecture
def test_logits_are_one_row_an_utterance_and_one_column_a_class(name: str) -> None:
    assert build(name)(*ragged(name)).shape == (3, CLASSES)


@every_architecture
def test_batch_mates_do_not_change_logits(name: str) -> None:
    model, inputs = build(name), ragged(name)
    together = model(*inputs)
    for row in range(3):
        torch.testing.assert_close(
            model(*row_alone(name, inputs, row))[0], together[row], rtol=0, atol=1e-12
        )


@every_architecture
@pytest.mark.parametrize("garbage", GARBAGE)
def test_padding_does_not_change_logits(name: str, garbage: float) -> None:
    model, inputs = build(name), ragged(name)
    assert torch.equal(model(*with_garbage(name, inputs, garbage)), model(*inputs))


@every_architecture
@pytest.mark.parametrize("garbage", GARBAGE)
def test_padding_does_not_change_gradients(name: str, garbage: float) -> None:
    gradients = []
    for inputs in (ragged(name), with_garbage(name, ragged(name), garbage)):
        model = build(name)
        model(*inputs).logsumexp(dim=-1).sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for clean, dirty in zip(*gradients, strict=True):
        torch.testing.assert_close(dirty, clean, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "parts"), [("vanilla_concat", 1), ("three_way_concat", 3)])
def test_a_missing_turn_gives_zeros_to_the_classifier(name: str, parts: int) -> None:
    """One turn of three: its parts and the text reach the classifier. Published: the bias of the
    others does too.
    """
    for masked, expected in ((True, 8 + parts * 8), (False, 8 + parts * 8 * CONTEXT)):
        model = build(name, masked=masked)
        model(*make_inputs(name, [1], [1])).logsumexp(dim=-1).sum().backward()
        gradient = model.get_parameter("classifier.0.weight").grad
        assert gradient is not None
        assert int((gradient.abs().sum(dim=0) > 0).sum()) == expected


@every_architecture
def test_longer_padding_does_not_change_logits(name: str) -> None:
    model = build(name)
    speech, speech_mask, text, text_mask = row_alone(name, ragged(name), 2)
    if name not in POOLED:
        speech = functional.pad(speech, (0, 0, 0, SPEECH_POSITIONS - speech.shape[1]), value=3.0)
        speech_mask = functional.pad(speech_mask, (0, SPEECH_POSITIONS - speech_mask.shape[1]))
        text = functional.pad(text, (0, 0, 0, TEXT_POSITIONS - text.shape[1]), value=3.0)
        text_mask = functional.pad(text_mask, (0, TEXT_POSITIONS - text_mask.shape[1]))
    expected = model(*ragged(name))[2:]
    torch.testing.assert_close(
        model(speech, speech_mask, text, text_mask), expected, rtol=0, atol=1e-12
    )


@every_architecture
def test_every_real_position_matters(name: str) -> None:
    model, (speech, speech_mask, text, text_mask) = build(name), full(name)
    speech, text = speech.requires_grad_(), text.requires_grad_()
    model(speech, speech_mask, text, text_mask).square().sum().backward()
    for inputs in (speech, text):
        assert inputs.grad is not None
        assert (inputs.grad.abs().sum(dim=-1) > 0).all()


@every_architecture
def test_every_parameter_gets_a_gradient(name: str) -> None:
    model = build(name)
    model(*full(name)).logsumexp(dim=-1).sum().backward()
    without = [
        key
        for key, value in model.named_parameters()
        if value.grad is None or not value.grad.abs().sum() > 0
    ]
    assert without == []


@every_architecture
def test_one_seed_gives_the_same_model_and_another_a_different_one(name: str) -> None:
    inputs = ragged(name)
    assert torch.equal(build(name, seed=3)(*inputs), build(name, seed=3)(*inputs))
    assert not torch.equal(build(name, seed=3)(*inputs), build(name, seed=4)(*inputs))


@every_architecture
def test_dropout_follows_its_seed_and_is_off_where_none_is_given(name: str) -> None:
    model, inputs = build(name), ragged(name)
    assert torch.equal(model(*inputs), model(*inputs))
    found = [model(*inputs, Dropout([0.5], [seed], torch.device("cpu"))) for seed in (1, 1, 2)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@every_architecture
def test_a_batch_of_one_utterance_of_one_position_trains(name: str) -> None:
    model = build(name).train()
    loss = functional.cross_entropy(model(*make_inputs(name, [1], [1])), torch.tensor([2]))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


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
    model, (speech, speech_mask, text, text_mask) = build("mlp_mixer"), full("mlp_mixer")
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
    model, inputs = build("mlp_mixer"), make_inputs("mlp_mixer", [4, 6], [2, 1])
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
