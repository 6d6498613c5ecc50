"""A recipe: what made the features of a store, hashed into its folder's name."""

from typing import Literal, TypedDict

from mmm.files import sha256_of_json

AUDIO_FEATURES = ("hidden_state", "extract_feature")
CONTEXTS = (1, 2, 3, 4, 5)  # utterances, the current one included
MAX_CONTEXT = CONTEXTS[-1]


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
    max_tokens: int


def recipe_hash(recipe: Recipe) -> str:
    """Name of the folder that a recipe's features live in (16 hex digits)."""
    return sha256_of_json(recipe)[:16]
