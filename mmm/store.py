"""Feature stores: one folder per encoder recipe with ragged float16 values that all processes of a machine map.

`features/<hash of recipe.json>/` holds
  recipe.json   what made the features: encoder, version, layer, rates, context
  values.npy    (sum of lengths, width) float16
  offsets.npy   (N + 1,) int64: utterance i is values[offsets[i]:offsets[i + 1]]
  pooled.npy    (N, width) float16: one vector an utterance, for the concat systems
  keys.npy      (N,) uint64: hash of each utterance's id and source, the way back from a manifest
  stamps.npy    (N, 2) int64: size in bytes and mtime in ns of the audio read (zeros for text)
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mmm.files import sha256_of_json

Recipe = dict[str, Any]
AUDIO_FEATURES = ("hidden_state", "extract_feature")
MAX_CONTEXT = 5  # utterances, the current one included


def utterance_key(utterance_id: str, source: str) -> int:
    """64-bit key of an utterance and of what its features were made from (audio path, or text with its context)."""
    digest = hashlib.blake2b(f"{utterance_id}\0{source}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def recipe_hash(recipe: Recipe) -> str:
    """Name of the folder that a recipe's features live in (16 hex digits)."""
    return sha256_of_json(recipe)[:16]


def pool(values: npt.NDArray[np.float16], kind: str) -> npt.NDArray[np.float16]:
    """(T, D) -> (D,): the mean over T of speech, position 0 of text, from the stored float16 values."""
    if kind == "text":
        first: npt.NDArray[np.float16] = values[0]
        return first
    mean: npt.NDArray[np.float16] = values.mean(axis=0, dtype=np.float32).astype(np.float16)
    return mean


class Encoded(NamedTuple):
    """What a store keeps of one utterance: `values` (T, D), and the vector that stands for the whole, `pooled` (D,)."""

    values: npt.NDArray[np.float16]
    pooled: npt.NDArray[np.float16]


def encoded(frames: npt.NDArray[np.floating], kind: str, frames_per_mean: int = 1) -> Encoded:
    """Of an encoder's frames (or tokens) (T, D): rounded, pooled, and so many neighbours as their mean, (ceil(T / n), D).

    Pooled before frames are averaged: the last mean may be of fewer frames, and the mean of all must not depend on that.
    """
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused by the store
        rounded = frames.astype(np.float16)
    pooled = pool(rounded, kind) if len(rounded) else np.zeros(rounded.shape[1:], dtype=np.float16)
    if frames_per_mean > 1 and len(rounded):
        starts = np.arange(0, len(rounded), frames_per_mean)
        counts = np.diff([*starts, len(rounded)])
        sums = np.add.reduceat(rounded.astype(np.float32), starts, axis=0)
        rounded = (sums / counts[:, None].astype(np.float32)).astype(np.float16)
    return Encoded(rounded, pooled)


@dataclass(frozen=True)
class FeatureStore:
    """Features of one recipe, memory-mapped."""

    path: Path
    recipe: Recipe
    values: npt.NDArray[np.float16]
    offsets: npt.NDArray[np.int64]
    pooled: npt.NDArray[np.float16]
    keys: npt.NDArray[np.uint64]
    stamps: npt.NDArray[np.int64]

    @property
    def width(self) -> int:
        return int(self.values.shape[1])

    def find(self, keys: Sequence[int]) -> npt.NDArray[np.int64]:
        """Row of each key, -1 where the store does not have it."""
        order = np.argsort(self.keys)
        wanted = np.asarray(keys, dtype=np.uint64)
        place = np.searchsorted(self.keys, wanted, sorter=order)
        rows = order[np.minimum(place, len(order) - 1)]
        return np.where(self.keys[rows] == wanted, rows, -1)


def open_store(path: Path) -> FeatureStore:
    """Map a store's files. Raises FileNotFoundError, or ValueError where the files disagree."""
    recipe = json.loads((path / "recipe.json").read_text())
    # Copy-on-write maps: nothing is copied while nobody writes, and torch accepts them without a warning.
    values = np.load(path / "values.npy", mmap_mode="c", allow_pickle=False)
    pooled = np.load(path / "pooled.npy", mmap_mode="c", allow_pickle=False)
    offsets, keys, stamps = (np.load(path / f"{name}.npy", allow_pickle=False) for name in ("offsets", "keys", "stamps"))
    if offsets[-1] != len(values) or not len(keys) == len(pooled) == len(stamps) == len(offsets) - 1:
        raise ValueError(f"{path}: the feature store's files disagree; remove the folder and run mmm encode again")
    return FeatureStore(path, recipe, values, offsets, pooled, keys, stamps)


def list_recipes(features: Path) -> dict[Path, Recipe]:
    """Every store below a features folder with its recipe."""
    if not features.is_dir():
        raise FileNotFoundError(f"{features}: no such features folder; run: mmm encode manifest.csv --features {features}")
    return {file.parent: json.loads(file.read_text()) for file in sorted(features.glob("[!.]*/recipe.json"))}
