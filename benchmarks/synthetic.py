"""Two made-up tasks over the space `full`, so that tuning a search to one recording shows.

`crossing`: what learns slowly ends best, so early rungs mislead. `interactions`: the best learning
rate depends on architecture and batch size, the best dropout on the width, the best balance on the
speech feature.
"""

import math
from typing import Any

import numpy as np

from benchmarks.recording import Curve
from spaces import SPACES

EPOCHS = 27
NOISE = 0.012  # standard deviation of an epoch's score
_SECONDS = {
    "vanilla_concat": 0.2,
    "three_way_concat": 0.5,
    "cross_attention": 1.5,
    "mlp_mixer": 2.0,
}


class SyntheticTask:
    def __init__(self, name: str) -> None:
        assert name in ("crossing", "interactions")
        self.name, self.epochs, self.space = name, EPOCHS, SPACES["full"]

    def restart(self) -> None:
        pass

    def curve(self, params: dict[str, Any], rng: np.random.Generator) -> Curve:
        final, pace = (
            self._crossing(params) if self.name == "crossing" else self._interactions(params)
        )
        epochs = np.arange(1, self.epochs + 1)
        true = 0.1 + (final - 0.1) * (1 - np.exp(-epochs / pace))
        size = (
            params.get("width", 128) / 128 * params.get("num_blocks", 1) * params.get("layers", 1)
        )
        seconds = _SECONDS[params["architecture"]] * size**0.5 * (32 / params["batch_size"]) ** 0.3
        return Curve(true + rng.normal(0, NOISE, self.epochs), true, np.full(self.epochs, seconds))

    @staticmethod
    def _crossing(params: dict[str, Any]) -> tuple[float, float]:
        best = {
            "vanilla_concat": 0.40,
            "three_way_concat": 0.44,
            "cross_attention": 0.49,
            "mlp_mixer": 0.52,
        }
        pace = {
            "vanilla_concat": 2.0,
            "three_way_concat": 3.0,
            "cross_attention": 5.0,
            "mlp_mixer": 8.0,
        }
        rate = (
            math.log10(params["lr"]) + 3.5
        )  # lower learns more slowly and ends better, down to a point
        final = (
            best[params["architecture"]]
            - 0.06 * (rate + 0.3) ** 2
            - 0.15 * (params["dropout"] - 0.35) ** 2
        )
        final -= 0.008 * abs(params["context"] - 4) + {"none": 0.03, "inverse": 0.02}.get(
            params["balance"], 0.0
        )
        return (
            final,
            pace[params["architecture"]] * 10 ** (-0.5 * rate) * (params["batch_size"] / 32) ** 0.4,
        )

    @staticmethod
    def _interactions(params: dict[str, Any]) -> tuple[float, float]:
        shift = {
            "vanilla_concat": 0.3,
            "three_way_concat": 0.1,
            "cross_attention": -0.4,
            "mlp_mixer": -0.1,
        }
        top = (
            math.log10(1e-3)
            + shift[params["architecture"]]
            + 0.5 * math.log2(params["batch_size"] / 32) * 0.5
        )
        size = math.log2(params.get("width", 128 * params.get("layers", 1)) / 128)
        final = (
            0.5
            - 0.12 * (math.log10(params["lr"]) - top) ** 2
            - 0.4 * (params["dropout"] - 0.25 - 0.15 * size) ** 2
        )
        agrees = (params["balance"] in ("sqrt_inverse", "weighted_sampling")) == (
            params["audio_feature"] == "hidden_state"
        )
        final -= 0.0 if agrees else 0.04
        if params["architecture"] == "mlp_mixer":
            final += 0.02 - 0.01 * abs(params["num_blocks"] - 2) - 0.01 * abs(params["context"] - 2)
        else:
            final -= 0.012 * abs(params["context"] - 3)
        return final, 4.0
