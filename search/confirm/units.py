"""What is drawn when a score's uncertainty is estimated: whole groups of rows that are alike, by
speaker, dialogue or audio content.

Rows of a group are not independent, so that a resample of rows would promise too much (Efron and
Tibshirani 1993, chapter 8).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FEWEST = 10  # groups, below which an interval would be a guess
_MOST = 2  # groupings that cross and are drawn both


@dataclass(frozen=True)
class Units:
    """The groupings of rows that are drawn, the coarsest first; none where every one has too few
    groups.
    """

    names: tuple[str, ...]
    num_groups: tuple[int, ...]
    cells: npt.NDArray[np.int64]  # (N,) which cell each row is in: those of the same groups
    of_cells: npt.NDArray[np.int64]  # (K, P) group of each cell in each grouping
    limits: tuple[str, ...] = ()  # what nobody can tell from so few

    @property
    def num_cells(self) -> int:
        return int(self.of_cells.shape[1])

    @property
    def words(self) -> str:
        """`40 dialogues x 82 audio files`."""
        named = zip(self.num_groups, self.names, strict=True)
        return " x ".join(f"{number} {_PLURALS.get(name, name)}" for number, name in named)


_PLURALS = {"speaker": "speakers", "dialogue": "dialogues", "audio": "audio files"}


def choose_units(groupings: Mapping[str, Sequence[str]]) -> Units:
    """The units of N rows. `groupings`: by name, the group of each row; a row whose group is ""
    says that nobody knows, and the grouping is then not used.

    The coarsest with at least FEWEST groups; what lies within it is drawn with it. Of those that
    cross it the coarsest is drawn, too.
    """
    ids, limits = {}, []
    for name, groups in groupings.items():
        found, of_rows = np.unique(np.asarray(groups), return_inverse=True)
        many = _PLURALS.get(name, name)
        if "" in found:
            limits.append(f"{many} are not known")
        elif len(found) < FEWEST:
            limits.append(f"{len(found)} {many}, fewer than {FEWEST}: others may differ")
        else:
            ids[name] = of_rows.astype(np.int64)
    by_number = sorted(ids, key=lambda name: int(ids[name].max()))
    chosen: list[str] = []
    for name in by_number:
        if len(chosen) < _MOST and not any(_is_within(ids[name], ids[one]) for one in chosen):
            chosen.append(name)
    if not chosen:
        rows = len(next(iter(groupings.values())))
        none = np.zeros(rows, dtype=np.int64)
        return Units((), (), none, np.zeros((0, 1), dtype=np.int64), tuple(limits))
    of_cells, cells = np.unique(
        np.stack([ids[name] for name in chosen]), axis=1, return_inverse=True
    )
    return Units(
        tuple(chosen),
        tuple(int(ids[name].max()) + 1 for name in chosen),
        cells.reshape(-1).astype(np.int64),
        of_cells,
        tuple(limits),
    )


def _is_within(fine: npt.NDArray[np.int64], coarse: npt.NDArray[np.int64]) -> bool:
    """Whether each group of `fine` lies in one group of `coarse`."""
    pairs = np.unique(np.stack([fine, coarse]), axis=1)
    return bool(pairs.shape[1] == int(fine.max()) + 1)
