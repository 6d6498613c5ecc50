"""Encoders by their names, and again from a recipe."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mmm.encoders import (
    DEFAULT_CHUNK_S,
    ON_CPU,
    WHISPER_WINDOW_S,
    Running,
    SpeechEncoder,
    TextEncoder,
)
from mmm.encoders.pretrained import WrongEncoder
from mmm.features.recipe import LAYERS, Recipe

SPEECH_ENCODERS, TEXT_ENCODERS = ("fbank", "voice"), ("char-ngram",)  # that are built in


def make_speech_encoder(
    name: str,
    *,
    frame_rate: float | None = None,
    num_mels: int = 64,
    layer: str = "last",
    layers: str | None = None,
    revision: str | None = None,
    running: Running = ON_CPU,
    lazy: bool = False,
    only_local: bool = False,
) -> SpeechEncoder:
    """`fbank`, `voice`, or a Hugging Face id or folder; `lazy` leaves the weights on the disk,
    `only_local` asks no network.

    `frame_rate`: frames a second that are kept; None is 25 of fbank, and every frame of a
    pretrained model. Raises ValueError or FileNotFoundError.
    """
    if name == "fbank":
        if layer != "last" or layers is not None:
            raise ValueError(
                f"--layer {layers or layer} is for pretrained speech models; fbank has no layers"
            )
        from mmm.encoders.fbank import FRAME_RATE_HZ, Fbank

        rate = FRAME_RATE_HZ if frame_rate is None else frame_rate
        return Fbank(frame_rate=rate, num_mels=num_mels)
    if name == "voice":
        from mmm.encoders.voice import Voice

        return Voice(layer=layer, layers=layers, frame_rate=frame_rate)
    if name in TEXT_ENCODERS:
        raise WrongEncoder(name, "text", "a text encoder", "a speech encoder")
    from mmm.encoders.huggingface_speech import HuggingFaceSpeech

    encoder = HuggingFaceSpeech(
        name,
        revision=revision,
        layer=layer,
        layers=layers,
        frame_rate=frame_rate,
        running=running,
        only_local=only_local,
    )
    if not lazy:
        encoder.load()
    return encoder


def make_text_encoder(
    name: str,
    *,
    width: int = 256,
    max_tokens: int = 128,
    revision: str | None = None,
    pooling: str = "auto",
    running: Running = ON_CPU,
    lazy: bool = False,
    only_local: bool = False,
) -> TextEncoder:
    """`char-ngram`, or a Hugging Face id or folder; `lazy` leaves the weights on the disk,
    `only_local` asks no network.

    Raises ValueError or FileNotFoundError.
    """
    if name == "char-ngram":
        from mmm.encoders.char_ngram import CharNgram

        return CharNgram(width=width, max_tokens=max_tokens)
    if name in SPEECH_ENCODERS:
        raise WrongEncoder(name, "speech", "a speech encoder", "a text encoder")
    from mmm.encoders.huggingface_text import HuggingFaceText

    encoder = HuggingFaceText(
        name, revision=revision, pooling=pooling, running=running, only_local=only_local
    )
    if not lazy:
        encoder.load()
    return encoder


def speech_encoder_of(recipe: Recipe, folder: Path | None = None) -> SpeechEncoder:
    """The encoder that made a store, from this machine alone; `folder` is where a local one lies
    now.

    Raises ValueError where it is not here, with how to get it, or where what is installed would
    give other features.
    """
    _has(recipe, {"fbank": ("frame_rate_hz", "num_mels"), "voice": ("layer",)})
    is_layers = recipe["feature"] == LAYERS
    if recipe["encoder"] == "fbank":
        encoder = make_speech_encoder(
            "fbank", frame_rate=recipe["frame_rate_hz"], num_mels=recipe["num_mels"]
        )
    elif recipe["encoder"] == "voice":
        encoder = make_speech_encoder(
            "voice",
            layer="last" if is_layers else recipe["layer"],
            layers=recipe["layer"] if is_layers else None,
            frame_rate=recipe.get("frame_rate_hz"),
        )
    else:
        encoder = make_speech_encoder(
            _place(recipe, folder, "--audio-encoder"),
            revision=recipe["revision"],
            layer="last" if is_layers else recipe.get("layer", "last"),
            layers=recipe["layer"] if is_layers else None,
            frame_rate=recipe.get("frame_rate_hz"),
            running=Running(
                precision=recipe.get("precision", "float32"),
                chunk_s=recipe.get("chunk_s", DEFAULT_CHUNK_S),
                padding_s=recipe.get("padding_s", WHISPER_WINDOW_S),
            ),
            lazy=True,
            only_local=True,
        )
    _same(encoder.recipe(recipe["feature"]), recipe, folder)
    encoder.load()
    return encoder


def text_encoder_of(recipe: Recipe, folder: Path | None = None) -> TextEncoder:
    """As `speech_encoder_of`."""
    _has(recipe, {"char-ngram": ("width", "max_tokens")})
    if recipe["encoder"] == "char-ngram":
        encoder = make_text_encoder(
            "char-ngram", width=recipe["width"], max_tokens=recipe["max_tokens"]
        )
    else:
        encoder = make_text_encoder(
            _place(recipe, folder, "--text-encoder"),
            revision=recipe["revision"],
            pooling=recipe.get("pooling", "first"),
            running=Running(precision=recipe.get("precision", "float32")),
            lazy=True,
            only_local=True,
        )
    encoder = encoder.for_context(recipe.get("context", 1))
    wanted = {name: value for name, value in recipe.items() if name not in ("context", "speakers")}
    _same(encoder.recipe(), wanted, folder)
    encoder.load()
    return encoder


def _has(recipe: Recipe, built_in: Mapping[str, Sequence[str]]) -> None:
    """Raises ValueError where the recipe lacks what its encoder is made with."""
    wanted = [*built_in.get(recipe["encoder"], ("revision",))]
    if recipe.get("feature") == LAYERS:
        wanted.append("layer")
    if lacking := [name for name in wanted if name not in recipe]:
        raise ValueError(f"the recipe of {recipe['encoder']!r} lacks {', '.join(lacking)}")


def _place(recipe: Recipe, folder: Path | None, option: str) -> str:
    """Id or folder to load an encoder from. Raises FileNotFoundError where a local one's folder is
    not there.
    """
    if "files_sha256" not in recipe:
        return recipe["encoder"]  # a hub's: found in the cache by id and revision
    place = folder or Path(recipe["encoder"])
    if not place.is_dir():
        raise FileNotFoundError(
            f"{place}: the folder of the encoder that the features were made with is not on this"
            f" machine; copy it from where they were made and say where it is: {option} FOLDER"
        )
    return str(place)


def _same(found: Mapping[str, object], wanted: Mapping[str, object], folder: Path | None) -> None:
    differing = {
        name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)
    }
    if folder is not None:
        differing -= {"encoder"}  # it moved; its files are compared
    if differing:
        details = ", ".join(
            f"{name}: {found.get(name)!r} instead of {wanted.get(name)!r}"
            for name in sorted(differing)
        )
        raise ValueError(
            f"encoder {wanted['encoder']!r} is not the one that made the features ({details})"
        )
