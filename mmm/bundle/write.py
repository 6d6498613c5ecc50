"""Writing bundles: of a run, of a trial's weights, of several models as an ensemble."""

import dataclasses
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

from mmm.bundle.read import Bundle, BundleError, files_in, load_bundle
from mmm.bundle.records import EnsembleHead, Head, Provenance
from mmm.features.recipe import recipe_hash
from mmm.files import new_directory, parse_json, sha256_of_file, write_bytes, write_json
from mmm.training.run import Run
from mmm.training.tensor_file import tensor_bytes
from mmm.version import VERSION

_UNKNOWN = Provenance()


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
    own = {file.split("/")[0] for file in _recorded(path)}
    if (path / "checksums.json").is_file():
        own.add("checksums.json")
    for child in sorted(path.iterdir()):
        if child.name in own:
            continue
        if beside is not None and child.match(beside) and (child / "checksums.json").is_file():
            continue
        what = f"holds {child.name}, which is not the bundle's"
        if len(own) < 2:
            what = "exists and is no bundle"
        raise BundleError(f"{path}: {what}; choose another folder")


def _recorded(path: Path) -> list[str]:
    """Files that a folder's checksums name, as far as they can be read."""
    try:
        checksums = parse_json((path / "checksums.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return list(checksums) if isinstance(checksums, dict) else []


def seal(folder: Path) -> None:
    """Write down the checksums of all that is in a folder; call it again after adding a file."""
    write_json(
        folder / "checksums.json",
        {file: sha256_of_file(folder / file) for file in sorted(files_in(folder))},
    )


def write_bundle(
    folder: Path, head: Head, weights: Mapping[str, Tensor], provenance: Provenance
) -> None:
    """Fill a new folder with a bundle; `save_run_bundle` for one that others may already see."""
    write_bytes(
        folder / "model.safetensors", tensor_bytes({key: weights[key] for key in sorted(weights)})
    )
    write_json(folder / "config.json", head.as_json())
    provenance = dataclasses.replace(
        provenance,
        audio_features=recipe_hash(head.audio_recipe),
        text_features=recipe_hash(head.text_recipe),
        system=head.config.system and Path(head.config.system).name,
        system_sha256=head.config.system_sha256,
    )
    write_provenance(folder, provenance)
    seal(folder)


def write_ensemble(
    folder: Path, *, name: str, members: tuple[str, ...], provenance: Provenance = _UNKNOWN
) -> None:
    """Make an ensemble of a folder with bundles in its subfolders `members`.

    A member that is named several times counts as often. Raises BundleError where they do not
    answer the same question: other classes or counting of labels.
    """
    bundles = [load_bundle(folder / member) for member in dict.fromkeys(members)]
    for bundle in bundles[1:]:
        if _question(bundle) != _question(bundles[0]):
            raise BundleError(
                f"{bundle.name} and {bundles[0].name} cannot be one ensemble: they differ in"
                " classes or label policy (published or not)"
            )
    head = EnsembleHead(name, bundles[0].labels, members)
    write_json(folder / "config.json", head.as_json())
    write_provenance(folder, provenance)
    seal(folder)


def _question(bundle: Bundle) -> tuple[object, ...]:
    return bundle.labels, bundle.config.label_policy == "published"


def write_provenance(folder: Path, provenance: Provenance) -> None:
    """provenance.json, with the time and the versions of now."""
    now = dataclasses.replace(
        provenance,
        mmm_version=VERSION,
        torch_version=torch.__version__,
        python_version=platform.python_version(),
        made=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_json(folder / "provenance.json", now.as_json())


def write_temperature(folder: Path, temperature: float) -> None:
    """Keep the temperature of its answers in a bundle or an ensemble, which has to be sealed
    again.
    """
    content = parse_json((folder / "config.json").read_text(encoding="utf-8"))
    write_json(folder / "config.json", {**content, "temperature": temperature})


def save_run_bundle(
    run: Run, path: Path, *, name: str, provenance: Provenance = _UNKNOWN, last: bool = False
) -> str:
    """Bundle a run's best weights (`last=True`: its present ones), complete or not at all, in the
    place of a bundle that is there; returns the bundle's hash.

    `provenance` has what the run does not know of itself. Raises BundleError where `path` is a
    folder with something else in it.
    """
    features = run.train.features
    head = Head(
        name,
        run.config,
        run.dims,
        features.manifest.classes,
        features.speech.recipe,
        features.text.recipe,
    )
    provenance = dataclasses.replace(
        provenance,
        manifest_sha256=features.manifest.sha256,
        seed=run.config.seed,
        objective=run.objective,
        epoch=run.epoch if last else run.best_epoch,
        epochs_trained=run.epoch,
        validation_utterances=len(run.dev),
        precision=run.precision,
        validation_metrics=provenance.validation_metrics if last else run.best_metrics,
    )
    check_destination(path)
    # Bundles saved along the way (--save-every) live inside this one and stay.
    with new_directory(path, keep="epoch-*") as folder:
        write_bundle(folder, head, run.model.state_dict() if last else run.best_weights, provenance)
    return sha256_of_file(path / "checksums.json")
