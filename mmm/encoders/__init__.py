"""Frozen encoders behind two small interfaces, and the way from a recipe back to its encoder."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mmm.store import Recipe

Floats = npt.NDArray[np.float32]


class SpeechEncoder(Protocol):
    """Turns 16 kHz mono speech into frames."""

    def recipe(self, feature: str) -> Recipe:
        """What makes `feature`, complete enough to build the same encoder again."""
        ...

    def encode(self, wave: Floats, features: Sequence[str]) -> dict[str, Floats]:
        """(S,) samples -> (T, D) for each of `features`, T at least 1."""
        ...


class TextEncoder(Protocol):
    """Turns an utterance with its history into tokens; position 0 stands for the whole."""

    def recipe(self) -> Recipe:
        """What makes the features, the context apart."""
        ...

    def encode(self, turns: Sequence[str]) -> Floats:
        """The current utterance, then those before it, most recent first -> (T, D), T from 1 to 128."""
        ...


def make_speech_encoder(name: str, *, frame_rate: float = 25.0, num_mels: int = 64) -> SpeechEncoder:
    """`fbank`, or a Hugging Face id or folder. Raises ValueError or FileNotFoundError."""
    if name == "fbank":
        from mmm.encoders.fbank import Fbank

        return Fbank(frame_rate=frame_rate, num_mels=num_mels)
    from mmm.encoders.huggingface import HuggingFaceSpeech  # transformers takes seconds to import

    return HuggingFaceSpeech(name)


def make_text_encoder(name: str, *, width: int = 256, max_tokens: int = 128) -> TextEncoder:
    """`char-ngram`, or a Hugging Face id or folder. Raises ValueError or FileNotFoundError."""
    if name == "char-ngram":
        from mmm.encoders.char_ngram import CharNgram

        return CharNgram(width=width, max_tokens=max_tokens)
    from mmm.encoders.huggingface import HuggingFaceText

    return HuggingFaceText(name)


def speech_encoder_of(recipe: Recipe) -> SpeechEncoder:
    """The encoder that made a store. Raises ValueError where what is installed would give other features."""
    if recipe["encoder"] == "fbank":
        encoder = make_speech_encoder("fbank", frame_rate=recipe["frame_rate_hz"], num_mels=recipe["num_mels"])
    else:
        from mmm.encoders.huggingface import HuggingFaceSpeech

        encoder = HuggingFaceSpeech(recipe["encoder"], revision=recipe["revision"])
    _same(encoder.recipe(recipe["feature"]), recipe)
    return encoder


def text_encoder_of(recipe: Recipe) -> TextEncoder:
    """The encoder that made a store. Raises ValueError where what is installed would give other features."""
    if recipe["encoder"] == "char-ngram":
        encoder = make_text_encoder("char-ngram", width=recipe["width"], max_tokens=recipe["max_tokens"])
    else:
        from mmm.encoders.huggingface import HuggingFaceText

        encoder = HuggingFaceText(recipe["encoder"], revision=recipe["revision"])
    _same(encoder.recipe(), {name: value for name, value in recipe.items() if name != "context"})
    return encoder


def _same(found: Recipe, wanted: Recipe) -> None:
    differing = {name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)}
    if differing:
        details = ", ".join(f"{name}: {found.get(name)!r} instead of {wanted.get(name)!r}" for name in sorted(differing))
        raise ValueError(f"encoder {wanted['encoder']!r} is not the one that made the features ({details})")
