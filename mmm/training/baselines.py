"""What a sweep has to beat: the majority class, and the linear system on speech, text and both,
tuned on validation.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from mmm.features.named import encoders_in
from mmm.manifest import Manifest
from mmm.metrics import Metrics, classification_metrics, mean_over_folds, value_of
from mmm.training.batches import labelled_rows
from mmm.training.class_weights import class_weights
from mmm.training.config import POOLINGS, Params, ParamValue, TrainConfig, make_config
from mmm.training.features import load_features
from mmm.training.fit import fit
from mmm.training.linear import inputs_of, solve
from mmm.training.run import Run, begin

C_GRID = (0.0001, 0.001, 0.01, 0.1, 1.0)
CLASS_WEIGHTS = ("none", "inverse")
_BEST_OF_FOLD = 3  # settings of the first fold that are tried on all
BEST_ALONE = 2  # of speech and of text, that are tried together: all would be hundreds of fits
_SETTINGS = {
    "speech": ("speech", "audio_feature", "pooling", "layer_mix"),
    "text": ("text", "context"),
}


@dataclass(frozen=True)
class Baseline:
    """One baseline's best setting by `objective` on validation, with its validation metrics."""

    name: str
    settings: Params
    metrics: Metrics


def baselines(
    manifest: Manifest, features_dir: Path, objective: str = "macro_f1", *, folds: bool = False
) -> Iterator[Baseline]:
    """Yield the majority class, then logistic regression on each speech encoder, on each text
    encoder, and on both, as `tuned` finds it. `folds`: means over the manifest's folds.
    """
    parts = [(manifest.rows("train"), manifest.rows("dev"))]
    if folds:
        parts = [manifest.fold_rows(fold) for fold in range(1, manifest.num_folds + 1)]
    majorities = [_majority(manifest, *rows) for rows in parts]
    name = " or ".join(dict.fromkeys(name for name, _ in majorities))
    yield Baseline(f"always {name}", {}, mean_over_folds([metrics for _, metrics in majorities]))
    tuning = _Tuning(manifest, features_dir, objective, {}, folds=folds)
    for inputs in ("speech", "text"):
        best: dict[ParamValue, tuple[float, TrainConfig]] = {}
        for _ in tuning.alone(inputs):
            pass
        for score, config in tuning.found[inputs]:
            encoder = getattr(config, inputs)
            if encoder not in best or score > best[encoder][0]:
                best[encoder] = score, config
        for _, config in best.values():
            yield _as_baseline(config, manifest, features_dir, objective, folds=folds)
    *_, (*_, both) = tuning.both()
    assert both is not None
    yield _as_baseline(both, manifest, features_dir, objective, folds=folds)


def _majority(manifest: Manifest, train: list[int], dev: list[int]) -> tuple[str, Metrics]:
    """The most frequent class of the training rows, and what answering it always scores."""
    taught = labelled_rows(manifest, train, "expand")
    asked = labelled_rows(manifest, dev, "expand")
    truth = asked.truth.numpy()
    majority = np.full_like(truth, int(taught.shares.sum(dim=0).argmax()))
    name = manifest.classes[int(majority[0])]
    return name, classification_metrics(truth, majority, asked.names)


def _as_baseline(
    config: TrainConfig,
    manifest: Manifest,
    features_dir: Path,
    objective: str,
    *,
    folds: bool = False,
) -> Baseline:
    if folds:
        metrics = over_folds(config, manifest, features_dir, objective)
    else:
        metrics = fitted(config, manifest, features_dir, objective).best_metrics
    settings: dict[str, ParamValue] = {"C": config.c, "class_weight": config.class_weight}
    for inputs, names in _SETTINGS.items():
        if config.inputs in (inputs, "both"):
            values = {name: getattr(config, name) for name in names}
            settings |= {name: value for name, value in values.items() if value is not None}
    what = config.inputs
    if what != "both":
        what = getattr(config, what) or what
    return Baseline(f"logistic regression, {what}", settings, metrics)


