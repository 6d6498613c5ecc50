"""Does a fusion system learn more than a linear model on the same features?

    python -m benchmarks.heads manifest.csv --features DIR... [--seeds 5] [--text-alone]
        [--systems vanilla_concat ...]

For each features folder, each system is trained with `mmm train`'s defaults and with its known good
point of the space `full`, with several seeds, and set against logistic regression with the same
context, whose C and class weights were chosen by five-fold cross-validation inside train, dialogues
kept whole. Both are scored on validation by macro F1, the head by its last epoch and by its best
(which is chosen on that split, so it flatters). The interval of the difference is a 95 % bootstrap
over validation's dialogues and over the seeds at once. `--text-alone` adds the first folder with
the text as the only input.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmm.device import training_precision
from mmm.manifest import Manifest
from mmm.manifest_csv import read_manifest
from mmm.metrics import classification_metrics
from mmm.models import ARCHITECTURES
from mmm.training.baselines import C_GRID, CLASS_WEIGHTS
from mmm.training.class_weights import class_weights
from mmm.training.config import make_config, new_params
from mmm.training.evaluate import probabilities
from mmm.training.features import Features, load_features
from mmm.training.fit import fit
from mmm.training.linear import inputs_of, solve
from mmm.training.run import begin
from search.space.load import point_settings
from spaces import There, spaces_on

FOLDS = 5
RESAMPLES = 2000
CPU = torch.device("cpu")
Array = np.ndarray[Any, np.dtype[Any]]


def macro_f1(truth: Array, predicted: Array, classes: tuple[str, ...]) -> float:
    return float(classification_metrics(truth, predicted, classes)["macro_f1"])


def linear_predictions(features: Features, inputs: str, context: int) -> tuple[Array, str]:
    """Validation predictions (N,) of logistic regression tuned inside train, and what was
    chosen.
    """
    run = begin(
        make_config({"architecture": "linear", "context": context, "inputs": inputs}), features
    )
    manifest, labels = features.manifest, run.train.labels
    inputs_ND = inputs_of(run, run.train).numpy()
    groups = [manifest.utterances[row].dialogue_id for row in run.train.indices.tolist()]
    names = sorted(set(groups))
    fold_of = dict(
        zip(names, np.random.default_rng(0).permutation(len(names)) % FOLDS, strict=True)
    )
    folds = np.array([fold_of[name] for name in groups])
    truth = labels.argmax(dim=1).numpy()
    scores: dict[tuple[str, float], float] = {}
    for weight in CLASS_WEIGHTS:
        config = make_config({"architecture": "linear", "class_weight": weight})
        found = {c: np.zeros_like(truth) for c in C_GRID}
        for fold in range(FOLDS):
            inside, outside = folds != fold, folds == fold
            start = None
            for c in C_GRID:
                start = solve(
                    inputs_ND[inside], labels[inside], class_weights(config, run.train), c, start
                )
                found[c][outside] = (
                    (torch.from_numpy(inputs_ND[outside]) @ start[0].T + start[1])
                    .argmax(dim=1)
                    .numpy()
                )
        scores |= {(weight, c): macro_f1(truth, found[c], manifest.classes) for c in C_GRID}
    weight, c = max(scores, key=lambda key: scores[key])
    config = make_config(
        {
            "architecture": "linear",
            "context": context,
            "inputs": inputs,
            "c": c,
            "class_weight": weight,
        }
    )
    run = begin(config, features)
    list(fit(run))
    return probabilities(run.model, run.dev, CPU).argmax(dim=1).numpy(), f"C={c:g} {weight}"


def head_predictions(features: Features, params: dict[str, Any]) -> tuple[Array, Array, int]:
    """Validation predictions (N,) of a training run by its last epoch and by its best, and which
    that was.
    """
    config = make_config(params)
    run = begin(config, features, precision=training_precision("auto", "cpu", config.architecture))
    list(fit(run))
    last = probabilities(run.model, run.dev, CPU).argmax(dim=1).numpy()
    run.model.load_state_dict(run.best_weights)
    return last, probabilities(run.model, run.dev, CPU).argmax(dim=1).numpy(), run.best_epoch


def interval(
    truth: Array, heads: Array, linear: Array, dialogues: Array, classes: tuple[str, ...]
) -> tuple[float, float]:
    """Of the mean over seeds of `heads` (S, N) minus `linear` (N,): dialogues and seeds are drawn
    anew each time.
    """
    names = np.unique(dialogues)
    rows_of = {name: np.flatnonzero(dialogues == name) for name in names}
    draw = np.random.default_rng(0)
    found = []
    for _ in range(RESAMPLES):
        rows = np.concatenate([rows_of[name] for name in draw.choice(names, len(names))])
        seeds = draw.integers(len(heads), size=len(heads))
        base = macro_f1(truth[rows], linear[rows], classes)
        found.append(
            np.mean([macro_f1(truth[rows], heads[seed][rows], classes) for seed in seeds]) - base
        )
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def recipes_of(system: str, folder_features: list[str]) -> dict[str, dict[str, Any]]:
    """What is trained: `mmm train`'s defaults, and the space's known good point at its last
    epoch.
    """
    space = spaces_on(There(tuple(folder_features)))["full"]
    point = next(point for point in space.known_good if point["architecture"] == system)
    return {
        "default": new_params(system),
        "known good": {"epochs": 27, "input_scaling": "standard", **point_settings(space, point)},
    }


def compare(
    manifest: Manifest, folder: Path, inputs: str, systems: list[str], num_seeds: int
) -> None:
    title = folder.name if inputs == "both" else f"{folder.name}, {inputs} alone"
    sizes = [len(manifest.rows(split)) for split in ("train", "dev")]
    print(f"\n{title}: {sizes[0]} training and {sizes[1]} validation utterances, {num_seeds} seeds")
    head = f"{'system':<18}{'recipe':<12}{'K':>2}{'linear':>9}{'last':>8}{'best':>8}{'epoch':>7}"
    print(f"{head}   {'last - linear, 95 %':<27}best - linear, 95 %")
    linear: dict[int, tuple[Array, str]] = {}
    for system in systems:
        for name, recipe in recipes_of(system, ["hidden_state"]).items():
            params = {**recipe, "inputs": inputs}
            context = params.get("context", 1)
            features = load_features(
                manifest, folder, params.get("audio_feature", "hidden_state"), context
            )
            if context not in linear:
                linear[context] = linear_predictions(features, inputs, context)
            base, _ = linear[context]
            told = [
                head_predictions(features, {**params, "seed": seed}) for seed in range(num_seeds)
            ]
            last, best = (np.stack([one[place] for one in told]) for place in (0, 1))
            run = begin(make_config(params), features)
            truth = run.dev.labels.argmax(dim=1).numpy()
            dialogues = np.array(
                [manifest.utterances[row].dialogue_id for row in run.dev.indices.tolist()]
            )
            scores = [
                np.mean([macro_f1(truth, one, manifest.classes) for one in heads])
                for heads in (last, best)
            ]
            score = macro_f1(truth, base, manifest.classes)
            cells = ""
            for value, heads in zip(scores, (last, best), strict=True):
                low, high = interval(truth, heads, base, dialogues, manifest.classes)
                cells += f"   {value - score:+.3f} [{low:+.3f}, {high:+.3f}]  "
            epochs = np.median([one[2] for one in told])
            print(
                f"{system:<18}{name:<12}{context:>2}{score:>9.3f}"
                f"{scores[0]:>8.3f}{scores[1]:>8.3f}{epochs:>7.0f}{cells}",
                flush=True,
            )
    for context, (_, chosen) in linear.items():
        print(f"logistic regression, K={context}: {chosen}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--features", type=Path, nargs="+", required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--systems", nargs="+", default=list(ARCHITECTURES))
    parser.add_argument("--text-alone", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    manifest = read_manifest(options.manifest, check_audio=False)
    for folder in options.features:
        compare(manifest, folder, "both", options.systems, options.seeds)
    if options.text_alone:
        compare(manifest, options.features[0], "text", options.systems, options.seeds)


if __name__ == "__main__":
    main()
