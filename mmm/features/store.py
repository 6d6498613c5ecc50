"""Feature stores: one folder per encoder recipe with ragged float16 values that all processes of a
machine map.

`features/<hash of recipe.json>/` holds
  recipe.json   what made the features: encoder, version, layer, rates, context
  values.npy    (sum of lengths, width) float16
  offsets.npy   (M + 1,) int64: row i is values[offsets[i]:offsets[i + 1]]
  pooled.npy    (M, width) float16: one vector a row, for the pooled systems
  keys.npy      (N,) uint64: hash of each utterance's id and source, the way back from a manifest
  rows.npy      (N,) int64: row of each utterance; only where several share a clip, else M = N and
                utterance i has row i
  stamps.npy    (M, 2) int64: size in bytes and mtime in ns of the audio read (zeros for text)
  audio_hashes.npy  (M, 16) uint8: BLAKE2b of the audio's bytes (zeros for text, and where it is not
                    known)
  checksums.json    of all the files above (mmm/features/checksums.py)

Stores of earlier versions have a row for each utterance, and may lack the last two.
"""

import contextlib
import io
import shlex
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from mmm.features.checksums import Checksums, header_checksum, read_checksums
from mmm.features.encode_command import MANIFEST, encode_command
from mmm.features.recipe import (
    AUDIO_FEATURES,
    MAX_CONTEXT,
    Recipe,
    belongs_to,
    checked_recipe,
    recipe_hash,
    tokens_read,
)
from mmm.files import parse_json

AUDIO_HASH_BYTES = 16
LARGE_FILES = ("values.npy", "pooled.npy")
_OTHER_CHECKSUM = "its checksum is not the recorded one"
SMALL_FILES = ("recipe.json", "offsets.npy", "keys.npy", "stamps.npy", "audio_hashes.npy")
ROWS = "rows.npy"  # where utterances share rows


def pool(values: npt.NDArray[np.float16], kind: str) -> npt.NDArray[np.float16]:
    """(T, D) -> (D,): the mean over T of speech, position 0 of text, from the stored float16
    values.
    """
    if kind == "text":
        first: npt.NDArray[np.float16] = values[0]
        return first
    mean: npt.NDArray[np.float16] = values.mean(axis=0, dtype=np.float32).astype(np.float16)
    return mean


class Encoded(NamedTuple):
    """What a store keeps of one utterance: `values` (T, D), and the vector that stands for the
    whole, `pooled` (D,).
    """

    values: npt.NDArray[np.float16]
    pooled: npt.NDArray[np.float16]


def encoded(frames: npt.NDArray[np.floating], kind: str, frames_per_mean: int = 1) -> Encoded:
    """Of an encoder's frames (or tokens) (T, D): rounded, pooled, and so many neighbours as their
    mean, (ceil(T / n), D).

    Pooled before frames are averaged: the last mean may be of fewer frames, and the mean of all
    must not depend on that.
    """
    # What does not fit becomes infinite, and is refused by the store.
    with np.errstate(over="ignore"):
        rounded = frames.astype(np.float16)
    pooled = pool(rounded, kind) if len(rounded) else np.zeros(rounded.shape[1:], dtype=np.float16)
    if frames_per_mean > 1 and len(rounded):
        starts = np.arange(0, len(rounded), frames_per_mean)
        counts = np.diff([*starts, len(rounded)])
        sums = np.add.reduceat(rounded.astype(np.float32), starts, axis=0)
        rounded = (sums / counts[:, None].astype(np.float32)).astype(np.float16)
    return Encoded(rounded, pooled)


class DamagedStore(ValueError):
    """A store that is not what was written. The message has the commands that make it again."""


def _damaged(store: Path, what: str, manifest: Path) -> DamagedStore:
    recipes = _recipes_to_make(store)
    own = next((recipe for recipe in recipes if recipe_hash(recipe) == store.name), None)
    others = [one for one in recipes if own is not None and one["kind"] == own["kind"]]
    only = None
    if own is not None and not all(belongs_to(own, one) for one in others):
        # Of several encoders those that are still there would be taken.
        recipes, only = [one for one in others if belongs_to(own, one)], own["kind"]
    command = encode_command(manifest, store.parent, recipes, only=only)
    return DamagedStore(
        f"{what}; make it again: {shlex.join(['rm', '-r', str(store)])} && {command}"
    )


