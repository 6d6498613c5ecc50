"""A recipe: what made the features of a store, hashed into its folder's name."""

import math
from typing import Literal, TypedDict

from mmm.files import sha256_of_json

AUDIO_FEATURES = ("hidden_state", "extract_feature")
# The pooled vectors of several layers: L means over all frames, then L deviations, in the place of
# frames, (2 L, D).
LAYERS = "layers"
CONTEXTS = (1, 2, 3, 4, 5)  # utterances, the current one included; encoded where nothing is said
MAX_CONTEXT = 16
_PUBLISHED_TOKENS = 128
_MOST_TOKENS = 512  # of BERT and its descendants


class Recipe(TypedDict, total=False):
    """The content of recipe.json: of an encoder the entries that it has. An entry that decides what
    the numbers are belongs here.
    """

    kind: Literal["audio", "text"]
    encoder: str  # fbank, voice, char-ngram, a Hugging Face id, or the folder of a model
    version: int  # of our code for it
    revision: str | None  # a hub's commit; None of a folder
    files_sha256: str  # of a folder's files, or of the one that voice reads
    precision: str
    # Of speech
    feature: str
    layer: str
    frame_rate_hz: float
    num_mels: int
    chunk_s: float
    padding_s: float  # Whisper's silence after speech, where it is not up to 30 s
    sample_rate_hz: int
    # Of text
    context: int
    width: int
    max_tokens: int  # that are read; a store keeps 128 of them at most
    pooling: str  # mean: what position 0 is of a pretrained model; absent: its own first token
    speakers: bool  # "NAME: text" before each turn; absent: text alone


def checked_recipe(content: object) -> Recipe:
    """What a file says is a recipe, as one; entries that this version does not know stay. Raises
    ValueError where it is none.
    """
    if not isinstance(content, dict):
        raise ValueError("not a recipe, which is a JSON object")
    own = "feature" if content.get("kind") == "audio" else "context"
    faults = [f"{name} is missing" for name in ("kind", "encoder", own) if name not in content]
    faults += [
        f"{name} is {value!r:.40}"
        for name, value in content.items()
        if not (name == "revision" and value is None) and not _can_be(name, value)
    ]
    if faults:
        raise ValueError(f"not a recipe: {'; '.join(faults)}")
    recipe: Recipe = content  # type: ignore[assignment]
    return recipe


def _can_be(name: str, value: object) -> bool:
    match name:
        case "kind":
            return value in ("audio", "text")
        case "feature":
            return value in (*AUDIO_FEATURES, LAYERS)
        case "context":
            return type(value) is int and 1 <= value <= MAX_CONTEXT
        case "speakers":
            return isinstance(value, bool)
        case "frame_rate_hz" | "chunk_s" | "padding_s":
            if isinstance(value, bool) or not isinstance(value, int | float):
                return False
            return math.isfinite(value) and value >= (name == "frame_rate_hz")
        case "version" | "num_mels" | "sample_rate_hz" | "width" | "max_tokens":
            return type(value) is int and value >= 1
        case "encoder" | "revision" | "files_sha256" | "precision" | "layer" | "pooling":
            return isinstance(value, str) and value.strip() != ""
    return True


def tokens_read(context: int) -> int:
    """Tokens that a pretrained text model is given at most, if it has positions for them: as
    published up to context 5, of more turns four times as many.
    """
    return _PUBLISHED_TOKENS if context <= CONTEXTS[-1] else _MOST_TOKENS


def recipe_hash(recipe: Recipe) -> str:
    """Name of the folder that a recipe's features live in (16 hex digits)."""
    return sha256_of_json(recipe)[:16]


def identity_of(recipe: Recipe) -> str:
    """16 hex digits that stand for an encoder, whichever of its features or contexts it is."""
    core: Recipe = {**recipe}
    core.pop("feature", None)
    core.pop("context", None)
    if _reads_as_many_as_the_context_asks(recipe):
        core.pop("max_tokens", None)
    return recipe_hash(core)


def _reads_as_many_as_the_context_asks(recipe: Recipe) -> bool:
    """Whether the tokens that are read follow from the context, as of pretrained text models."""
    return recipe["kind"] == "text" and recipe["encoder"] != "char-ngram"


def belongs_to(encoder: Recipe, recipe: Recipe) -> bool:
    """Whether a store of `recipe` is of the encoder that made one of `encoder`.

    Features of convolutions have no layer, and pooled vectors of all layers no frame rate: those
    are every layer's.
    """
    names = (encoder.keys() | recipe.keys()) - {"context", "feature"}
    if _reads_as_many_as_the_context_asks(recipe):
        names -= {"max_tokens"}
    if recipe.get("feature") != encoder.get("feature"):
        names -= {"layer"}
    if LAYERS in (recipe.get("feature"), encoder.get("feature")):
        names -= {"frame_rate_hz"}
    return all(encoder.get(name) == recipe.get(name) for name in names)
