"""What a bundle scores on a split, also in a process of its own: `python -m
mmm.bundle.evaluate`.
"""

import copy
import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from mmm.bundle.read import (
    Bundle,
    BundleError,
    Ensemble,
    load_bundle_or_ensemble,
    mean_answer,
)
from mmm.features.named import OtherFeatures
from mmm.manifest import Manifest
from mmm.manifest_csv import read_manifest
from mmm.metrics import Metrics
from mmm.training.batches import SplitData
from mmm.training.evaluate import probabilities, score
from mmm.training.features import Features, load_features_of
from mmm.training.own_system import load_system


def in_fresh_process(
    bundle: Path, manifest: Path, features: Path, systems: Sequence[str] = ()
) -> Metrics:
    """Metrics of a bundle, loaded and evaluated by a new Python; `systems` are those of the user's
    own that it is made with. Raises BundleError with what that one said.
    """
    arguments = map(str, (bundle, manifest, features, *systems))
    # -P: an mmm.py in the user's folder is not ours.
    command = [sys.executable, "-P", "-m", "mmm.bundle.evaluate", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BundleError(
            f"{bundle}: cannot be loaded and evaluated in a fresh process:"
            f" {done.stderr.strip()[-1000:]}"
        )
    metrics: Metrics = json.loads(done.stdout)
    return metrics


def main() -> None:
    bundle, manifest, features = map(Path, sys.argv[1:4])
    try:
        for reference in sys.argv[4:]:
            load_system(reference)
        checked = read_manifest(manifest, check_audio=False).without_test()
        found = load_bundle_or_ensemble(bundle)
        rows, cpu = checked.rows("dev"), torch.device("cpu")
        print(json.dumps(evaluate_bundle(found, checked, features, rows, cpu)))
    except (ValueError, FileNotFoundError) as error:
        sys.exit(str(error))


def check_bundle_fits(bundle: Bundle, manifest: Manifest, features_dir: Path) -> Features:
    """The features of a manifest that a bundle was trained on. Raises ValueError or
    FileNotFoundError where it cannot be evaluated on them.
    """
    try:
        features = load_features_of(manifest, features_dir, bundle.audio_recipe, bundle.text_recipe)
    except OtherFeatures as error:
        raise ValueError(f"{bundle.path}: trained on {error}") from None
    unknown = set(manifest.classes) - set(bundle.labels)
    if unknown:
        raise ValueError(
            f"{bundle.path}: does not know the classes {', '.join(sorted(unknown))} of"
            f" {manifest.path}"
        )
    return features


def predict_rows(
    bundle: Bundle | Ensemble,
    manifest: Manifest,
    features_dir: Path,
    indices: list[int],
    device: torch.device,
) -> tuple[SplitData, torch.Tensor]:
    """Chosen rows of a manifest over the bundle's classes, and the (N, C) probabilities of each; of
    an ensemble their mean.
    """
    found = []
    for member in bundle.members:
        features = check_bundle_fits(member, manifest, features_dir)
        features = dataclasses.replace(
            features, manifest=dataclasses.replace(manifest, classes=member.labels)
        )
        policy = "published" if member.config.label_policy == "published" else "expand"
        data = SplitData(features, member.config, member.dims, indices, policy)
        # A copy, because a bundle that moved to a GPU would no longer predict on the CPU.
        found.append(probabilities(copy.deepcopy(member.model).to(device), data, device))
    return data, mean_answer(bundle, found)


def evaluate_bundle(
    bundle: Bundle | Ensemble,
    manifest: Manifest,
    features_dir: Path,
    indices: list[int],
    device: torch.device,
) -> Metrics:
    """Metrics of a bundle on chosen rows of a manifest, over the bundle's classes."""
    data, found = predict_rows(bundle, manifest, features_dir, indices, device)
    return score(found, data)


if __name__ == "__main__":
    main()
