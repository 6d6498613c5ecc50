"""From a trial of a sweep to a bundle that ships."""

from pathlib import Path

import torch

from mmm.batches import dims_of, load_features
from mmm.bundle import check_destination, load_bundle, save_bundle
from mmm.config import make_config
from mmm.manifest import read_manifest
from mmm.predict import evaluate_bundle
from search.ledger import History, Trial
from search.trial_files import best_weights

# Another number of threads adds in another order; a validation row on the edge between two classes may flip.
_TOLERANCE = 0.01


def best_trial(history: History) -> Trial | None:
    """The trial with the best score that still has weights to export; one that an ended session left running may be it."""
    assert history.spec is not None
    return next((trial for trial in history.ranked(history.spec.metric) if trial.state in ("complete", "pruned")
                 or (history.last_close is not None and _has_saved_its_best(trial, history.spec.metric))), None)  # fmt: skip


def _has_saved_its_best(trial: Trial, metric: str) -> bool:
    best = trial.best(metric)
    return (
        trial.state == "running" and best is not None and trial.checkpoint is not None and best[0] <= trial.checkpoint["epoch"]
    )


def export_trial(history: History, folder: Path, number: int | None, out: Path) -> str:
    """Bundle a trial's best epoch (None: the best trial's), check that it scores what the ledger says; returns its hash.

    Raises ValueError where there is no such trial, its weights are gone, or it does not reproduce its score.
    """
    spec = history.spec
    assert spec is not None
    if number is None:
        trial = best_trial(history)
        if trial is None:
            raise ValueError(f"sweep {spec.name!r} has no trial with a score yet; see: mmm-search status {spec.name}")
    elif number not in history.trials:
        raise ValueError(f"sweep {spec.name!r} has no trial {number} (it has 0 to {len(history.trials) - 1})")
    else:
        trial = history.trials[number]
    best = trial.best(spec.metric)
    weights = best_weights(folder, trial.number if trial.copied_from is None else trial.copied_from) if best else None
    if best is None or not weights:
        raise ValueError(f"trial {trial.number} of sweep {spec.name!r} has no weights to export ({trial.state}: {trial.reason}); "
                         f"the best {spec.keep} are kept, see: mmm-search status {spec.name}")  # fmt: skip
    check_destination(out)
    config = make_config(trial.settings)
    manifest = read_manifest(spec.manifest, check_audio=False)
    features = load_features(manifest, Path(spec.features), config.audio_feature, config.context)
    metrics = trial.metrics(best[0])
    digest = save_bundle(
        out, name=f"{config.architecture} K{config.context} #{trial.number}", config=config, dims=dims_of(features, config),
        weights=weights, labels=manifest.classes, audio_recipe=features.speech.recipe, text_recipe=features.text.recipe,
        provenance={
            "sweep": spec.name, "trial": trial.number, "trial_state": trial.state, "space": spec.space, "epoch": best[0],
            "epochs_trained": trial.epochs[-1]["epoch"], "seed": config.seed, "objective": spec.metric,
            "manifest_sha256": manifest.sha256, "validation_metrics": metrics, "trials_in_sweep": len(history.trials),
        },
    )  # fmt: skip
    again = evaluate_bundle(load_bundle(out), manifest, Path(spec.features), manifest.rows("dev"), torch.device("cpu"))
    if abs(again[spec.metric] - best[1]) > _TOLERANCE:
        raise ValueError(f"{out}: the bundle's validation {spec.metric} is {again[spec.metric]:.4f}, the ledger says {best[1]:.4f}; "
                         "were the manifest or the features changed since the sweep?")  # fmt: skip
    return digest