def tuned(
    manifest: Manifest, features_dir: Path, objective: str, given: Params, *, folds: bool = False
) -> Iterator[tuple[int, int, TrainConfig | None]]:
    """Tune the linear system on validation by `objective`: C, the weights of classes, and which of
    the folder's features it is fitted on.

    Speech and text are tuned alone, over every encoder, audio feature, pooling and context that the
    folder holds of the whole manifest; then the best two of each are tried together. `given`
    settings are not tuned; without `inputs` it is the best of speech, text and both. Yields how
    many fits are done of how many, and the best settings so far. Raises ValueError or
    FileNotFoundError as `load_features` where none can be used.

    `folds`: all are tried on the manifest's first fold, as a sweep's trials are, and the best few
    of these on all of them; the best mean wins.
    """
    tuning = _Tuning(manifest, features_dir, objective, given, folds=folds)
    inputs = given.get("inputs")
    if inputs is not None:
        yield from tuning.both() if inputs == "both" else tuning.alone(str(inputs))
        return
    for one in ("speech", "text"):
        yield from ((done, total, None) for done, total, _ in tuning.alone(one))
    done, total = 0, 0
    for done, total, _ in tuning.both():
        yield done, total, None
    every = sorted(
        (found for inputs in tuning.found.values() for found in inputs), key=lambda found: -found[0]
    )
    best = every[0][1]
    if folds:
        means = {}
        for place, (_, config) in enumerate(every[:_BEST_OF_FOLD], start=1):
            metrics = over_folds(config, manifest, features_dir, objective)
            means[place] = value_of(metrics, objective)
            yield done, total, best
        best = every[max(means, key=lambda place: means[place]) - 1][1]
    yield done, total, best


