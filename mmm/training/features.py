"""Features of one manifest, found in a folder of stores."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmm.features.encode_command import encode_command
from mmm.features.keys import keys_of
from mmm.features.named import find_store, find_store_of
from mmm.features.recipe import Recipe
from mmm.features.same_audio import check_audio_is_the_same
from mmm.features.store import FeatureStore, list_recipes
from mmm.manifest import Manifest
from mmm.training.config import Dims, TrainConfig
from mmm.training.vectors import Vector, num_layers, speech_vectors

# Published.
_SPEECH_POSITIONS = 512  # about 10 s of Wav2Vec2 frames
_TEXT_POSITIONS = 128


@dataclass(frozen=True)
class Features:
    """Features of one manifest for one (audio feature, context), with rows in the manifest's
    order.
    """

    manifest: Manifest
    speech: FeatureStore
    text: FeatureStore
    speech_rows: Tensor  # (N,) row of each utterance in the speech store
    text_rows: Tensor
    # (N, K) manifest index of each turn, most recent first, -1 where the dialogue has none
    turns: Tensor
    max_speech_length: int
    max_text_length: int
    # What was computed once: statistics of training rows, by whether they are of pooled vectors,
    # and by the rows.
    statistics: dict[tuple[bool, str, bytes], dict[str, Tensor]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _vectors: dict[str, Vector] = field(default_factory=dict, init=False, repr=False, compare=False)

    def vectors(self, config: TrainConfig) -> Vector:
        """(M, V) the vector of each row of the speech store, for the pooled systems."""
        key = vectors_key(config)
        if key not in self._vectors:
            pooling, mix = config.pooling or "mean", config.layer_mix or "one"
            self._vectors[key] = speech_vectors(self.speech, pooling, mix)
        return self._vectors[key]


def vectors_key(config: TrainConfig) -> str:
    """What vectors of a store differ in."""
    return f"{config.pooling} {config.layer_mix}"


def load_features(
    manifest: Manifest,
    features_dir: Path,
    audio_feature: str,
    context: int,
    speech: str | None = None,
    text: str | None = None,
) -> Features:
    """Map the stores of the encoders `speech` and `text`, by name or identity; None: the only one
    of its kind. Raises FileNotFoundError or ValueError, saying what is missing and what to run.
    """
    return _lined_up(
        manifest,
        features_dir,
        find_store(features_dir, "audio", manifest.path, name=speech, feature=audio_feature),
        find_store(features_dir, "text", manifest.path, name=text, context=context),
    )


def load_features_of(
    manifest: Manifest, features_dir: Path, speech: Recipe, text: Recipe
) -> Features:
    """Of exactly these recipes, whatever they are called in the folder. Raises as `load_features`,
    where a folder has other features saying what they differ in.
    """
    speech_store, text_store = (
        find_store_of(features_dir, recipe, manifest.path) for recipe in (speech, text)
    )
    return _lined_up(manifest, features_dir, speech_store, text_store)


def _lined_up(
    manifest: Manifest, features_dir: Path, speech: FeatureStore, text: FeatureStore
) -> Features:
    context = text.recipe["context"]
    indices = range(len(manifest.utterances))
    recipes = list_recipes(features_dir).values()
    again = f"run: {encode_command(manifest.path, features_dir, recipes)}"
    rows = {}
    for name, store, keys in (
        ("speech", speech, keys_of(manifest, speech.recipe)),
        ("text", text, keys_of(manifest, text.recipe)),
    ):
        rows[name] = store.find(keys)
        missing = np.flatnonzero(rows[name] < 0)
        if len(missing):
            first = manifest.utterances[missing[0]].utterance_id
            raise ValueError(
                f"{store.path}: no {name} features for {len(missing)} of {len(keys)} utterances of "
                f"{manifest.path} (the first: {first!r}), was the manifest changed? {again}"
            )
    check_audio_is_the_same(manifest, speech, rows["speech"], again)
    turns = np.full((len(indices), context), -1, dtype=np.int64)
    for index in indices:
        history = manifest.history(index, context)
        turns[index, : len(history)] = history
    # The test split stays sealed, its lengths too: it must not decide a model's size.
    seen = [index for index in indices if manifest.utterances[index].split != "test"]
    return Features(
        manifest,
        speech,
        text,
        speech_rows=torch.from_numpy(rows["speech"]),
        text_rows=torch.from_numpy(rows["text"]),
        turns=torch.from_numpy(turns),
        max_speech_length=int(np.diff(speech.offsets)[rows["speech"][seen]].max()),
        max_text_length=int(np.diff(text.offsets)[rows["text"][seen]].max()),
    )


def dims_of(features: Features, config: TrainConfig) -> Dims:
    """Sizes for a model. Published systems have 512 speech and 128 text positions; others the
    longest, up to these. Raises ValueError where there is nothing to tell apart.
    """
    if len(features.manifest.classes) < 2:
        raise ValueError(
            f"{features.manifest.path}: every labelled row of train is"
            f" {features.manifest.classes[0]!r}; expected two labels or more"
        )
    speech, text = _SPEECH_POSITIONS, _TEXT_POSITIONS
    if config.masked:
        speech, text = min(speech, features.max_speech_length), min(text, features.max_text_length)
    width = features.vectors(config).shape[1] if config.is_pooled else features.speech.width
    return Dims(
        width,
        features.text.width,
        speech,
        text,
        len(features.manifest.classes),
        num_layers(features.speech.recipe, config.layer_mix),
    )
