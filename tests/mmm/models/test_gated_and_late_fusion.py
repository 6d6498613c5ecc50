"""gated_fusion and late_fusion against the same computed by NumPy, weights set by a formula."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from mmm.models import ARCHITECTURES
from tests.mmm.models.test_reference_systems import formula, weight

Values = npt.NDArray[np.float64]
F, E, C, D, H = 5, 4, 3, 6, 7


def gelu(x: Values) -> Values:
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


class Weights:
    """Of a model, by their names."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.of = {name: value.numpy() for name, value in model.state_dict().items()}

    def affine(self, x: Values, name: str) -> Values:
        result: Values = x @ self.of[f"{name}.weight"].T + self.of[f"{name}.bias"]
        return result

    def classifier(self, x: Values, name: str) -> Values:
        return self.affine(gelu(self.affine(x, f"{name}.0")), f"{name}.1")


def gated(w: Weights, turns: list[Values], text: Values) -> Values:
    """One utterance; `turns` are its speech, present ones first."""
    beside = np.concatenate([gelu(w.affine(turn, "speech_projection")) for turn in turns])
    missing = w.of["speech_output.weight"].shape[1] - len(beside)
    speech = gelu(w.affine(np.pad(beside, (0, missing)), "speech_output"))
    text = gelu(w.affine(gelu(w.affine(text, "text_projection")), "text_output"))
    hidden = gelu(w.affine(np.concatenate([speech, text]), "attention.0"))
    scores = np.exp(w.affine(hidden, "attention.1"))
    fused = (scores[0] * speech + scores[1] * text) / scores.sum()
    return w.classifier(fused, "classifier")


def late(w: Weights, turns: list[Values], text: Values) -> Values:
    beside = np.concatenate([w.affine(turn, "speech_projection") for turn in turns])
    missing = w.of["speech_classifier.0.weight"].shape[1] - len(beside)
    of_speech = w.classifier(np.pad(beside, (0, missing)), "speech_classifier")
    of_text = w.classifier(w.affine(text, "text_projection"), "text_classifier")
    share = 1 / (1 + math.exp(-w.of["speech_share"].item()))
    return share * of_speech + (1 - share) * of_text


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("context", [1, 3])
@pytest.mark.parametrize(("name", "expected"), [("gated_fusion", gated), ("late_fusion", late)])
def test_logits_are_those_of_the_formula(
    name: str, expected: Any, context: int, masked: bool
) -> None:
    sizes = {"speech_width": F, "text_width": E, "num_classes": C, "classifier_hidden": H}
    model = ARCHITECTURES[name](context=context, width=D, masked=masked, **sizes).double()
    model.load_state_dict(
        {key: weight(key, list(value.shape)) for key, value in model.state_dict().items()}
    )
    assert len(list(model.parameters())) == {"gated_fusion": 16, "late_fusion": 13}[name]
    speech, text = formula("speech", [4, context, F], 1.0, 0.0), formula("text", [4, E], 1.0, 0.0)
    lengths = torch.tensor([1, 2, 3, 1]).clamp(max=context)
    mask = torch.arange(context) < lengths[:, None]
    speech[~mask] = 0.0
    with torch.no_grad():
        logits = model(speech, mask, text, torch.ones(4, 1, dtype=torch.bool)).numpy()
    # Not masked: what the projection makes of zeros stands where a turn is missing.
    ends = lengths if masked else [None] * 4
    turns = [list(row[:end]) for row, end in zip(speech.numpy(), ends, strict=True)]
    wanted = [expected(Weights(model), *one) for one in zip(turns, text.numpy(), strict=True)]
    np.testing.assert_allclose(logits, wanted, rtol=0, atol=1e-6)


def test_the_mixture_begins_as_the_mean_of_both() -> None:
    from tests.mmm.models.test_models import build, candidate

    model, inputs = build("late_fusion"), candidate("late_fusion").full()
    both = model(*inputs)
    with torch.no_grad():
        for number in (40.0, -40.0):
            model.get_parameter("speech_share").fill_(number)
            both = both - model(*inputs) / 2
    torch.testing.assert_close(both, torch.zeros_like(both), rtol=0, atol=1e-12)
