"""Frozen encoders behind two small interfaces, and the way from a recipe back to its encoder."""

from collections.abc import Sequence
from pathlib import Path
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


def speech_encoder_of(recipe: Recipe, folder: Path | None = None) -> SpeechEncoder:
    """The encoder that made a store, from this machine alone; `folder` is where a local one lies now.

    Raises ValueError where it is not here, with how to get it, or where what is installed would give other features.
    """
    if recipe["encoder"] == "fbank":
        encoder = make_speech_encoder("fbank", frame_rate=recipe["frame_rate_hz"], num_mels=recipe["num_mels"])
    else:
        from mmm.encoders.huggingface import HuggingFaceSpeech

        where = _place(recipe, folder, "--audio-encoder")
        encoder = HuggingFaceSpeech(where, revision=recipe["revision"], only_local=True)
    _same(encoder.recipe(recipe["feature"]), recipe, folder)
    return encoder


def text_encoder_of(recipe: Recipe, folder: Path | None = None) -> TextEncoder:
    """As `speech_encoder_of`."""
    if recipe["encoder"] == "char-ngram":
        encoder = make_text_encoder("char-ngram", width=recipe["width"], max_tokens=recipe["max_tokens"])
    else:
        from mmm.encoders.huggingface import HuggingFaceText

        where = _place(recipe, folder, "--text-encoder")
        encoder = HuggingFaceText(where, revision=recipe["revision"], only_local=True)
    _same(encoder.recipe(), {name: value for name, value in recipe.items() if name != "context"}, folder)
    return encoder


def _place(recipe: Recipe, folder: Path | None, option: str) -> str:
    """Id or folder to load an encoder from. Raises FileNotFoundError where a local one's folder is not there."""
    if "files_sha256" not in recipe:
        return str(recipe["encoder"])  # a hub's: found in the cache by id and revision
    place = folder or Path(recipe["encoder"])
    if not place.is_dir():
        raise FileNotFoundError(f"{place}: the folder of the encoder that the features were made with is not on this machine; copy it "
                                f"from where they were made and say where it is: {option} FOLDER")  # fmt: skip
    return str(place)


def _same(found: Recipe, wanted: Recipe, folder: Path | None) -> None:
    differing = {name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)}
    if folder is not None:
        differing -= {"encoder"}  # it moved; its files are compared
    if differing:
        details = ", ".join(f"{name}: {found.get(name)!r} instead of {wanted.get(name)!r}" for name in sorted(differing))
        raise ValueError(f"encoder {wanted['encoder']!r} is not the one that made the features ({details})")
