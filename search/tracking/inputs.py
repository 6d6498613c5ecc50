"""The data sets that MLflow is told a trial was given: the manifest and its features."""

from collections.abc import Sequence
from typing import NamedTuple

from mmm.features.recipe import LAYERS, belongs_to, identity_of
from mmm.training.config import Params
from search.ledger.records import DataNote, StoreDigest
from search.ledger.spec import SweepSpec


class Input(NamedTuple):
    """A data set that a run was given."""

    name: str
    digest: str
    source: str
    context: str  # MLflow's word for what it is for
    profile: str = ""  # JSON


def manifest_of(data: DataNote) -> Input:
    manifest = data.manifest
    return Input(
        manifest.name, manifest.sha256[:32], manifest.path, "train and dev", manifest.profile
    )


def inputs_of(data: DataNote, spec: SweepSpec, settings: Params) -> list[Input]:
    """The manifest and the features of a trial with these settings; one line for both of these,
    since the list of runs shows them all.
    """
    is_mixed = settings.get("layer_mix") not in (None, "one")
    feature = LAYERS if is_mixed else settings.get("audio_feature")
    wanted = (
        ("audio", feature, spec.speech_identity(settings.get("speech"))),
        ("text", settings.get("context"), spec.text_identity(settings.get("text"))),
    )
    stores = [store for one in wanted if (store := _store(data.stores, *one)) is not None]
    if not stores:
        return [manifest_of(data)]
    digest = "-".join(store.digest[:16] for store in stores)
    what = " + ".join(
        f"{store.encoder} {'K' if store.kind == 'text' else ''}{store.of}" for store in stores
    )
    source = ", ".join(store.path for store in stores)
    return [manifest_of(data), Input(what, digest, source, "features")]


def _store(
    stores: Sequence[StoreDigest], kind: str, of: object, encoder: str | None
) -> StoreDigest | None:
    """The features of an encoder by its recipe."""
    found = [one for one in stores if (one.kind, str(one.of)) == (kind, str(of))]
    recipes = [one.recipe for one in stores if one.recipe is not None]
    own = next((recipe for recipe in recipes if identity_of(recipe) == encoder), None)
    if own is not None:
        found = [one for one in found if one.recipe and belongs_to(own, one.recipe)]
    return found[-1] if found else None
