"""Writing bundles: of a run, of a trial's weights, of several models as an ensemble."""

import dataclasses
import json
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmm.bundle.read import FORMAT, Bundle, BundleError, _files_in, load_bundle
from mmm.features.recipe import Recipe, recipe_hash
from mmm.files import new_directory, sha256_of_file, write_bytes, write_json
from mmm.training.config import Dims, TrainConfig
from mmm.training.run import Run
from mmm.training.tensor_file import tensor_bytes
from mmm.version import VERSION


def check_destination(path: Path, beside: str | None = "epoch-*") -> None:
    """Raise BundleError where `path` cannot be written as a bundle: a file, or a folder with
    something else in it.

    A bundle may be replaced, and so may bundles below `path` whose names match `beside`: those
    saved along the way (--save-every) come before the one around them.
    """
    if path.is_file():
        raise BundleError(f"{path}: is a file; choose a folder for the bundle")
    if not path.is_dir():
        return
    names = {file.split("/")[0] for file in _recorded(path)} | {"checksums.json"}
    for child in sorted(path.iterdir()):
        is_bundle = (
            beside is not None and child.match(beside) and (child / "checksums.json").is_file()
        )
        if not is_bundle and child.name not in (
            names if (path / "checksums.json").is_file() else ()
        ):
            what = (
                f"holds {child.name}, which is not the bundle's"
                if len(names) > 1
                else "exists and is no bundle"
            )
            raise BundleError(f"{path}: {what}; choose another folder")


def _recorded(path: Path) -> list[str]:
    """Files that a folder's checksums name, as far as they can be read."""
    try:
        found = json.loads((path / "checksums.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return list(found) if isinstance(found, dict) else []


def seal(folder: Path) -> None:
    """Write down the checksums of all that is in a folder; call it again after adding a file."""
    write_json(
        folder / "checksums.json",
        {file: sha256_of_file(folder / file) for file in sorted(_files_in(folder))},
    )


def write_bundle(
    folder: Path,
    *,
    name: str,
    config: TrainConfig,
    dims: Dims,
    weights: dict[str, Tensor],
    labels: tuple[str, ...],
    audio_recipe: Recipe,
    text_recipe: Recipe,
    provenance: dict[str, Any],
) -> None:
    """Fill a new folder with a bundle; `save_bundle` for one that others may already see."""
    about = {
        "format": FORMAT,
        "name": name,
        "settings": config.params(),
        "dims": dataclasses.asdict(dims),
        "labels": list(labels),
        "audio_recipe": audio_recipe,
        "text_recipe": text_recipe,
    }
    features = {
        "audio_features": recipe_hash(audio_recipe),
        "text_features": recipe_hash(text_recipe),
    }
    write_bytes(
        folder / "model.safetensors", tensor_bytes({key: weights[key] for key in sorted(weights)})
    )
    write_json(folder / "config.json", about)
    write_json(folder / "provenance.json", {**_made_by(), **features, **provenance})
    seal(folder)


def write_ensemble(
    folder: Path, *, name: str, members: tuple[str, ...], provenance: dict[str, Any]
) -> None:
    """Make an ensemble of a folder with bundles in its subfolders `members`.

    Raises BundleError where they do not answer the same question: other classes, encoders or
    counting of labels.
    """
    bundles = [load_bundle(folder / member) for member in members]
    for bundle in bundles[1:]:
        if _question(bundle) != _question(bundles[0]):
            raise BundleError(
                f"{bundle.name} and {bundles[0].name} cannot be one ensemble: they differ in"
                " classes, encoders or label policy (published or not)"
            )
    about = {
        "format": FORMAT,
        "name": name,
        "labels": list(bundles[0].labels),
        "members": list(members),
    }
    write_json(folder / "config.json", about)
    write_json(folder / "provenance.json", {**_made_by(), **provenance})
    seal(folder)


def _question(bundle: Bundle) -> tuple[Any, ...]:
    audio = {name: value for name, value in bundle.audio_recipe.items() if name != "feature"}
    text = {name: value for name, value in bundle.text_recipe.items() if name != "context"}
    return bundle.labels, audio, text, bundle.config.label_policy == "published"


def _made_by() -> dict[str, str]:
    return {
        "mmm_version": VERSION,
        "torch_version": torch.__version__,
        "python_version": platform.python_version(),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def save_bundle(
    path: Path,
    *,
    name: str,
    config: TrainConfig,
    dims: Dims,
    weights: dict[str, Tensor],
    labels: tuple[str, ...],
    audio_recipe: Recipe,
    text_recipe: Recipe,
    provenance: dict[str, Any],
) -> str:
    """Write a bundle, complete or not at all, replacing one that is there; returns its hash.

    Raises BundleError where `path` is a folder with something else in it.
    """
    check_destination(path)
    # Bundles saved along the way (--save-every) live inside this one and stay.
    with new_directory(path, keep="epoch-*") as folder:
        write_bundle(
            folder,
            name=name,
            config=config,
            dims=dims,
            weights=weights,
            labels=labels,
            audio_recipe=audio_recipe,
            text_recipe=text_recipe,
            provenance=provenance,
        )
    return sha256_of_file(path / "checksums.json")


def save_run_bundle(
    run: Run, path: Path, *, name: str, provenance: dict[str, Any], last: bool = False
) -> str:
    """Bundle a run's best weights (`last=True`: its present ones); returns the bundle's hash."""
    features = run.train.features
    weights = (
        {key: value.detach().cpu() for key, value in run.model.state_dict().items()}
        if last
        else run.best_weights
    )
    found = {
        "manifest_sha256": features.manifest.sha256,
        "seed": run.config.seed,
        "objective": run.objective,
        "epoch": run.epoch if last else run.best_epoch,
        "epochs_trained": run.epoch,
        "validation_utterances": len(run.dev),
        "precision": run.precision,
        **({} if last else {"validation_metrics": run.best_metrics}),
    }
    return save_bundle(
        path,
        name=name,
        config=run.config,
        dims=run.dims,
        weights=weights,
        labels=features.manifest.classes,
        audio_recipe=features.speech.recipe,
        text_recipe=features.text.recipe,
        provenance={**found, **provenance},
    )
