"""Scores of confusion matrices, many at once, and how they move with each cell of rows."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
_STEP = 1e-3  # of a count


def scores_of(matrix: Array, metric: str) -> Array:
    """(...) scores of (..., C, C) confusion matrices, rows: true, columns: predicted; `metric` is
    one of mmm.metrics.OBJECTIVES and counted as there.
    """
    right = np.diagonal(matrix, axis1=-2, axis2=-1)
    support, chosen = matrix.sum(axis=-1), matrix.sum(axis=-2)
    total = np.maximum(support.sum(axis=-1), _STEP)
    if metric in ("accuracy", "weighted_recall"):
        return np.asarray(right.sum(axis=-1) / total)
    if metric == "weighted_precision":
        precision = right / np.maximum(chosen, 1)
        return np.asarray((precision * support).sum(axis=-1) / total)
    if metric == "unweighted_recall":
        there = support > 0
        recall = right / np.where(there, support, 1)
        return np.asarray((recall * there).sum(axis=-1) / np.maximum(there.sum(axis=-1), 1))
    f1 = 2 * right / np.maximum(support + chosen, 1)
    if metric == "weighted_f1":
        return np.asarray((f1 * support).sum(axis=-1) / total)
    assert metric == "macro_f1", metric
    return np.asarray(f1.mean(axis=-1))


def counts_of(
    truth: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    cells: npt.NDArray[np.int64],
    num_cells: int,
    num_classes: int,
) -> Array:
    """(S, P, C, C) confusion matrices of each cell of rows, of S runs' predictions (S, N); `truth`
    and `cells` are (N,).
    """
    places = (cells * num_classes + truth) * num_classes + predicted
    size = num_cells * num_classes**2
    counts = np.stack([np.bincount(of_run, minlength=size) for of_run in places])
    return counts.reshape(-1, num_cells, num_classes, num_classes).astype(np.float64)


def of_groups(counts: Array, of_cells: npt.NDArray[np.int64], number: int) -> Array:
    """(S, G, C, C) sums of (S, P, C, C) counts over each of `number` groups of cells."""
    of_each = np.zeros((number, len(of_cells)))
    of_each[of_cells, np.arange(len(of_cells))] = 1
    flat = counts.reshape(len(counts), len(of_cells), -1)
    return np.asarray((of_each @ flat).reshape(len(counts), number, *counts.shape[2:]))


def left_out_scores(groups: Array, metric: str) -> Array:
    """(S, G) scores of each run without each group, whose counts are (S, G, C, C)."""
    return scores_of(groups.sum(axis=1, keepdims=True) - groups, metric)
