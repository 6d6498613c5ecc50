"""Dealing groups of utterances to parts, splits or folds, so that each part has its share of every
class.

Stratifying groups has no exact solution that is quick; this deals the largest group first to the
part that lacks its classes most, as scikit-learn's StratifiedGroupKFold does, and then moves and
swaps groups while that helps. scikit-learn's has parts of one size alone, one label an utterance,
and none without a label.
"""

from collections.abc import Collection, Hashable, Sequence

import numpy as np
import numpy.typing as npt

_MOST_TO_SWAP = 400  # groups; with more of them moves are enough, and swaps are slow
_MOST_ROUNDS = 50
_LEAST_GAIN = 1e-9


def joined(keys: Sequence[Sequence[Hashable]]) -> list[int]:
    """A group for each row; rows that share a key, also through others, are in one. Groups are
    numbered from 0 in the order of their first rows.
    """
    parent = list(range(len(keys)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    first: dict[Hashable, int] = {}
    for row, own in enumerate(keys):
        for key in own:
            other, here = root(first.setdefault(key, row)), root(row)
            parent[max(other, here)] = min(other, here)
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(row), len(numbers)) for row in range(len(keys))]


def deal_groups(
    labels: Sequence[Collection[str]], groups: Sequence[int], shares: Sequence[float], seed: int
) -> list[int]:
    """A part for each row, 0 to P - 1, groups whole. `shares` (P) are above 0 and sum to 1; each
    part gets a group at least. The same seed and rows give the same parts.

    Raises ValueError where there are fewer groups than parts.
    """
    num_groups, num_parts = max(groups, default=-1) + 1, len(shares)
    if num_groups < num_parts:
        raise ValueError(f"{num_groups} groups for {num_parts} parts")
    counts_GC = _counts(labels, groups, num_groups)
    wanted_PC = np.outer(shares, counts_GC.sum(axis=0))
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(num_groups)
    order = shuffled[np.argsort(-counts_GC[shuffled].max(axis=1), kind="stable")]
    part_G = np.full(num_groups, -1)
    has_PC = np.zeros_like(wanted_PC)
    sizes_P = np.zeros(num_parts, dtype=int)
    for place, group in enumerate(order):
        empty = np.flatnonzero(sizes_P == 0)
        must_fill = num_groups - place == len(empty)
        choices = empty if must_fill else np.arange(num_parts)
        losses = _losses_with(has_PC, wanted_PC, counts_GC[group])[choices]
        part_G[group] = choices[int(np.argmin(losses.round(12)))]
        has_PC[part_G[group]] += counts_GC[group]
        sizes_P[part_G[group]] += 1
    _improve(counts_GC, wanted_PC, part_G, has_PC, order)
    return [int(part_G[group]) for group in groups]


def _counts(
    labels: Sequence[Collection[str]], groups: Sequence[int], num_groups: int
) -> npt.NDArray[np.float64]:
    """(G, C + 1): of each group its share of each class, and of all rows. An utterance with several
    labels is divided among them.
    """
    classes = {name: place for place, name in enumerate(sorted({n for own in labels for n in own}))}
    counts_GC = np.zeros((num_groups, len(classes) + 1))
    for own, group in zip(labels, groups, strict=True):
        for name in own:
            counts_GC[group, classes[name]] += 1 / len(own)
        counts_GC[group, -1] += 1
    found: npt.NDArray[np.float64] = counts_GC / counts_GC.sum(axis=0)
    return found


def _losses_with(
    has_PC: npt.NDArray[np.float64],
    wanted_PC: npt.NDArray[np.float64],
    group_C: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """(P): by how much each part would be further from its share with the group than without."""
    lacks_PC = wanted_PC - has_PC
    found: npt.NDArray[np.float64] = ((lacks_PC - group_C) ** 2 - lacks_PC**2).sum(axis=1)
    return found


def _improve(
    counts_GC: npt.NDArray[np.float64],
    wanted_PC: npt.NDArray[np.float64],
    part_G: npt.NDArray[np.int64],
    has_PC: npt.NDArray[np.float64],
    order: npt.NDArray[np.int64],
) -> None:
    """Moves groups to other parts, and swaps pairs, while the squared distance to the shares falls.
    No part is left empty.
    """
    num_parts = len(wanted_PC)

    def gain(group_C: npt.NDArray[np.float64], source: int) -> npt.NDArray[np.float64]:
        """(..., P): of moving (..., C) from its part to each of the others."""
        excess_PC = has_PC - wanted_PC
        leaves = (excess_PC[source] ** 2 - (excess_PC[source] - group_C) ** 2).sum(axis=-1)
        comes = (excess_PC**2 - (excess_PC + group_C[..., None, :]) ** 2).sum(axis=-1)
        found: npt.NDArray[np.float64] = leaves[..., None] + comes
        return found

    for _ in range(_MOST_ROUNDS):
        is_better = False
        for group in order:
            source = int(part_G[group])
            if (part_G == source).sum() > 1:
                gains = gain(counts_GC[group], source)
                gains[source] = 0
                target = int(np.argmax(gains.round(12)))
                if gains[target] > _LEAST_GAIN:
                    has_PC[source] -= counts_GC[group]
                    has_PC[target] += counts_GC[group]
                    part_G[group], is_better = target, True
                    continue
            if len(order) > _MOST_TO_SWAP:
                continue
            # What changes sides when the group goes to another's part and that one comes here.
            change_GC = counts_GC[group] - counts_GC
            swaps_GP = gain(change_GC, source)
            swaps_G = swaps_GP[np.arange(len(part_G)), part_G]
            swaps_G[part_G == source] = 0
            other = int(np.argmax(swaps_G.round(12)))
            if swaps_G[other] > _LEAST_GAIN:
                target = int(part_G[other])
                has_PC[source] -= change_GC[other]
                has_PC[target] += change_GC[other]
                part_G[group], part_G[other], is_better = target, source, True
        if not is_better:
            break
    assert set(part_G.tolist()) == set(range(num_parts))
