"""How sure a metric is: bootstrap intervals over dialogues.

Turns of one dialogue have speakers, topic and mood in common, so that dialogues are drawn and not
utterances (the cluster bootstrap, Davison & Hinkley 1997, Bootstrap Methods and their Application,
section 3.8). The model stays as it is: what another seed or another search would give is not in the
interval.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

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
