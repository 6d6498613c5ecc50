"""Dealing groups to parts: none is divided, none is empty, classes are spread as evenly as
scikit-learn spreads them or more, and the same seed deals the same.
"""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from mmm.corpora.splits import deal_groups, joined

_CLASSES = ("neutral", "happy", "angry", "sad", "fear")


def corpus(
    seed: int, num_groups: int, largest: int = 30
) -> tuple[list[tuple[str, ...]], list[int]]:
    """Labels and groups of utterances; groups have their own sizes and moods, the last class is
    rare.
    """
    rng = np.random.default_rng(seed)
    labels, groups = [], []
    for group in range(num_groups):
        mood = rng.dirichlet([2.0, 1.0, 1.0, 0.7, 0.15])
        for _ in range(int(rng.integers(1, largest))):
            labels.append((str(rng.choice(_CLASSES, p=mood)),))
            groups.append(group)
    return labels, groups


def unevenness(labels: list[tuple[str, ...]], parts: list[int], num_parts: int) -> float:
    """Mean over classes of the deviation between parts' shares of the class."""
    names = sorted({name for own in labels for name in own})
    counts = np.zeros((num_parts, len(names)))
    for own, part in zip(labels, parts, strict=True):
        counts[part, names.index(own[0])] += 1
    return float((counts / counts.sum(axis=0)).std(axis=0).mean())


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    num_groups=st.integers(3, 40),
    shares=st.sampled_from([(0.8, 0.1, 0.1), (0.6, 0.2, 0.2), (0.9, 0.1), (1 / 3,) * 3]),
)
def test_groups_are_whole_and_no_part_is_empty(
    seed: int, num_groups: int, shares: tuple[float, ...]
) -> None:
    labels, groups = corpus(seed, num_groups)
    parts = deal_groups(labels, groups, shares, seed)
    homes = {(group, part) for group, part in zip(groups, parts, strict=True)}
    assert len(homes) == num_groups
    assert {part for _, part in homes} == set(range(len(shares)))
    assert parts == deal_groups(labels, groups, shares, seed)


def test_parts_have_their_shares_of_every_class() -> None:
    labels, groups = corpus(1, 200, largest=8)
    parts = deal_groups(labels, groups, (0.8, 0.1, 0.1), 1)
    for name in _CLASSES:
        own = [part for part, label in zip(parts, labels, strict=True) if label == (name,)]
        for part, share in enumerate((0.8, 0.1, 0.1)):
            wanted = share * len(own)  # to a row, or of the many ones to a fiftieth of all
            assert abs(own.count(part) - wanted) <= max(1, len(own) / 50), (name, part)


@pytest.mark.parametrize(("num_groups", "num_folds"), [(5, 5), (10, 5), (24, 5), (91, 10)])
def test_folds_are_no_less_even_than_scikit_learns(num_groups: int, num_folds: int) -> None:
    """Corpora of the sizes of IEMOCAP's sessions and speakers, RAVDESS and CREMA-D's actors."""
    ours, theirs = [], []
    for seed in range(6):
        labels, groups = corpus(seed, num_groups)
        parts = deal_groups(labels, groups, [1 / num_folds] * num_folds, seed)
        ours.append(unevenness(labels, parts, num_folds))
        splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
        dealt = np.zeros(len(groups), dtype=int)
        names = [own[0] for own in labels]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a class rarer than the folds
            for fold, (_, held_out) in enumerate(splitter.split(names, names, groups)):
                dealt[held_out] = fold
        theirs.append(unevenness(labels, dealt.tolist(), num_folds))
    assert np.mean(ours) <= np.mean(theirs) + 1e-9


def test_a_rare_class_is_in_train_and_not_wholly_in_one_fold() -> None:
    labels = [("sad",)] * 30 + [("fear",), ("fear",)]
    groups = [n // 3 for n in range(30)] + [10, 11]
    for seed in range(10):
        parts = deal_groups(labels, groups, (0.8, 0.1, 0.1), seed)
        assert 0 in parts[30:]
        folds = deal_groups(labels, groups, (0.2,) * 5, seed)
        assert folds[30] != folds[31]


def test_utterances_of_several_labels_and_of_none_are_dealt_too() -> None:
    labels: list[tuple[str, ...]] = [("sad", "happy"), (), ("sad",), (), ("happy",), ()] * 5
    parts = deal_groups(labels, list(range(30)), (0.5, 0.5), 1)
    assert sorted(parts).count(0) == 15
    assert deal_groups([()] * 4, [0, 1, 2, 3], (0.5, 0.5), 1).count(0) == 2


def test_fewer_groups_than_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="2 groups for 3 parts"):
        deal_groups([("sad",)] * 4, [0, 0, 1, 1], (0.8, 0.1, 0.1), 1)


def test_rows_that_share_a_key_also_through_others_are_one_group() -> None:
    keys = [("a", 1), ("b", 2), ("c", 1), ("d", 3), ("b", 4), ("e", 4), ("a", 9)]
    assert joined(keys) == [0, 1, 0, 2, 1, 1, 0]
    chain = [(n, n + 1) for n in range(5000)]
    assert joined(chain) == [0] * 5000
    assert joined([]) == []
