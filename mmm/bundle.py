"""The bundle: a folder that ships. Weights as safetensors, everything else as JSON, every file checksummed.

model.safetensors   weights of the head
config.json         format, settings, sizes, labels, recipes of both encoders: all that predict needs
provenance.json     code version, hashes of manifest and features, seed, validation metrics, how it was made
checksums.json      SHA-256 of the other files; its own hash is the bundle's
"""

import dataclasses
import json
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

import mmm
from mmm.config import Dims, TrainConfig, make_config
from mmm.files import new_directory, sha256_of_file, write_bytes, write_json
from mmm.store import Recipe, recipe_hash
from mmm.train import Run, build_model

FORMAT = 1
_FILES = ("config.json", "model.safetensors", "provenance.json")


class BundleError(ValueError):
    """A folder that is no bundle, or a damaged one."""


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle: the model in evaluation mode and all that is known of it."""

    path: Path
    name: str
    sha256: str
    config: TrainConfig
    dims: Dims
    labels: tuple[str, ...]
    audio_recipe: Recipe
    text_recipe: Recipe
    provenance: dict[str, Any]
    model: nn.Module


def check_destination(path: Path) -> None:
    """Raise BundleError where `path` cannot be written as a bundle: a file, or a folder with something else in it."""
    if path.is_file():
        raise BundleError(f"{path}: is a file; choose a folder for the bundle")
    if not path.is_dir() or (path / "checksums.json").is_file():
        return
    # Bundles saved along the way (--save-every) come before the one around them.
    if any(not (child / "checksums.json").is_file() for child in path.iterdir()):
        raise BundleError(f"{path}: exists and is no bundle; choose another folder")


def save_bundle(
    path: Path, *, name: str, config: TrainConfig, dims: Dims, weights: dict[str, Tensor], labels: tuple[str, ...],
    audio_recipe: Recipe, text_recipe: Recipe, provenance: dict[str, Any],
) -> str:  # fmt: skip
    """Write a bundle, complete or not at all, replacing one that is there; returns its hash.

    Raises BundleError where `path` is a folder with something else in it.
    """
    check_destination(path)
    about = {
        "format": FORMAT, "name": name, "settings": config.params(), "dims": dataclasses.asdict(dims), "labels": list(labels),
        "audio_recipe": audio_recipe, "text_recipe": text_recipe,
    }  # fmt: skip
    provenance = {
        "mmm_version": mmm.__version__, "torch_version": torch.__version__, "python_version": platform.python_version(),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "audio_features": recipe_hash(audio_recipe), "text_features": recipe_hash(text_recipe), **provenance,
    }  # fmt: skip
    # Bundles saved along the way (--save-every) live inside this one and stay.
    with new_directory(path, keep="epoch-*") as folder:
        write_bytes(folder / "model.safetensors", save_tensors({key: weights[key].contiguous() for key in sorted(weights)}))
        write_json(folder / "config.json", about)
        write_json(folder / "provenance.json", provenance)
        write_json(folder / "checksums.json", {file: sha256_of_file(folder / file) for file in _FILES})
    return sha256_of_file(path / "checksums.json")


def save_run_bundle(run: Run, path: Path, *, name: str, provenance: dict[str, Any], last: bool = False) -> str:
    """Bundle a run's best weights (`last=True`: its present ones); returns the bundle's hash."""
    features = run.train.features
    weights = {key: value.detach().cpu() for key, value in run.model.state_dict().items()} if last else run.best_weights
    found = {
        "manifest_sha256": features.manifest.sha256, "seed": run.config.seed, "objective": run.objective,
        "epoch": run.epoch if last else run.best_epoch, "epochs_trained": run.epoch,
        "validation_utterances": len(run.dev), **({} if last else {"validation_metrics": run.best_metrics}),
    }  # fmt: skip
    return save_bundle(path, name=name, config=run.config, dims=run.dims, weights=weights, labels=features.manifest.classes,
                       audio_recipe=features.speech.recipe, text_recipe=features.text.recipe,
                       provenance={**found, **provenance})  # fmt: skip


def load_bundle(path: Path) -> Bundle:
    """Check every file's checksum, then load. Raises FileNotFoundError or BundleError."""
    if not (path / "checksums.json").is_file():
        raise FileNotFoundError(f"{path}: no bundle here (no checksums.json); make one with mmm train or mmm-search export")
    try:
        checksums = json.loads((path / "checksums.json").read_text())
        recorded = {file: checksums[file] for file in _FILES}
    except (ValueError, KeyError, TypeError):
        raise BundleError(f"{path}/checksums.json: damaged; copy the bundle again from where it was made") from None
    for file, expected in recorded.items():
        if not (path / file).is_file():
            raise BundleError(f"{path}: {file} is missing; copy the bundle again from where it was made")
        if sha256_of_file(path / file) != expected:
            raise BundleError(f"{path}/{file}: damaged: its checksum is not the recorded one; copy the bundle again")
    about = json.loads((path / "config.json").read_text())
    if about["format"] != FORMAT:
        raise BundleError(f"{path}: bundle format {about['format']}, this version ({mmm.__version__}) reads {FORMAT}")
    config, dims = make_config(about["settings"]), Dims(**about["dims"])
    model = build_model(config, dims)
    model.load_state_dict(load_tensors((path / "model.safetensors").read_bytes()))
    return Bundle(path, about["name"], sha256_of_file(path / "checksums.json"), config, dims, tuple(about["labels"]),
                  about["audio_recipe"], about["text_recipe"], json.loads((path / "provenance.json").read_text()),
                  model.eval())  # fmt: skip


def find_bundles(folder: Path) -> list[Path]:
    """Every bundle below a folder. Raises FileNotFoundError where there is none."""
    found = sorted(file.parent for file in folder.rglob("checksums.json"))
    if not found:
        raise FileNotFoundError(f"{folder}: no bundle below this folder; make one with mmm train or mmm-search export")
    return found
