"""Frozen encoders behind two small interfaces, and the way from a recipe back to its encoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from mmm.features.recipe import AUDIO_FEATURES, Recipe

Floats = npt.NDArray[np.float32]
# Which utterances may share a batch: of any lengths, of one length only (padding would change their
# features), or it makes no difference because they are encoded one after another anyway.
Batching = Literal["masked", "equal", "loop"]
DEFAULT_CHUNK_S = 35.0
WHISPER_WINDOW_S = 30.0  # what it was trained on: speech, and silence up to that length


@dataclass(frozen=True)
class Running:
    """How a pretrained encoder runs. All but `device` can be seen in the features, so it is in the
    recipe.
    """

    device: str = "cpu"
    precision: str = "float32"
    chunk_s: float = DEFAULT_CHUNK_S  # longer speech is cut
    padding_s: float = WHISPER_WINDOW_S  # silence after Whisper's speech, up to its window


ON_CPU = Running()


class SpeechEncoder(Protocol):
    """Turns 16 kHz mono speech into frames.

    `features` are named as the recipe's entry: `hidden_state` is the layer that it was made with.
    One that was made with several layers has those too, in the same pass: `hidden_state@4` is layer
    4, and `layers` the mean over time of each of them and then the deviation, (2 L, D).
    """

    batching: Batching

    def load(self, *, weights: bool = True) -> None:
        """Read what `width` and `num_frames` need, and the weights, once. Raises ValueError."""
        ...

    def recipe(self, feature: str) -> Recipe:
        """What makes `feature`, complete enough to build the same encoder again."""
        ...

    def width(self, feature: str) -> int:
        """Raises ValueError where the encoder does not have the feature."""
        ...

    def features(self) -> Sequence[str]:
        """Those of AUDIO_FEATURES that the encoder has; read from its configuration."""
        ...

    def several_layers(self) -> Sequence[str]:
        """The layers that it was made with beside its own. Raises ValueError."""
        ...

    def frames_per_mean(self, feature: str) -> int:
        """How many neighbouring frames a store keeps as their mean; 1 keeps each."""
        ...

    def num_frames(self, num_samples: int, feature: str) -> int:
        """What a store keeps of so many 16 kHz samples, before they are encoded: frames, or means
        of several.
        """
        ...

    def encode(self, wave: Floats, features: Sequence[str]) -> dict[str, Floats]:
        """(S,) samples -> every frame, (T, D) for each of `features`, T at least 1."""
        ...

    def encode_batch(
        self, waves: Sequence[Floats], features: Sequence[str]
    ) -> list[dict[str, Floats]]:
        """The same for several at once."""
        ...


def at_layer(layer: str) -> str:
    """The feature that is a layer by its number or name."""
    return f"{AUDIO_FEATURES[0]}@{layer}"


def layer_of(feature: str) -> str | None:
    """Which layer a feature names; None: the encoder's own."""
    return feature.partition("@")[2] or None


def layer_statistics(layers: Sequence[Floats]) -> Floats:
    """Frames (T, D) of L layers -> the mean over time of each, then the deviation of each,
    (2 L, D).
    """
    means = [frames.mean(axis=0) for frames in layers]
    return np.stack([*means, *(frames.std(axis=0) for frames in layers)])


class TextEncoder(Protocol):
    """Turns an utterance with its history into tokens; position 0 stands for the whole."""

    batching: Batching

    def load(self, *, weights: bool = True) -> None:
        """Read what `width` and `num_tokens` need, and the weights, once. Raises ValueError."""
        ...

    def recipe(self) -> Recipe:
        """What makes the features, the context apart."""
        ...

    def for_context(self, context: int) -> "TextEncoder":
        """The same encoder, sharing what is loaded, that reads as much of `context` turns as it
        is to.
        """
        ...

    def width(self) -> int: ...

    def num_tokens(self, all_turns: Sequence[Sequence[str]]) -> list[int]:
        """Tokens that a store keeps of each utterance with its history, before they are encoded."""
        ...

    def encode(self, turns: Sequence[str]) -> Floats:
        """The current utterance, then those before it, most recent first -> (T, D), T from 1 to
        128.
        """
        ...

    def encode_batch(self, all_turns: Sequence[Sequence[str]]) -> list[Floats]: ...
