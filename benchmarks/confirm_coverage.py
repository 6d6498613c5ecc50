"""Whether the intervals and verdicts of `mmm-search confirm` keep what they promise, on made-up
predictions whose truth is known.

Rows belong to a dialogue and to an audio file, which cross, and both make rows alike; an audio file
has one label. Runs of a system differ by their seed: in general, and in which rows they get right.
Systems are alike, as two settings of one are, or have rows of their own that all their runs get
right.

    nice -n 10 python -m benchmarks.confirm_coverage
    nice -n 10 python -m benchmarks.confirm_coverage --repeats 60 --quick
    nice -n 10 python -m benchmarks.confirm_coverage --repeats 1000 --groups 10 40
"""

import argparse
import functools
import itertools
import math
import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from mmm.console import console
from search.confirm.scores import Array, counts_of, scores_of
from search.confirm.statistics import corrected, difference, mean_interval, p_seeds, sample
from search.confirm.units import Units, choose_units
from search.confirm.verdicts import ALPHA, verdict_of

METRIC = "macro_f1"
SHARES = np.array([0.4, 0.25, 0.2, 0.15])  # of the classes
# Standard deviations of what decides whether a row is answered rightly; the sum of squares of those
# that are not the seed's is 1.
DIALOGUE, AUDIO, ROW, RUN = 0.35, 0.35, 0.65, 0.576
OWN = 0.4  # of RUN, what all runs of a system have in common where systems are not alike
ROWS_A_GROUP = {10: 30, 40: 15, 200: 8}  # of a dialogue
SEED = 0.04  # about one point of macro F1


@dataclass(frozen=True)
class Rows:
    units: Units
    truth: np.ndarray
    common: Array  # (N,) how easy a row is for everyone


def rows_of(groups: int, rng: np.random.Generator) -> Rows:
    number = groups * ROWS_A_GROUP[groups]
    dialogue = np.arange(number) % groups
    audio = rng.integers(2 * groups, size=number)
    labels = np.zeros(0)
    while len(np.unique(labels)) < len(SHARES):  # every class occurs, as it does where it is scored
        labels = rng.choice(len(SHARES), size=2 * groups, p=SHARES)
    common = (
        DIALOGUE * rng.standard_normal(groups)[dialogue]
        + AUDIO * rng.standard_normal(2 * groups)[audio]
        + ROW * rng.standard_normal(number)
    )
    units = choose_units(
        {"dialogue": [str(one) for one in dialogue], "audio": [str(one) for one in audio]}
    )
    return Rows(units, labels[audio], common)


def runs_of(
    rows: Rows, level: float, seeds: int, rng: np.random.Generator, own: float = 0.0
) -> Array:
    """(S, P, C, C) counts of a system that is right with the probability Phi(level), but for its
    seeds.
    """
    number, classes = len(rows.truth), len(SHARES)
    luck = SEED * rng.standard_normal((seeds, 1))
    luck = luck + math.sqrt(RUN**2 - own**2) * rng.standard_normal((seeds, number))
    is_right = level + luck + own * rng.standard_normal(number) + rows.common > 0
    others = (rows.truth + rng.integers(1, classes, size=(seeds, number))) % classes
    said = np.where(is_right, rows.truth, others)
    return counts_of(rows.truth, said, rows.units.cells, rows.units.num_cells, classes)


