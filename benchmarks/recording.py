"""A recording of learning curves (benchmarks/record_curves.py) as something that a search can be
run against.

Two ways to answer for settings that were not recorded: a surrogate of whole curves and seconds,
fitted to the recording, and the nearest recorded settings that were not used yet. The target is the
mean over seeds; what a trial observes is that, with the deviation of one recorded seed from its
mean.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from optuna.distributions import CategoricalDistribution, json_to_distribution
from scipy.stats import spearmanr
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold

from spaces import SPACES, Space

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Curve:
    """What training one setting once would show: observed and true score of each epoch, and the
    seconds of each.
    """

    observed: Array
    true: Array
    seconds: Array


class Task(Protocol):
    """Something to search: a space and, for parameters that it suggests, a curve."""

    name: str
    space: Space
    epochs: int

    def curve(self, params: dict[str, Any], rng: np.random.Generator) -> Curve: ...

    def restart(self) -> None:
        """Forget what was used: a new sweep begins."""


class Encoding:
    """Parameters as numbers: categories one-hot, numbers scaled to [0, 1] (logarithmic ones by
    their logarithm).
    """

    def __init__(self, distributions: dict[str, str]) -> None:
        self.distributions = {
            name: json_to_distribution(text) for name, text in distributions.items()
        }

    def __call__(self, params: dict[str, Any]) -> Array:
        row: list[float] = []
        for name, distribution in self.distributions.items():
            value = params.get(name)
            if isinstance(distribution, CategoricalDistribution) and not all(
                isinstance(choice, int) for choice in distribution.choices
            ):
                row += [float(value == choice) for choice in distribution.choices]
                continue
            if isinstance(
                distribution, CategoricalDistribution
            ):  # widths, heads, batch sizes: powers of two
                low, high, is_log = min(distribution.choices), max(distribution.choices), True
            else:
                low, high, is_log = distribution.low, distribution.high, distribution.log
            if value is None:
                row.append(0.5)
            elif is_log:
                row.append(float(np.log(value / low) / np.log(high / low)))
            else:
                row.append((value - low) / (high - low))
        return np.array(row)


class Recording:
    """The lines of a recording, and what is needed to answer from them."""

    def __init__(self, path: Path) -> None:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        self.about = lines[0]["about"]
        self.name = path.stem
        self.epochs = int(self.about["epochs"])
        self.encoding = Encoding(self.about["distributions"])
        runs = [line for line in lines[1:] if len(line["macro_f1"]) == self.epochs]
        self.num_failed = len(lines) - 1 - len(runs)
        self.params: list[dict[str, Any]] = []
        curves, seconds, spread = [], [], []
        self.deviations: dict[str, list[Array]] = {}
        by_setting: dict[int, list[dict[str, Any]]] = {}
        for run in runs:
            by_setting.setdefault(run["setting"], []).append(run)
        for group in by_setting.values():
            group.sort(key=lambda run: run["seed"])
            scores = np.array([run["macro_f1"] for run in group])
            self.params.append(group[0]["params"])
            curves.append(scores.mean(axis=0))
            spread.append(scores[0])
            seconds.append(np.median([run["seconds"] for run in group]))
            if len(group) > 1:
                # Deviations from the mean of n seeds are too small by sqrt((n - 1) / n).
                scale = np.sqrt(len(group) / (len(group) - 1))
                self.deviations.setdefault(group[0]["params"]["architecture"], []).extend(
                    scale * (scores - scores.mean(axis=0))
                )
        self.curves, self.first_seed, self.seconds = (
            np.array(curves),
            np.array(spread),
            np.array(seconds),
        )
        self.features = np.array([self.encoding(params) for params in self.params])
        self.architectures = np.array([params["architecture"] for params in self.params])

    def __len__(self) -> int:
        return len(self.params)


class Trees:
    """Extremely randomised trees on whole curves."""

    def fit(self, features: Array, curves: Array, architectures: np.ndarray[Any, Any]) -> "Trees":
        self.model = ExtraTreesRegressor(100, min_samples_leaf=2, random_state=0).fit(
            features, curves
        )
        # A replay asks for one setting at a time, where scikit-learn's own way in takes 10 ms.
        self._trees = [
            (
                tree.children_left.tolist(),
                tree.children_right.tolist(),
                tree.feature.tolist(),
                tree.threshold.tolist(),
                tree.value[:, :, 0],
            )
            for tree in (one.tree_ for one in self.model.estimators_)
        ]
        return self

    def predict(self, features: Array, architectures: np.ndarray[Any, Any]) -> Array:
        return np.array([self._predict_one(row) for row in features.astype(np.float32)])

    def _predict_one(self, row: np.ndarray[Any, np.dtype[np.float32]]) -> Array:
        values, total = row.tolist(), np.zeros(self._trees[0][4].shape[1])
        for left, right, feature, threshold, value in self._trees:
            node = 0
            while left[node] >= 0:
                node = left[node] if values[feature[node]] <= threshold[node] else right[node]
            total += value[node]
        return total / len(self._trees)


def held_out(recording: Recording) -> tuple[float, float, float]:
    """Error of curves predicted for held-out settings (five folds): RMS over epochs, rank
    correlation of the best epoch's score over all settings, and the mean of those within each
    architecture.
    """
    predicted = np.empty_like(recording.curves)
    for fit, test in KFold(5, shuffle=True, random_state=0).split(recording.features):
        model = Trees().fit(
            recording.features[fit], recording.curves[fit], recording.architectures[fit]
        )
        predicted[test] = model.predict(recording.features[test], recording.architectures[test])
    best, best_true = predicted.max(axis=1), recording.curves.max(axis=1)
    within = [
        spearmanr(best[here], best_true[here])[0]
        for name in np.unique(recording.architectures)
        if (here := recording.architectures == name).any()
    ]
    return (
        float(np.sqrt(np.mean((predicted - recording.curves) ** 2))),
        float(spearmanr(best, best_true)[0]),
        float(np.mean(within)),
    )


class Seconds:
    """Seconds of an epoch: a ridge on logarithms, one an architecture."""

    def fit(self, recording: Recording) -> "Seconds":
        self.models = {}
        for name in np.unique(recording.architectures):
            here = recording.architectures == name
            features = recording.features[here]
            self.models[name] = RidgeCV(np.logspace(-4, 1, 6)).fit(
                self._terms(features), np.log(recording.seconds[here])
            )
        return self

    @staticmethod
    def _terms(features: Array) -> Array:
        return np.column_stack([features, features**2])

    def predict(self, features: Array, architecture: str) -> float:
        return float(np.exp(self.models[architecture].predict(self._terms(features[None]))[0]))


class _OfRecorded:
    """An Optuna trial for which there are no other systems than the recorded ones."""

    def __init__(self, trial: Any, architectures: list[str]) -> None:
        self._trial, self._architectures = trial, architectures

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trial, name)

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        if name == "architecture":
            choices = [choice for choice in choices if choice in self._architectures]
        return self._trial.suggest_categorical(name, choices)


def _space_of(recording: "Recording") -> Space:
    """The recorded space; systems that joined it since are left out."""
    space = SPACES[recording.about["space"]]
    names = sorted(set(recording.architectures.tolist()))
    return replace(
        space,
        suggest=lambda trial: space.suggest(_OfRecorded(trial, names)),
        known_good=tuple(point for point in space.known_good if point["architecture"] in names),
    )


class SurrogateTask:
    """Answers every setting from the surrogate, with the deviation of a recorded seed of its
    architecture.

    Trees, because the searcher under test is a Gaussian process, which would be at home in a
    surrogate of its own kind.
    """

    def __init__(self, recording: Recording) -> None:
        self.recording, self.name, self.epochs = recording, recording.name, recording.epochs
        self.space = _space_of(recording)
        self._curves = Trees().fit(recording.features, recording.curves, recording.architectures)
        self._seconds = Seconds().fit(recording)

    def restart(self) -> None:
        pass

    def curve(self, params: dict[str, Any], rng: np.random.Generator) -> Curve:
        features, architecture = self.recording.encoding(params), params["architecture"]
        true = self._curves.predict(features[None], np.array([architecture]))[0]
        deviations = self.recording.deviations[architecture]
        observed = true + deviations[rng.integers(len(deviations))]
        seconds = np.full(self.epochs, self._seconds.predict(features, architecture))
        return Curve(observed, true, seconds)


class NearestTask:
    """Answers with the nearest recorded settings of the same architecture that the sweep has not
    used yet.
    """

    def __init__(self, recording: Recording) -> None:
        self.recording, self.name, self.epochs = (
            recording,
            f"{recording.name} nearest",
            recording.epochs,
        )
        self.space = _space_of(recording)
        self.restart()

    def restart(self) -> None:
        self._unused = np.ones(len(self.recording), dtype=bool)

    def curve(self, params: dict[str, Any], rng: np.random.Generator) -> Curve:
        features = self.recording.encoding(params)
        distance = np.abs(self.recording.features - features).sum(axis=1)
        distance += np.where(self.recording.architectures == params["architecture"], 0.0, 100.0)
        distance[~self._unused] += 1000.0
        row = int(distance.argmin())
        self._unused[row] = False
        seconds = np.full(self.epochs, self.recording.seconds[row])
        return Curve(self.recording.first_seed[row], self.recording.curves[row], seconds)


def describe(recording: Recording) -> str:
    """How large a recording is, how noisy, and how well each surrogate answers for settings that it
    has not seen.
    """
    noise = np.concatenate([np.array(found) for found in recording.deviations.values()]).std()
    spread = recording.curves.max(axis=1).std()
    counts = {
        str(name): int((recording.architectures == name).sum())
        for name in np.unique(recording.architectures)
    }
    lines = [
        f"{recording.name}: {len(recording)} settings"
        f" ({', '.join(f'{name} {count}' for name, count in counts.items())}),"
        f" {recording.num_failed} runs failed; noise of an epoch {noise:.4f}, spread of the"
        f" settings' best {spread:.4f}"
    ]
    error, everywhere, within = held_out(recording)
    lines.append(
        f"surrogate on settings held out in five folds: RMS error {error:.4f}, rank correlation"
        f" {everywhere:.3f} (within an architecture {within:.3f})"
    )
    return "\n".join(lines)