class _Tuning:
    """A search over the linear system's settings, and what it has found: scores and settings of
    each choice of `speech`, of `text` and of `both`, in the order they were tried.
    """

    def __init__(
        self,
        manifest: Manifest,
        features_dir: Path,
        objective: str,
        given: Params,
        *,
        folds: bool = False,
    ) -> None:
        self._fold = 1 if folds else None
        self.manifest, self.features_dir, self.objective = manifest, features_dir, objective
        self.given = {name: value for name, value in given.items() if value is not None}
        self.found: dict[str, list[tuple[float, TrainConfig]]] = {}
        self._done = self._total = 0
        self._choices = {"speech": self._speech(), "text": self._text()}
        if not all(self._choices.values()):
            config = make_config({**self.given, "architecture": "linear"})
            load_features(manifest, features_dir, *config.features_key)  # says what is missing
            raise FileNotFoundError(f"{features_dir}/ holds no features for {self.given}")
        weights = [str(given["class_weight"])] if given.get("class_weight") else CLASS_WEIGHTS
        grid = [float(given["c"])] if given.get("c") else C_GRID  # type: ignore[arg-type]
        self._grid = list(itertools.product(weights, grid))

    def alone(self, inputs: str) -> Iterator[tuple[int, int, TrainConfig | None]]:
        """Speech or text without the other."""
        if inputs in self.found:
            return
        other = {"speech": "text", "text": "speech"}[inputs]
        # The other is not looked at, but a store of it has to be there.
        beside = {**self._choices[other][0], "inputs": inputs}
        yield from self._tries(inputs, [{**beside, **one} for one in self._choices[inputs]])

    def both(self) -> Iterator[tuple[int, int, TrainConfig | None]]:
        """Speech and text together, the best two of each."""
        best: dict[str, list[Params]] = {}
        num_kept = 1
        for choices in self._choices.values():
            num_kept *= min(BEST_ALONE, len(choices))
        self._total += num_kept * len(self._grid)
        for inputs, choices in self._choices.items():
            best[inputs] = choices
            if len(choices) > BEST_ALONE:
                yield from ((done, total, None) for done, total, _ in self.alone(inputs))
                ranked = sorted(self.found[inputs], key=lambda one: -one[0])[:BEST_ALONE]
                best[inputs] = [
                    {name: getattr(config, name) for name in _SETTINGS[inputs]}
                    for _, config in ranked
                ]
        self._total -= num_kept * len(self._grid)
        together = itertools.product(best["speech"], best["text"])
        yield from self._tries("both", [{**one, **other} for one, other in together])

    def _tries(
        self, inputs: str, choices: Sequence[Params]
    ) -> Iterator[tuple[int, int, TrainConfig | None]]:
        found = self.found[inputs] = []
        self._total += len(choices) * len(self._grid)
        refused: Exception | None = None
        best_score, best = -1.0, None
        for choice in choices:
            try:
                fits = list(self._fits({"inputs": inputs, **self.given, **choice}))
            except (ValueError, FileNotFoundError) as error:
                # Made for another corpus, or for a part of this one.
                refused = refused or error
                self._total -= len(self._grid)
            else:
                found.append(max(fits, key=lambda one: one[0]))
                if found[-1][0] > best_score:
                    best_score, best = found[-1]
            yield self._done, self._total, best
        if best is None:
            raise refused or FileNotFoundError(f"{self.features_dir}: holds no features")

    def _fits(self, settings: Params) -> Iterator[tuple[float, TrainConfig]]:
        config = make_config({**settings, "architecture": "linear"})
        loaded = load_features(self.manifest, self.features_dir, *config.features_key)
        run = begin(config, loaded, fold=self._fold)
        train_ND, dev_ND = inputs_of(run, run.train), inputs_of(run, run.dev)
        truth, classes = run.dev.truth.numpy(), run.dev.names
        solution: tuple[Tensor, Tensor] | None = None
        for class_weight, c in self._grid:
            config = dataclasses.replace(run.config, class_weight=class_weight, c=c)
            weights = class_weights(config, run.train)
            # Each from the one before: the penalty is lifted step by step.
            solution = solve(
                train_ND.numpy(),
                run.train.labels,
                weights,
                c,
                solution if c != self._grid[0][1] else None,
            )
            predicted = (dev_ND @ solution[0].T + solution[1]).argmax(dim=1).numpy()
            metrics = classification_metrics(truth, predicted, classes)
            self._done += 1
            yield value_of(metrics, self.objective), config

    def _speech(self) -> list[Params]:
        """Every choice of speech vectors: encoder, feature, pooling, and the mean of all layers."""
        there = [
            one for one in encoders_in(self.features_dir, self.manifest.path) if one.kind == "audio"
        ]
        found: list[Params] = []
        mixed: set[Path] = set()
        for one in there:
            name = one.name if len(there) > 1 else None
            mixes: list[tuple[str, str]] = [(feature, "one") for feature in one.audio_features]
            if one.layers is not None and one.layers not in mixed:
                mixed.add(one.layers)
                mixes.append(("hidden_state", "mean"))
            for (feature, mix), pooling in itertools.product(mixes, POOLINGS):
                found.append(
                    {"speech": name, "audio_feature": feature, "pooling": pooling, "layer_mix": mix}
                )
        return self._matching(found)

    def _text(self) -> list[Params]:
        there = [
            one for one in encoders_in(self.features_dir, self.manifest.path) if one.kind == "text"
        ]
        return self._matching(
            [
                {"text": one.name if len(there) > 1 else None, "context": context}
                for one in there
                for context in one.contexts
            ]
        )

    def _matching(self, choices: Sequence[Params]) -> list[Params]:
        """Those that agree with what is given."""
        return [
            choice
            for choice in choices
            if all(self.given.get(name, value) == value for name, value in choice.items())
        ]


def over_folds(
    config: TrainConfig, manifest: Manifest, features_dir: Path, objective: str
) -> Metrics:
    """Means of what the linear system scores on each fold, fitted without it."""
    runs = (
        fitted(config, manifest, features_dir, objective, fold)
        for fold in range(1, manifest.num_folds + 1)
    )
    return mean_over_folds([run.best_metrics for run in runs])


def fitted(
    config: TrainConfig,
    manifest: Manifest,
    features_dir: Path,
    objective: str,
    fold: int | None = None,
) -> Run:
    """A finished run of the linear system."""
    features = load_features(manifest, features_dir, *config.features_key)
    run = begin(config, features, objective=objective, fold=fold)
    for _ in fit(run):
        pass
    return run