@functools.cache
def true_score(level: float) -> float:
    """Mean over seeds of the score on endlessly many rows."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    scores = [scores_of(_expected(float(ndtr(level + SEED * node))), METRIC) for node in nodes]
    return float(np.dot(weights, scores) / weights.sum())


def _expected(right: float) -> Array:
    classes = len(SHARES)
    wrong = np.full((classes, classes), (1 - right) / (classes - 1))
    np.fill_diagonal(wrong, right)
    return 1e6 * SHARES[:, None] * wrong


def level_of(score: float) -> float:
    low, high = -2.0, 2.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if true_score(middle) < score else (low, middle)
    return low


class Shares(NamedTuple):
    """Of repeats."""

    in_mean: float  # the interval of a mean held the truth
    in_difference: float  # that of the difference did
    better: float  # the verdict
    worse: float
    told: float  # the difference was told from 0, by interval and p, however large P is


def compared(
    groups: int, seeds: int, gain: float, repeats: int, resamples: int, own: float = 0.0
) -> Shares:
    """Compare a system with one that it is `gain` above, again and again."""
    worse, better = level_of(0.55), level_of(0.55 + gain)
    found: list[tuple[bool, ...]] = []
    for repeat in range(repeats):
        # Each cell of the table is drawn for itself: cells with the same draws share their luck,
        # and look as if they confirmed each other.
        rng = np.random.default_rng([groups, seeds, repeat, round(1000 * gain), round(10 * own)])
        rows = rows_of(groups, rng)
        systems = [runs_of(rows, level, seeds, rng, own) for level in (better, worse)]
        first, second = sample(systems, rows.units, METRIC, repeat, resamples)
        interval = mean_interval(rows.units, first, repeat)
        apart = difference(rows.units, first, second, repeat)
        assert interval is not None
        assert apart is not None
        (p,) = corrected([apart])
        verdict = verdict_of(apart, p)
        found.append(
            (
                0.55 + gain in interval,
                gain in apart.interval,
                verdict == "better",
                verdict == "worse",
                p <= ALPHA and 0 not in apart.interval,
            )
        )
    return Shares(*np.mean(found, axis=0).tolist())


def false_leaders(groups: int, seeds: int, equal: int, repeats: int, resamples: int) -> float:
    """Share of repeats in which the leader of so many equal systems is found to beat another."""
    level, found = level_of(0.55), 0
    for repeat in range(repeats):
        rng = np.random.default_rng([groups, seeds, equal, repeat])
        rows = rows_of(groups, rng)
        systems = [runs_of(rows, level, seeds, rng) for _ in range(equal)]
        sampled = sample(systems, rows.units, METRIC, repeat, resamples)
        leader, *others = sorted(sampled, key=lambda one: -one.mean)
        pairs = [
            pair
            for one in others
            if (pair := difference(rows.units, one, leader, repeat)) is not None
        ]
        passed_over = [p_seeds(rows.units, *two) for two in itertools.combinations(others, 2)]
        p_values = corrected(pairs, passed_over)
        found += any(
            verdict_of(pair, p) == "worse" for pair, p in zip(pairs, p_values, strict=True)
        )
    return found / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--resamples", type=int, default=400)
    parser.add_argument("--quick", action="store_true", help="5 seeds alone, and less power.")
    parser.add_argument("--groups", type=int, nargs="+", default=[*ROWS_A_GROUP])
    options = parser.parse_args()
    started = time.monotonic()
    off = 196 * math.sqrt(0.05 * 0.95 / options.repeats)
    console.say(f"{options.repeats} repeats; 95 % of them is +-{off:.1f} points")
    console.say("groups seeds systems  gain  coverage: mean  difference  better  worse   told")
    seeds = (5,) if options.quick else (5, 10, 20)
    for own, groups, number, gain in itertools.product(
        (0.0, OWN), options.groups, seeds, (0.0, 0.02)
    ):
        shares = compared(groups, number, gain, options.repeats, options.resamples, own)
        mean, apart, better, worse, told = (f"{100 * share:.1f}" for share in shares)
        console.say(
            f"{groups:6} {number:5} {'apart' if own else 'alike':>7} {gain:5.2f} {mean:>15}"
            f" {apart:>11} {better:>7} {worse:>6} {told:>6}"
        )
    console.say("groups seeds  equal systems  the leader is found to beat one of them")
    for groups, equal in itertools.product(options.groups, (4, 8)):
        share = 100 * false_leaders(groups, 5, equal, options.repeats, options.resamples)
        console.say(f"{groups:6} {5:5} {equal:14} {share:40.1f}")
    console.say(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
