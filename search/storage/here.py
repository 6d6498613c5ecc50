"""Manifest and features on this machine, wherever they come from: what every command asks that
reads those of a sweep, or is given them.
"""

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from mmm.training.config import FeaturesKey, make_config
from mmm.training.own_system import load_recorded
from search.ledger.history import History
from search.ledger.spec import SweepSpec
from search.storage.door import StorageError, as_url, is_url
from search.storage.openings import bring_openings
from search.storage.stage import Features, features_brought, manifest_brought, staged_manifest


def data_here(
    history: History,
    cache: Path | None = None,
    trials: Collection[int] | None = None,
    away: Callable[[str], None] | None = None,
) -> History:
    """A sweep whose specification names manifest and features on this disk: as it is, or brought
    from its URLs into `cache` (None: the sweep's), all features or those of `trials`.

    `away` is told where a URL cannot be read and what was brought before is taken in its place;
    without it, and where nothing was, StorageError or FileNotFoundError is raised.
    """
    spec = history.spec
    if spec.manifest_url is None and spec.features_url is None:
        return history
    if cache is not None:
        spec = replace(spec, cache=str(cache.resolve()))
    place = None if spec.cache is None else Path(spec.cache)
    if (url := spec.manifest_url) is not None:
        try:
            manifest = staged_manifest(url, place)
        except (StorageError, FileNotFoundError) as error:
            manifest = _in_its_place(manifest_brought(url, place), error, away)
        spec = replace(spec, manifest=str(manifest))
    if (url := spec.features_url) is not None:
        keys = None if trials is None else [_key(history, number) for number in trials]
        try:
            folder = _features(url, place, keys)
        except (StorageError, FileNotFoundError) as error:
            folder = _in_its_place(features_brought(url, place), error, away)
        spec = replace(spec, features=str(folder))
    return replace(history, spec=spec)


def staged_here(spec: SweepSpec) -> SweepSpec:
    """A sweep's specification with manifest and all features on this disk, where it names URLs.
    Raises StorageError, FileNotFoundError.
    """
    return data_here(History(spec, 0.0)).spec


def manifest_here(given: str, cache: Path | None = None) -> Path:
    """The manifest that a command was given, as a path or a URL. Raises StorageError,
    FileNotFoundError.
    """
    return staged_manifest(as_url(given), cache) if is_url(given) else Path(given)


def features_here(given: str, cache: Path | None = None) -> Path:
    """The same of a features folder, all of it."""
    return _features(as_url(given), cache) if is_url(given) else Path(given)


def _features(url: str, cache: Path | None, keys: Collection[FeaturesKey] | None = None) -> Path:
    features = Features(url, cache)
    if keys is None:
        features.bring()
    for key in keys or ():
        features.bring_for(key)
    bring_openings(url, features.path)
    return features.path


def _key(history: History, number: int) -> FeaturesKey:
    settings = history.trials[number].settings
    load_recorded(settings)
    return history.spec.features_key(make_config(dict(settings)))


def _in_its_place(found: Path | None, error: Exception, away: Callable[[str], None] | None) -> Path:
    if found is None or away is None:
        raise error
    away(f"note: {error}; taken as it was brought before, from {found}")
    return found
