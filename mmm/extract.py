"""From a manifest to feature stores: everything is encoded once, what is already there is kept."""

import contextlib
import fcntl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmm.encoders import SpeechEncoder, TextEncoder
from mmm.encoders.audio import read_speech
from mmm.manifest import Manifest
from mmm.store import FeatureStore, Recipe, StoreWriter, list_recipes, open_store, recipe_hash, utterance_key

_TURN_BREAK = "\x1e"


@dataclass(frozen=True)
class Progress:
    """`done` of `total` utterances of one `task` are in their store."""

    task: str
    done: int
    total: int


def turns_of(manifest: Manifest, index: int, context: int) -> list[str]:
    """The text of the utterance and of the turns before it, most recent first."""
    return [manifest.utterances[row].text for row in manifest.history(index, context)]


def speech_key(manifest: Manifest, index: int) -> int:
    utterance = manifest.utterances[index]
    return utterance_key(utterance.utterance_id, utterance.audio)


def text_key(manifest: Manifest, index: int, context: int) -> int:
    return utterance_key(manifest.utterances[index].utterance_id, _TURN_BREAK.join(turns_of(manifest, index, context)))


@contextlib.contextmanager
def _only_writer(features: Path) -> Iterator[None]:
    features.mkdir(parents=True, exist_ok=True)
    with open(features / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{features}: another mmm encode is writing here; wait for it or use another folder") from None
        yield


def _existing(path: Path) -> FeatureStore | None:
    return open_store(path) if (path / "recipe.json").is_file() else None


def encode_speech(
    manifest: Manifest, features_dir: Path, encoder: SpeechEncoder, features: Sequence[str]
) -> Iterator[Progress]:
    """Write a store for each of `features`. Raises FileNotFoundError, AudioError or ValueError; nothing half-written."""
    keys = [speech_key(manifest, index) for index in range(len(manifest.utterances))]
    try:
        stats = {name: (manifest.path.parent / name).stat() for name in {u.audio for u in manifest.utterances}}
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error.filename}: no such audio file") from None
    stamps = [(stats[u.audio].st_size, stats[u.audio].st_mtime_ns) for u in manifest.utterances]
    recipes = {feature: encoder.recipe(feature) for feature in features}
    with _only_writer(features_dir), contextlib.ExitStack() as stack:
        old = {feature: _existing(features_dir / recipe_hash(recipe)) for feature, recipe in recipes.items()}
        todo = [f for f in features if (store := old[f]) is None or not _holds(store, keys, stamps)]
        writers = {f: stack.enter_context(StoreWriter(features_dir / recipe_hash(recipes[f]), recipes[f])) for f in todo}
        for feature, writer in writers.items():
            _keep_others(writer, old[feature], set(keys))
        # One clip may serve several lines of a corpus: lines of one clip are encoded together.
        by_clip: dict[str, list[int]] = {}
        for index, utterance in enumerate(manifest.utterances):
            by_clip.setdefault(utterance.audio, []).append(index)
        done = 0
        for audio, indices in by_clip.items():
            found = {}
            if writers:
                try:
                    found = encoder.encode(read_speech(manifest.path.parent / audio), todo)
                    for feature, writer in writers.items():
                        for index in indices:
                            writer.append(keys[index], stamps[index], found[feature])
                except ValueError as error:
                    raise ValueError(
                        f"utterance {manifest.utterances[indices[0]].utterance_id!r} ({audio}): {error}"
                    ) from error
            done += len(indices)
            yield Progress("speech", done, len(keys))


def encode_text(manifest: Manifest, features_dir: Path, encoder: TextEncoder, contexts: Sequence[int]) -> Iterator[Progress]:
    """Write a store for each of `contexts`. Raises ValueError; nothing half-written."""
    for context in contexts:
        recipe: Recipe = {**encoder.recipe(), "context": context}
        path = features_dir / recipe_hash(recipe)
        keys = [text_key(manifest, index, context) for index in range(len(manifest.utterances))]
        stamps = [(0, 0)] * len(keys)
        with _only_writer(features_dir), contextlib.ExitStack() as stack:
            store = _existing(path)
            if store is not None and _holds(store, keys, stamps):
                yield Progress(f"text, context {context}", len(keys), len(keys))
                continue
            writer = stack.enter_context(StoreWriter(path, recipe))
            _keep_others(writer, store, set(keys))
            for index, key in enumerate(keys):
                writer.append(key, stamps[index], encoder.encode(turns_of(manifest, index, context)))
                yield Progress(f"text, context {context}", index + 1, len(keys))


def _holds(store: FeatureStore, keys: Sequence[int], stamps: Sequence[tuple[int, int]]) -> bool:
    rows = store.find(keys)
    return bool((rows >= 0).all() and (store.stamps[rows] == stamps).all())


def _keep_others(writer: StoreWriter, store: FeatureStore | None, replaced: set[int]) -> None:
    """Copy the utterances of other manifests, so that encoding a second corpus does not lose the first one's."""
    if store is None:
        return
    for row, key in enumerate(store.keys.tolist()):
        if key not in replaced:
            size, mtime_ns = store.stamps[row].tolist()
            writer.append(key, (size, mtime_ns), store.values[store.offsets[row] : store.offsets[row + 1]])


def find_store(features_dir: Path, kind: str, **wanted: object) -> FeatureStore:
    """The one store of `kind` with the recipe entries `wanted`. Raises FileNotFoundError or ValueError, saying what is there."""
    recipes = {path: recipe for path, recipe in list_recipes(features_dir).items() if recipe["kind"] == kind}
    found = [path for path, recipe in recipes.items() if all(recipe.get(name) == value for name, value in wanted.items())]
    (name, value), *_ = wanted.items()
    if not found:
        there = ", ".join(sorted({str(recipe.get(name)) for recipe in recipes.values()})) or "none"
        option = {"feature": "audio-feature"}.get(name, name)
        raise FileNotFoundError(
            f"no {kind} features for {option.replace('-', '_')}={value} in {features_dir}/ (found: {there}); "
            f"run: mmm encode manifest.csv --features {features_dir} --{option} {value}"
        )
    if len(found) > 1:
        made = "; ".join(f"{path.name}: {recipes[path]}" for path in found)
        raise ValueError(
            f"{features_dir}/ holds {kind} features of {len(found)} encoders for {name}={value} ({made}); "
            "keep one encoder of each kind in a features folder: encode into another one, or remove the folder you don't want"
        )
    return open_store(found[0])
