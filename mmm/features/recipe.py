"""A recipe: what made the features of a store, hashed into its folder's name."""

from typing import Literal, TypedDict

from mmm.files import sha256_of_json

AUDIO_FEATURES = ("hidden_state", "extract_feature")
CONTEXTS = (1, 2, 3, 4, 5)  # utterances, the current one included; encoded where nothing is said
MAX_CONTEXT = 16
_PUBLISHED_TOKENS = 128
_MOST_TOKENS = 512  # of BERT and its descendants


class Recipe(TypedDict, total=False):
    """The content of recipe.json: of an encoder the entries that it has. An entry that decides what
    the numbers are belongs here.
    """

    kind: Literal["audio", "text"]
    encoder: str  # fbank, char-ngram, a Hugging Face id, or the folder of a model
    version: int  # of our code for it
    revision: str | None  # a hub's commit; None of a folder
    files_sha256: str  # of a folder's files
    precision: str
    # Of speech
    feature: str
    layer: str
    frame_rate_hz: float
    num_mels: int
    chunk_s: float
    sample_rate_hz: int
    # Of text
    context: int
    width: int
    max_tokens: int  # that are read; a store keeps 128 of them at most
    pooling: str  # mean: what position 0 is of a pretrained model; absent: its own first token
    speakers: bool  # "NAME: text" before each turn; absent: text alone


def tokens_read(context: int) -> int:
    """Tokens that a pretrained text model is given at most, if it has positions for them: as
    published up to context 5, of more turns four times as many.
    """
    return _PUBLISHED_TOKENS if context <= CONTEXTS[-1] else _MOST_TOKENS


def without_context(recipe: Recipe) -> Recipe:
    """Which text encoder it is, whatever it is given to read."""
    found: Recipe = {**recipe}
    found.pop("context", None)
    found.pop("speakers", None)
    if found["encoder"] != "char-ngram":
        found.pop("max_tokens", None)  # follows from the context
    return found


def recipe_hash(recipe: Recipe) -> str:
    """Name of the folder that a recipe's features live in (16 hex digits)."""
    return sha256_of_json(recipe)[:16]
