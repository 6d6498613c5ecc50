"""The vector that stands for an utterance's speech in the pooled systems: how frames are pooled,
and which layers of the encoder it is made of.

Mean and deviation are the first two moments of x-vectors' statistics pooling (Snyder et al. 2018);
a learned mix of layers is the protocol of SUPERB (Yang et al. 2021, arXiv:2105.01051).
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from mmm.features.recipe import LAYERS, Recipe
from mmm.features.store import Encoded, FeatureStore

Vector = npt.NDArray[np.float16]


def speech_vector(encoded: Encoded, recipe: Recipe, pooling: str, layer_mix: str) -> Vector:
    """(V,) of an utterance's features, as a store of `recipe` keeps them.

    Of frames (T, D) the mean of all the encoder's, and with `mean_std` the deviation of those that
    are kept beside it. Of the pooled vectors of L layers, (2 L, D), their mean, or with `learned`
    all of them side by side, for the model to weigh.
    """
    if recipe.get("feature") != LAYERS:
        if pooling == "mean":
            return encoded.pooled
        deviation = encoded.values.astype(np.float32).std(axis=0).astype(np.float16)
        return np.concatenate([encoded.pooled, deviation])
    means, deviations = np.split(encoded.values, 2)
    parts = means if pooling == "mean" else np.concatenate([means, deviations], axis=1)
    if layer_mix == "learned":
        return parts.reshape(-1)
    mixed: Vector = parts.mean(axis=0, dtype=np.float32).astype(np.float16)
    return mixed


def speech_vectors(store: FeatureStore, pooling: str, layer_mix: str) -> Vector:
    """(M, V) of every row of a store. The mean of frames is there already, others are made now;
    `attentive` pooling looks at none.
    """
    if pooling == "attentive":
        return store.pooled
    if store.recipe.get("feature") != LAYERS and pooling == "mean":
        return store.pooled
    store.check("values")
    return np.stack([speech_vector(one, store.recipe, pooling, layer_mix) for one in _rows(store)])


def num_layers(recipe: Recipe, layer_mix: str | None) -> int:
    """How many layers lie side by side in a vector."""
    return len(recipe["layer"].split(",")) if layer_mix == "learned" else 1


def _rows(store: FeatureStore) -> Iterator[Encoded]:
    for row in range(len(store.pooled)):
        values = store.values[store.offsets[row] : store.offsets[row + 1]]
        yield Encoded(values, store.pooled[row])
