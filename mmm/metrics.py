"""Metrics of the field over a manifest's classes."""

from collections.abc import Sequence
from typing import Any

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


def classification_metrics(
    true: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], classes: Sequence[str]
) -> dict[str, Any]:
    """Metrics of class indices `true` and `predicted`, both (N,).

    Classes that do not occur count with zero, as scikit-learn's zero_division=0. `recall_sd` is the
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


def scalar_metrics(metrics: dict[str, Any]) -> dict[str, float]:
    """The metrics that are one number, per-class F1 as f1_CLASS included."""
    scalars = {name: value for name, value in metrics.items() if isinstance(value, float)}
    return scalars | {f"f1_{name}": values["f1"] for name, values in metrics["per_class"].items()}


RESAMPLES = 2000
LEVEL = 0.95


def bootstrap_intervals(
    true: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    dialogues: Sequence[str],
    num_classes: int,
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals of the metrics of class indices (N,), `dialogues` naming that of
    each row.

    macro_f1, unweighted_recall, accuracy and weighted_f1 as mmm.metrics computes them. The same
    input gives the same intervals.
    """
    _, group = np.unique(np.asarray(dialogues), return_inverse=True)
    num_groups = int(group.max()) + 1
    cells = np.zeros((num_groups, num_classes * num_classes))
    np.add.at(cells, (group, true * num_classes + predicted), 1)
    drawn = np.random.default_rng(0).multinomial(
        num_groups, np.full(num_groups, 1 / num_groups), size=RESAMPLES
    )
    matrix = (drawn @ cells).reshape(
        RESAMPLES, num_classes, num_classes
    )  # a confusion matrix of each resample
    right, support, named = (
        matrix.diagonal(axis1=1, axis2=2),
        matrix.sum(axis=2),
        matrix.sum(axis=1),
    )
    f1 = 2 * right / np.maximum(support + named, 1)
    recall = right / np.maximum(support, 1)
    total = support.sum(axis=1)
    found = {
        "macro_f1": f1.mean(axis=1),
        "unweighted_recall": recall.sum(axis=1) / (support > 0).sum(axis=1),
        "accuracy": right.sum(axis=1) / total,
        "weighted_f1": (f1 * support).sum(axis=1) / total,
    }
    edges = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    return {
        name: (float(low), float(high))
        for name, values in found.items()
        for low, high in [np.quantile(values, edges)]
    }
