"""The encoders of a features folder by their names. An encoder has a store for each of its speech
features, or for each context of its text.

Names are for people and spaces; what identifies features is their recipe. `names.json` beside the
stores says which encoder has which name; folders without it, and encoders that it does not name,
get names made of model and layer.
"""

import shlex
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mmm.features.encode_command import MANIFEST, encode_command
from mmm.features.names import (
    NAMES,
    check_name,
    default_name,
    describe,
    free_name,
    read_names,
)
from mmm.features.recipe import AUDIO_FEATURES, LAYERS, Recipe, belongs_to, identity_of, recipe_hash
from mmm.features.store import FeatureStore, list_recipes, open_store
from mmm.files import Unchecked, write_json

Kind = Literal["audio", "text"]


@dataclass(frozen=True)
class NamedEncoder:
    """One encoder, and the stores that it made."""

    name: str
    kind: Kind
    identity: str  # hash of its recipe, feature and context aside
    stores: Mapping[Path, Recipe]

    @property
    def recipe(self) -> Recipe:
        """Of one of its stores, the frames of its own layer first."""
        return next(iter(self.stores.values()))

    @property
    def audio_features(self) -> tuple[str, ...]:
        held = {recipe.get("feature") for recipe in self.stores.values()}
        return tuple(name for name in AUDIO_FEATURES if name in held)

    @property
    def contexts(self) -> tuple[int, ...]:
        return tuple(sorted(one["context"] for one in self.stores.values() if "context" in one))

    @property
    def layers(self) -> Path | None:
        """The store with the pooled vectors of the most layers."""
        found = [path for path, one in self.stores.items() if one.get("feature") == LAYERS]
        return max(found, key=lambda path: (self._num_layers(path), path.name), default=None)

    def _num_layers(self, path: Path) -> int:
        return len(self.stores[path]["layer"].split(","))

    def store(self, *, feature: str | None = None, context: int | None = None) -> Path | None:
        """Where a feature, or the text with a context, lies; None where it does not."""
        if feature == LAYERS:
            return self.layers
        for path, recipe in self.stores.items():
            if recipe.get("feature") == feature and recipe.get("context") == context:
                return path
        return None


def encoders_in(features: Path, manifest: Path = MANIFEST) -> list[NamedEncoder]:
    """Every encoder of a features folder, speech before text, by name. Raises FileNotFoundError, or
    ValueError where something in it is damaged; errors name `manifest`.
    """
    recipes = list_recipes(features, manifest)
    groups: dict[str, dict[Path, Recipe]] = {}
    shared: dict[Path, Recipe] = {}
    for path, recipe in recipes.items():
        if recipe.get("feature") in (None, AUDIO_FEATURES[0]):
            groups.setdefault(identity_of(recipe), {})[path] = recipe
        else:
            shared[path] = recipe
    own = {identity: next(iter(stores.values())) for identity, stores in groups.items()}
    for path, recipe in shared.items():
        homes = [identity for identity, one in own.items() if belongs_to(one, recipe)]
        for identity in homes or [identity_of(recipe)]:
            groups.setdefault(identity, {})[path] = recipe
    one_each = {identity: next(iter(stores.values())) for identity, stores in groups.items()}
    names = _names(features, one_each)
    found = [
        NamedEncoder(names[identity], one_each[identity]["kind"], identity, stores)
        for identity, stores in groups.items()
    ]
    return sorted(found, key=lambda one: (one.kind, one.name))


def choose(
    encoders: Sequence[NamedEncoder], features: Path, kind: Kind, name: str | None
) -> NamedEncoder:
    """The encoder of a kind with a name or an identity; None: the only one. Raises ValueError or
    FileNotFoundError, saying which there are.
    """
    what = "speech" if kind == "audio" else "text"
    there = [one for one in encoders if one.kind == kind]
    if name is None and len(there) > 1:
        names = ", ".join(one.name for one in there)
        raise ValueError(
            f"{features}/ holds {what} features of several encoders ({names}); say which: --{what}"
            f" {there[0].name}, or as a space's setting {what!r}; those that are not wanted can be"
            f" removed, for example: {remove_command(features, there[-1].name)}"
        )
    found = [one for one in there if name in (None, one.name, one.identity)]
    if not found:
        known = ", ".join(one.name for one in there) or "none"
        wanted = f"{what} features" if name is None else f"{what} features {name!r}"
        raise FileNotFoundError(f"{features}/ holds no {wanted} (found: {known})")
    return found[0]


def find_store(
    features: Path,
    kind: Kind,
    manifest: Path = MANIFEST,
    *,
    name: str | None = None,
    feature: str | None = None,
    context: int | None = None,
) -> FeatureStore:
    """The store of a speech feature, or of text with a context, by the encoder with a name or an
    identity; None: the folder's only one.

    Raises FileNotFoundError or ValueError, saying what is there and with which command `manifest`
    is encoded. Warns, once, of a folder with stores that have no checksums.
    """
    encoders = encoders_in(features, manifest)
    recipes = [recipe for one in encoders for recipe in one.stores.values()]
    wanted = f"feature={feature}" if kind == "audio" else f"context={context}"
    if feature == LAYERS:
        wanted = "layer_mix (pooled vectors of several layers)"
    if not any(one.kind == kind for one in encoders):
        command = encode_command(manifest, features, recipes)
        raise FileNotFoundError(
            f"no {kind} features for {wanted} in {features}/ (found: none); run: {command}"
        )
    encoder = choose(encoders, features, kind, name)
    path = encoder.store(feature=feature, context=context)
    if path is None:
        there = ", ".join(encoder.audio_features or map(str, encoder.contexts)) or "none"
        several = sum(one.kind == kind for one in encoders) > 1
        command = encode_command(
            manifest,
            features,
            encoder.stores.values() if several else recipes,
            contexts=[] if context is None else [context],
            audio_features=[] if feature is None else [feature],
            only=kind if several else None,
        )
        raise FileNotFoundError(
            f"no {kind} features for {wanted}{f' of {encoder.name}' if several else ''} in"
            f" {features}/ (found: {there}); run: {command}"
        )
    return _opened(path, features, manifest, recipes)


