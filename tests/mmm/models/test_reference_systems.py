"""The four systems under published settings compute the reference logits (see the file's
`about`).
"""

import json
import math
import os
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch

from mmm.models import ARCHITECTURES

REFERENCE = Path(
    os.environ.get("REFERENCE_LOGITS")
    or Path(__file__).parents[2] / "data" / "reference_logits.json"
)
CASES = [
    (f"{number}-{name}", name, case)
    for number, group in enumerate(json.loads(REFERENCE.read_text())["cases"])
    for name, case in group.items()
]


def formula(name: str, shape: list[int], scale: float, offset: float) -> torch.Tensor:
    index = torch.arange(math.prod(shape), dtype=torch.float64)
    return (offset + scale * torch.sin(0.7311 * index + zlib.crc32(name.encode()) % 1000)).reshape(
        shape
    )


def weight(name: str, shape: list[int]) -> torch.Tensor:
    if "norm" in name:
        return formula(name, shape, 0.1, 1.0 if name.endswith("weight") else 0.0)
    return formula(name, shape, 1 / math.sqrt(shape[1]) if len(shape) == 2 else 0.1, 0.0)


@pytest.mark.parametrize(
    ("name", "case"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_published_settings_compute_the_reference_logits(name: str, case: dict[str, Any]) -> None:
    settings = case["settings"]
    speech, text = (
        formula(key, case["inputs"][key], 1.0, 0.0) for key in ("input.speech", "input.text")
    )
    real = torch.tensor(case["context_present"] if "context" in settings else case["speech_frames"])
    speech_mask = torch.arange(speech.shape[1]) < real[:, None]
    speech[~speech_mask] = 0.0
    text_mask = torch.ones(text.shape[:2], dtype=torch.bool)
    shape = {
        key: settings[key]
        for key in (
            "context",
            "num_blocks",
            "layers",
            "heads",
            "classifier_hidden",
            "speech_positions",
            "text_positions",
        )
        if key in settings
    }
    if name != "cross_attention":
        shape["width"] = settings["width"]
    if name == "mlp_mixer":
        shape["residual"] = "published"
    model = (
        ARCHITECTURES[name](
            speech_width=speech.shape[-1],
            text_width=text.shape[-1],
            num_classes=7,
            masked=False,
            **shape,
        )
        .double()
        .eval()
    )
    model.load_state_dict({key: weight(key, size) for key, size in case["weights"].items()})
    with torch.no_grad():
        logits = model(speech, speech_mask, text, text_mask)
    assert torch.allclose(
        logits, torch.tensor(case["logits"], dtype=torch.float64), rtol=0, atol=1e-5
    )