@dataclass(frozen=True)
class FeatureStore:
    """Features of one recipe, memory-mapped."""

    path: Path
    recipe: Recipe
    values: npt.NDArray[np.float16]
    offsets: npt.NDArray[np.int64]
    pooled: npt.NDArray[np.float16]
    keys: npt.NDArray[np.uint64]  # (N,)
    rows: npt.NDArray[np.int64]  # (N,) of each key; the arrays above and below have (M,) rows
    stamps: npt.NDArray[np.int64]
    audio_hashes: npt.NDArray[np.uint8]
    checksums: Checksums | None  # None: made before there were any
    manifest: Path = MANIFEST  # what errors say to encode

    @property
    def width(self) -> int:
        return int(self.values.shape[1])

    def find(self, keys: Sequence[int] | npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """Row of each key, -1 where the store does not have it. Utterances of one clip may share a
        row.
        """
        order = np.argsort(self.keys)
        wanted = np.asarray(keys, dtype=np.uint64)
        place = np.searchsorted(self.keys, wanted, sorter=order)
        found = order[np.minimum(place, len(order) - 1)]
        return np.where(self.keys[found] == wanted, self.rows[found], -1)

    def check(
        self,
        name: Literal["values", "pooled"],
        starts: npt.NDArray[np.int64] | None = None,
        ends: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """Before rows `starts` to `ends` (n,) of an array, or all, are used: raises DamagedStore
        where they are not what was written.

        A block is read once a process, so asking again costs nothing.
        """
        if self.checksums is None:
            return
        array = getattr(self, name)
        first = np.zeros(1, dtype=np.int64) if starts is None else starts
        last = np.array([len(array)]) if ends is None else ends
        if not self.checksums.blocks[f"{name}.npy"].check(array, first, last):
            raise _damaged(
                self.path, f"{self.path / name}.npy: damaged: {_OTHER_CHECKSUM}", self.manifest
            )


def open_store(path: Path, manifest: Path = MANIFEST) -> FeatureStore:
    """Map a store's files. Raises DamagedStore where they disagree or are not what was written;
    errors name `manifest`.
    """

    def damaged(name: str, what: str) -> DamagedStore:
        return _damaged(path, f"{path / name}: damaged: {what}", manifest)

    try:
        checksums = _read_checksums(path)
    except ValueError as error:
        raise _damaged(path, str(error), manifest) from None
    arrays: dict[str, Any] = {}
    recipe: Recipe = {}
    for name in small_files(path) if checksums is None else checksums.files:
        try:
            content = (path / name).read_bytes()
        except FileNotFoundError:
            if name == "audio_hashes.npy" and checksums is None:
                continue
            raise damaged(name, "it is missing") from None
        if checksums is not None and zlib.crc32(content) != checksums.files[name]:
            raise damaged(name, _OTHER_CHECKSUM)
        try:
            if name == "recipe.json":
                recipe = checked_recipe(parse_json(content))
            else:
                arrays[name.removesuffix(".npy")] = np.load(io.BytesIO(content), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise damaged(name, str(error)) from None
    for name in LARGE_FILES:
        try:
            if (
                checksums is not None
                and header_checksum(path / name) != checksums.blocks[name].header
            ):
                raise damaged(name, _OTHER_CHECKSUM)
            # Copy-on-write maps: nothing is copied while nobody writes, and torch accepts them
            # without a warning.
            arrays[name.removesuffix(".npy")] = np.load(
                path / name, mmap_mode="c", allow_pickle=False
            )
        except FileNotFoundError:
            raise damaged(name, "it is missing") from None
        except DamagedStore:
            raise
        except (ValueError, EOFError) as error:
            raise damaged(name, str(error)) from None
    num_rows = len(arrays["offsets"]) - 1
    arrays.setdefault("audio_hashes", np.zeros((num_rows, AUDIO_HASH_BYTES), dtype=np.uint8))
    rows = arrays.setdefault("rows", np.arange(num_rows))
    if (
        arrays["offsets"][-1] != len(arrays["values"])
        or any(len(arrays[name]) != num_rows for name in ("pooled", "stamps", "audio_hashes"))
        or len(rows) != len(arrays["keys"])
        or not ((rows >= 0) & (rows < num_rows)).all()
    ):
        raise _damaged(path, f"{path}: the feature store's files disagree", manifest)
    return FeatureStore(path, recipe, checksums=checksums, manifest=manifest, **arrays)


def small_files(path: Path) -> tuple[str, ...]:
    """Those that a store at `path` has, or has to have."""
    return (*SMALL_FILES, ROWS) if (path / ROWS).is_file() else SMALL_FILES


def _read_checksums(path: Path) -> Checksums | None:
    return read_checksums(path, SMALL_FILES, LARGE_FILES, optional=(ROWS,))


def list_recipes(features: Path, manifest: Path = MANIFEST) -> dict[Path, Recipe]:
    """Every store below a features folder with its recipe. Raises FileNotFoundError, or
    DamagedStore; errors name `manifest`.
    """
    if not features.is_dir():
        raise FileNotFoundError(
            f"{features}: no such features folder; run: {encode_command(manifest, features)}"
        )
    found = {}
    for file in sorted(features.glob("[!.]*/recipe.json")):
        try:
            found[file.parent] = _recipe_of(file.parent)
        except ValueError as error:
            raise _damaged(file.parent, str(error), manifest) from None
    return found


def _recipe_of(store: Path) -> Recipe:
    """Raises ValueError where it is not what was written."""
    file = store / "recipe.json"
    content = file.read_bytes()
    checksums = _read_checksums(store)
    if checksums is not None and zlib.crc32(content) != checksums.files[file.name]:
        raise ValueError(f"{file}: damaged: {_OTHER_CHECKSUM}")
    try:
        return checked_recipe(parse_json(content))
    except ValueError as error:
        raise ValueError(f"{file}: damaged: {error}") from None


def _recipes_to_make(store: Path) -> list[Recipe]:
    """Of the stores beside a damaged one, and its own; where that is what is damaged, it differs
    from a neighbour in one entry.
    """
    found: list[Recipe] = []
    is_known = False
    for file in sorted(store.parent.glob("[!.]*/recipe.json")):
        with contextlib.suppress(ValueError):
            found.append(_recipe_of(file.parent))
            is_known |= file.parent == store
    if is_known:
        return found
    neighbours: list[Recipe] = []
    for recipe in found:
        if "feature" in recipe:
            neighbours += [{**recipe, "feature": name} for name in AUDIO_FEATURES]
        if "context" in recipe:
            neighbours += _other_contexts(recipe)
    return found + [recipe for recipe in neighbours if recipe_hash(recipe) == store.name][:1]


def _other_contexts(recipe: Recipe) -> list[Recipe]:
    """Of the same text encoder, with and without speakers."""
    found: list[Recipe] = []
    for number in range(1, MAX_CONTEXT + 1):
        other: Recipe = {**recipe, "context": number}
        if other["encoder"] != "char-ngram" and "max_tokens" in other:
            other["max_tokens"] = tokens_read(number)
        named: Recipe = {**other, "speakers": True}
        other.pop("speakers", None)
        found += [other, named]
    return found