class OtherFeatures(ValueError):
    """A folder that has features, but not those of the recipe asked for."""


def find_store_of(features: Path, recipe: Recipe, manifest: Path = MANIFEST) -> FeatureStore:
    """The store of exactly this recipe. Raises FileNotFoundError, or ValueError saying what those
    that are there differ in.
    """
    recipes = list_recipes(features, manifest)
    path = features / recipe_hash(recipe)
    if path in recipes:
        return _opened(path, features, manifest, list(recipes.values()))
    alike = [one for one in recipes.values() if one["kind"] == recipe["kind"]]
    what = "speech" if recipe["kind"] == "audio" else "text"
    command = encode_command(manifest, features, [recipe], only=recipe["kind"])
    if not alike:
        raise FileNotFoundError(f"{features}/ holds no {what} features; run: {command}")
    closest = min(alike, key=lambda one: len(_differing(one, recipe)))
    details = ", ".join(
        f"{name}: {closest.get(name)!r}, not {recipe.get(name)!r}"
        for name in _differing(closest, recipe)
    )
    raise OtherFeatures(f"other {what} features than {features}/ holds ({details}); run: {command}")


def _differing(one: Recipe, other: Recipe) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def _opened(path: Path, features: Path, manifest: Path, recipes: Sequence[Recipe]) -> FeatureStore:
    store = open_store(path, manifest)
    if store.checksums is None and features.absolute() not in _told:
        _told.add(features.absolute())
        warnings.warn(
            f"{features}: features of an earlier version have no checksums and are read"
            " unchecked; to add them without encoding again what is unchanged, run:"
            f" {encode_command(manifest, features, recipes)}",
            Unchecked,
            stacklevel=2,
        )
    return store


_told: set[Path] = set()  # folders of which this process has warned


def remove_command(features: Path, name: str) -> str:
    return shlex.join(["mmm", "features", str(features), "--remove", name])


def _names(features: Path, encoders: Mapping[str, Recipe]) -> dict[str, str]:
    """A name for each identity: as recorded, else made; no two are the same."""
    recorded = read_names(features)
    names = {identity: recorded[identity] for identity in encoders if identity in recorded}
    unnamed = sorted(encoders.keys() - names.keys())
    usual = [default_name(encoders[identity]) for identity in unnamed]
    alike = [name for name in usual if usual.count(name) > 1]  # none of them is the plain one
    for identity in unnamed:
        names[identity] = free_name(encoders[identity], [*alike, *names.values()])
    return names


def check_free(features: Path, name: str, identity: str | None = None) -> None:
    """Raises ValueError where an encoder (of this identity) cannot be called `name`."""
    check_name(name)
    there = encoders_in(features) if features.is_dir() else []
    for one in there:
        if one.name == name and one.identity != identity:
            raise ValueError(
                f"{features}/ has another encoder named {name}"
                f" ({describe(one.recipe)}); choose another name, or remove that one:"
                f" {remove_command(features, name)}"
            )


def keep_names(features: Path) -> None:
    """Write down what the encoders of a folder are called, before others come that might be called
    so.
    """
    there = {one.identity: one.name for one in encoders_in(features)} if features.is_dir() else {}
    if there and read_names(features) != there:
        write_json(features / NAMES, read_names(features) | there)


def record_name(features: Path, recipe: Recipe, asked: str | None = None) -> str:
    """Write down what the encoder of a recipe is called in a folder, `asked` or a name that is
    free; returns it. Raises ValueError where the name is another one's.
    """
    identity = identity_of(recipe)
    there = encoders_in(features) if features.is_dir() else []
    known = read_names(features) | {one.identity: one.name for one in there}
    if asked is not None:
        check_free(features, asked, identity)
    others = [name for one, name in known.items() if one != identity]
    name = asked or known.get(identity) or free_name(recipe, others)
    if read_names(features).get(identity) != name:
        features.mkdir(parents=True, exist_ok=True)
        write_json(features / NAMES, known | {identity: name})
    return name


def rename(features: Path, name: str, new: str) -> None:
    """Call an encoder `new`. Raises ValueError or FileNotFoundError."""
    encoder = _named(features, name)
    record_name(features, encoder.recipe, new)


def remove(features: Path, name: str) -> int:
    """Delete an encoder's stores, but those that others share with it; returns their bytes. Raises
    FileNotFoundError, or ValueError.
    """
    encoder = _named(features, name)
    others = {path for one in encoders_in(features) if one != encoder for path in one.stores}
    names = read_names(features) | {one.identity: one.name for one in encoders_in(features)}
    removed = 0
    for path in encoder.stores:
        if path not in others:
            removed += num_bytes(path)
            # Out of sight first: a folder that is half deleted is none.
            gone = path.with_name(f".{path.name}.removed")
            path.rename(gone)
            shutil.rmtree(gone)
    names.pop(encoder.identity)
    write_json(features / NAMES, names)
    return removed


def num_bytes(store: Path) -> int:
    """What a store takes on the disk."""
    return sum(file.stat().st_size for file in store.iterdir())


def _named(features: Path, name: str) -> NamedEncoder:
    there = encoders_in(features)
    for one in there:
        if one.name == name:
            return one
    known = ", ".join(one.name for one in there) or "none"
    raise FileNotFoundError(f"{features}/ has no encoder {name!r} (found: {known})")
