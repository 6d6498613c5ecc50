"""Metrics of the field over a manifest's classes."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

# What a sweep may maximise: rule 6, the objective is higher-is-better.
OBJECTIVES = (
    "macro_f1",
    "unweighted_recall",
    "accuracy",
    "weighted_f1",
    "weighted_precision",
    "weighted_recall",
)


LEVEL = 0.95  # the share of resamples in a bootstrap interval
RESAMPLES = 2000


class ClassScores(TypedDict):
    """Scores of one class; `support` counts its rows."""

    precision: float
    recall: float
    f1: float
    support: int


class Metrics(TypedDict, total=False):
    """Scores of a model on one split, as ledgers, checkpoints and bundles keep them; empty before
    there are any.
    """

    loss: float  # mean cross-entropy in nats, where there were probabilities
    accuracy: float
    weighted_precision: float
    weighted_recall: float
    weighted_f1: float
    macro_f1: float
    unweighted_recall: float
    recall_sd: float
    per_class: dict[str, ClassScores]
    confusion_matrix: list[list[int]]  # rows: true, columns: predicted


def value_of(metrics: Metrics, name: str) -> float:
    """One of OBJECTIVES, or another metric that is a number, by its name."""
    return float(metrics[name])  # type: ignore[literal-required]


def classification_metrics(
    true: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], classes: Sequence[str]
) -> Metrics:
    """Metrics of class indices `true` and `predicted`, both (N,).

    Classes that do not occur count with zero, as scikit-learn's zero_division=0 where it is told
    the `labels`; a class that is never predicted, because the model does not have it, is one of
    `classes` all the same. `recall_sd` is the
    population standard deviation of per-class recall over the classes that occur in `true`
    (reported by the published work).
    """
    matrix = np.bincount(true * len(classes) + predicted, minlength=len(classes) ** 2).reshape(
        len(classes), len(classes)
    )
    support, chosen, right = matrix.sum(axis=1), matrix.sum(axis=0), np.diag(matrix)
    precision, recall = right / np.maximum(chosen, 1), right / np.maximum(support, 1)
    f1 = 2 * right / np.maximum(support + chosen, 1)
    weight = support / support.sum()
    return {
        "accuracy": float(right.sum() / matrix.sum()),
        "weighted_precision": float(precision @ weight),
        "weighted_recall": float(recall @ weight),
        "weighted_f1": float(f1 @ weight),
        "macro_f1": float(f1.mean()),
        "unweighted_recall": float(recall[support > 0].mean()),
        "recall_sd": float(recall[support > 0].std()),
        "per_class": {
            name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
            for name, p, r, f, n in zip(classes, precision, recall, f1, support, strict=True)
        },
        "confusion_matrix": matrix.tolist(),
    }


def mean_over_folds(folds: Sequence[Metrics]) -> Metrics:
    """What models of k folds score, each on its own held-out part: means of scores, sums of counts.

    The mean of macro F1 over folds is not the macro F1 of all held-out rows together.
    """
    names = [name for name, value in folds[0].items() if isinstance(value, float)]
    mean = {name: float(np.mean([value_of(fold, name) for fold in folds])) for name in names}
    tables: Metrics = {}
    if "per_class" in folds[0]:
        tables["per_class"] = {
            name: {
                "precision": float(
                    np.mean([fold["per_class"][name]["precision"] for fold in folds])
                ),
                "recall": float(np.mean([fold["per_class"][name]["recall"] for fold in folds])),
                "f1": float(np.mean([fold["per_class"][name]["f1"] for fold in folds])),
                "support": sum(fold["per_class"][name]["support"] for fold in folds),
            }
            for name in folds[0]["per_class"]
        }
    if "confusion_matrix" in folds[0]:
        tables["confusion_matrix"] = np.sum(
            [fold["confusion_matrix"] for fold in folds], axis=0
        ).tolist()
    return {**mean, **tables}  # type: ignore[typeddict-item]


def macro_f1_of_occurring(metrics: Metrics) -> float:
    """Macro F1 as scikit-learn's `f1_score` has it where it is not told the labels: over the
    classes that occur in the truth or are predicted.
    """
    chosen = np.sum(metrics["confusion_matrix"], axis=0)
    of_classes = zip(metrics["per_class"].values(), chosen, strict=True)
    return float(np.mean([own["f1"] for own, times in of_classes if own["support"] or times]))


def scalar_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that are one number, per-class F1 as f1_CLASS included."""
    scalars = {name: value for name, value in metrics.items() if isinstance(value, float)}
    return scalars | {f"f1_{name}": values["f1"] for name, values in metrics["per_class"].items()}


def bootstrap_intervals(
    true: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    dialogues: Sequence[str],
    num_classes: int,
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals of macro_f1, unweighted_recall, accuracy and weighted_f1 of class
    indices (N,), `dialogues` naming that of each row.

    Whole dialogues are drawn, because the rows of one are alike (Efron and Tibshirani 1993,
    chapter 8). The same input gives the same intervals.
    """
    matrix = _resampled(true, predicted, dialogues, num_classes)
    right, support, chosen = matrix.diagonal(axis1=1, axis2=2), matrix.sum(axis=2), matrix.sum(1)
    f1 = 2 * right / np.maximum(support + chosen, 1)
    recall = right / np.maximum(support, 1)
    total = support.sum(axis=1)
    resampled = {
        "macro_f1": f1.mean(axis=1),
        "unweighted_recall": recall.sum(axis=1) / (support > 0).sum(axis=1),
        "accuracy": right.sum(axis=1) / total,
        "weighted_f1": (f1 * support).sum(axis=1) / total,
    }
    edges = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    return {
        name: (float(low), float(high))
        for name, values in resampled.items()
        for low, high in [np.quantile(values, edges)]
    }


def class_f1_intervals(
    true: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    dialogues: Sequence[str],
    num_classes: int,
) -> list[tuple[float, float]]:
    """The same of each class' F1, over the resamples in which the class occurs or is predicted;
    (0, 0) where there is none.
    """
    matrix = _resampled(true, predicted, dialogues, num_classes)
    right = matrix.diagonal(axis1=1, axis2=2)
    either = matrix.sum(axis=2) + matrix.sum(axis=1)
    found = []
    for own_right, own_either in zip(right.T, either.T, strict=True):
        there = own_either > 0
        f1 = 2 * own_right[there] / own_either[there] if there.any() else np.zeros(1)
        low, high = np.quantile(f1, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        found.append((float(low), float(high)))
    return found


def _resampled(
    true: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    dialogues: Sequence[str],
    num_classes: int,
) -> npt.NDArray[np.float64]:
    """(RESAMPLES, C, C) the confusion matrix of each resample of whole dialogues."""
    _, group = np.unique(np.asarray(dialogues), return_inverse=True)
    num_groups = int(group.max()) + 1
    cells = np.zeros((num_groups, num_classes * num_classes))
    np.add.at(cells, (group, true * num_classes + predicted), 1)
    drawn = np.random.default_rng(0).multinomial(
        num_groups, np.full(num_groups, 1 / num_groups), size=RESAMPLES
    )
    found: npt.NDArray[np.float64] = drawn @ cells
    return found.reshape(RESAMPLES, num_classes, num_classes)
