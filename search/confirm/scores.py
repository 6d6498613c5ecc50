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
    counts = np.zeros((len(predicted), num_cells, num_classes, num_classes))
    for run, said in enumerate(predicted):
        np.add.at(counts[run], (cells, truth, said), 1)
    return counts


def influence(counts: Array, metric: str) -> Array:
    """(S, P): by how much a run's score would rise if a cell had twice the weight, to first order
    (the infinitesimal jackknife, Efron and Tibshirani 1993, chapter 22). Each run's sum is 0.
    """
    runs, _, classes, _ = counts.shape
    whole = counts.sum(axis=1)  # (S, C, C)
    steps = _STEP * np.eye(classes * classes).reshape(-1, 1, classes, classes)
    change = (scores_of(whole + steps, metric) - scores_of(whole - steps, metric)) / (2 * _STEP)
    gradient = change.T.reshape(runs, classes * classes)
    flat = counts.reshape(runs, -1, classes * classes)
    return np.asarray(np.einsum("spc,sc->sp", flat, gradient))
