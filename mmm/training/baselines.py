"""What a sweep has to beat: the majority class, and the linear system on speech, text and both,
tuned on validation.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mmm.features.store import list_recipes
from mmm.manifest import Manifest
from mmm.metrics import Metrics, classification_metrics, value_of
from mmm.training.batches import labelled_rows
from mmm.training.class_weights import class_weights
from mmm.training.config import Params, ParamValue, TrainConfig, make_config
from mmm.training.features import load_features
from mmm.training.fit import fit
from mmm.training.linear import inputs_of, solve
from mmm.training.run import Run, begin

INPUTS = ("speech", "text", "both")
UNUSED = {"speech": "context", "text": "audio_feature"}
C_GRID = (0.0001, 0.001, 0.01, 0.1, 1.0)
CLASS_WEIGHTS = ("none", "inverse")


@dataclass(frozen=True)
class Baseline:
    """One baseline's best setting by `objective` on validation, with its validation metrics."""

    name: str
    settings: Params
    metrics: Metrics


def baselines(
    manifest: Manifest, features_dir: Path, objective: str = "macro_f1"
) -> Iterator[Baseline]:
    """Yield the majority class, then logistic regression on speech, text and both.

    Tuned on validation over C, class weights, and every audio feature and context that the folder
    holds.
    """
    _, train_labels = labelled_rows(manifest, manifest.rows("train"), "expand")
    _, dev_labels = labelled_rows(manifest, manifest.rows("dev"), "expand")
    truth = dev_labels.argmax(dim=1).numpy()
    majority = np.full_like(truth, int(train_labels.sum(dim=0).argmax()))
    name = manifest.classes[int(majority[0])]
    yield Baseline(f"always {name}", {}, classification_metrics(truth, majority, manifest.classes))
    for what in INPUTS:
        *_, (_, _, config) = tuned(manifest, features_dir, objective, {"inputs": what})
        assert config is not None
        run = fitted(config, manifest, features_dir, objective)
        settings: dict[str, ParamValue] = {"C": config.c, "class_weight": config.class_weight}
        if what != "text":
            settings["audio_feature"] = config.audio_feature
        if what != "speech":
            settings["context"] = config.context
        yield Baseline(f"logistic regression, {what}", settings, run.best_metrics)


def tuned(
    manifest: Manifest, features_dir: Path, objective: str, given: Params
) -> Iterator[tuple[int, int, TrainConfig | None]]:
    """Tune the linear system on validation by `objective`: C, the weights of classes, the audio
    feature and the context.

    Every audio feature and context that the folder holds of the whole manifest is tried; `given`
    settings are not tuned. Yields how many fits are done of how many, and the best settings so far.
    Raises ValueError or FileNotFoundError as `load_features` where none can be used.
    """
    recipes = list_recipes(features_dir, manifest.path).values()
    features = {recipe["feature"] for recipe in recipes if recipe["kind"] == "audio"}
    contexts = {recipe["context"] for recipe in recipes if recipe["kind"] == "text"}
    choices: dict[str, Sequence[Any]] = {
        "audio_feature": sorted(features),
        "context": sorted(contexts),
        "class_weight": CLASS_WEIGHTS,
        "c": C_GRID,
    }
    # What a system does not look at is not worth trying in every variant.
    if (unused := UNUSED.get(str(given.get("inputs", "both")))) is not None:
        choices[unused] = choices[unused][:1]
    choices = {
        name: (given[name],) if given.get(name) is not None else values
        for name, values in choices.items()
    }
    total = int(np.prod([len(values) for values in choices.values()]))
    done, best, best_score = 0, None, -1.0
    refused: Exception | None = None
    for audio_feature, context in itertools.product(choices["audio_feature"], choices["context"]):
        try:
            loaded = load_features(manifest, features_dir, audio_feature, context)
        except (ValueError, FileNotFoundError) as error:
            # Made for another corpus, or for a part of this one.
            refused = refused or error
            total -= len(choices["class_weight"]) * len(choices["c"])
            continue
        chosen: Params = {"audio_feature": audio_feature, "context": context}
        run = begin(make_config({**given, "architecture": "linear", **chosen}), loaded)
        train_ND, dev_ND = inputs_of(run, run.train), inputs_of(run, run.dev)
        truth, classes = run.dev.labels.argmax(dim=1).numpy(), manifest.classes
        for class_weight in choices["class_weight"]:
            solution: tuple[Tensor, Tensor] | None = None
            for c in choices["c"]:  # each from the one before: the penalty is lifted step by step
                config = dataclasses.replace(run.config, class_weight=class_weight, c=c)
                weights = class_weights(config, run.train)
                solution = solve(train_ND.numpy(), run.train.labels, weights, c, solution)
                predicted = (dev_ND @ solution[0].T + solution[1]).argmax(dim=1).numpy()
                score = value_of(classification_metrics(truth, predicted, classes), objective)
                done += 1
                if score > best_score:
                    best, best_score = config, score
                yield done, total, best
    if best is None:
        nothing = FileNotFoundError(f"{features_dir}: holds no features of speech or of text")
        raise refused or nothing


def fitted(config: TrainConfig, manifest: Manifest, features_dir: Path, objective: str) -> Run:
    """A finished run of the linear system."""
    features = load_features(manifest, features_dir, config.audio_feature, config.context)
    run = begin(config, features, objective=objective)
    for _ in fit(run):
        pass
    return run
