"""By which keys a store's rows are found again from a manifest."""

from mmm.features.recipe import Recipe
from mmm.manifest import Manifest, speech_key, text_key


def keys_of(manifest: Manifest, recipe: Recipe) -> list[int]:
    """The key of each utterance in a store of this recipe: of its clip, or of its text with its
    context, and with who speaks where the features have that.
    """
    indices = range(len(manifest.utterances))
    if recipe["kind"] == "audio":
        return [speech_key(manifest, index) for index in indices]
    with_speakers = recipe.get("speakers", False)
    return [text_key(manifest, index, recipe["context"], with_speakers) for index in indices]
