"""Means over seeds with intervals, and whether one system beats another: of S runs a system,
scored on the same rows, whose units are drawn (search/confirm/units.py).

Two sources of chance are in a mean: which rows there were to score, and which seeds. Both are
resampled. A plain crossed bootstrap counts what they share several times and would be too wide
(Owen 2007, arXiv:0712.1111), and one of few groups or few seeds is too narrow. So the draws give
the shape of a mean's interval, and its width is that of the variance by inclusion and exclusion
(Cameron, Gelbach and Miller 2011), at the level that Student's t has for so many groups and seeds
(Hesterberg 2015, arXiv:1411.5279, section 5.3). A difference has that width without a shape. Each
variance in it is that of a jackknife that leaves out whole groups (Efron and Stein 1981; MacKinnon,
Nielsen and Webb 2023, doi:10.1002/jae.2947): influences to first order fall short where a class is
in few groups.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from mmm.metrics import LEVEL, RESAMPLES
from search.confirm.scores import Array, left_out_scores, of_groups, scores_of
from search.confirm.units import Units

_CHUNK = 250  # resamples at a time: memory is a matter of these
_ROUNDING = 1e-12  # scores that are no further apart are equal
_MOST_SEEDS = 1000  # beyond it a tie is for more data to decide, not for more seeds


@dataclass(frozen=True)
class Interval:
    """Of LEVEL."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Spread:
    """Where the variance of a mean over seeds, or of a difference of two, comes from."""

    rows: float  # stays, however many seeds there are
    seeds: float  # falls with their number
    freedom: float  # degrees of freedom of the whole, as Student's t takes them

    @property
    def variance(self) -> float:
        return self.rows + self.seeds


@dataclass(frozen=True)
class Sampled:
    """One system's runs on all rows and on resamples of them."""

    counts: Array  # (S, P, C, C), of each cell of rows
    scores: Array  # (S,) on all rows
    # (S, G) without each group of a grouping, for each; of two that cross (S, P) without each cell
    left_out: tuple[Array, ...]
    resampled: Array  # (R, S): the same draws of rows for every system
    metric: str

    @property
    def mean(self) -> float:
        return float(self.scores.mean())

    @property
    def deviation(self) -> float | None:
        """Of the scores over seeds; None of one run."""
        return float(self.scores.std(ddof=1)) if len(self.scores) > 1 else None


def drawn_weights(units: Units, resamples: int, rng: np.random.Generator) -> Array:
    """(R, P): how often each cell is in each resample. Groupings that cross are drawn each for
    itself, and a cell is there as often as all its groups are (Owen 2007).
    """
    weights = np.ones((resamples, units.num_cells))
    for of_cells, number in zip(units.of_cells, units.num_groups, strict=True):
        drawn = rng.multinomial(number, np.full(number, 1 / number), size=resamples)
        weights *= drawn[:, of_cells]
    return weights


def sample(
    systems: Sequence[Array], units: Units, metric: str, seed: int = 0, resamples: int = RESAMPLES
) -> list[Sampled]:
    """Systems, each as the (S, P, C, C) counts of its runs, on the same resamples. The same input
    gives the same numbers.
    """
    rng = np.random.default_rng(seed)
    found: list[list[Array]] = [[] for _ in systems]
    for start in range(0, resamples, _CHUNK):
        weights = drawn_weights(units, min(_CHUNK, resamples - start), rng)
        for place, counts in enumerate(systems):
            runs, cells, classes, _ = counts.shape
            flat = counts.transpose(1, 0, 2, 3).reshape(cells, -1)
            matrix = (weights @ flat).reshape(-1, runs, classes, classes)
            found[place].append(scores_of(matrix, metric))
    return [
        Sampled(
            counts,
            scores_of(counts.sum(axis=1), metric),
            _left_out(counts, units, metric),
            np.concatenate(parts),
            metric,
        )
        for counts, parts in zip(systems, found, strict=True)
    ]


def _left_out(counts: Array, units: Units, metric: str) -> tuple[Array, ...]:
    """What `Sampled.left_out` holds."""
    found = [
        left_out_scores(of_groups(counts, of_cells, number), metric)
        for of_cells, number in zip(units.of_cells, units.num_groups, strict=True)
    ]
    if len(found) > 1:
        found.append(left_out_scores(counts, metric))
    return tuple(found)


def spread_of(units: Units, *systems: Sampled) -> Spread:
    """Of one system's mean over its seeds, or of the difference of two."""
    signs = (1, -1)[: len(systems)]
    left_out = [
        np.asarray(sum(sign * found.mean(axis=0) for sign, found in zip(signs, pair, strict=True)))
        for pair in zip(*(one.left_out for one in systems), strict=True)
    ]
    rows = float(_of_units(left_out))
    of_seeds, shared = 0.0, 0.0
    freedom: list[tuple[float, float]] = []
    for one in systems:
        runs = len(one.scores)
        if runs < 2:
            continue
        own = float(one.scores.var(ddof=1)) / runs
        of_seeds += own
        freedom.append((own, runs - 1))
        # What is of a run on a unit is in both: of the rows' variance over S runs, and of the
        # seeds' over units.
        apart = _of_units([found - found.mean(axis=0) for found in one.left_out])
        shared += float(apart.sum()) / (runs * (runs - 1))
    # As it comes, but for a variance below 0: taking the largest of several noisy figures, so that
    # none falls short, made intervals of few groups far too wide.
    kept = max(0.0, rows - shared)
    freedom.append((kept, max(1.0, _freedom_of_units(units, left_out, rows))))
    variance = kept + of_seeds
    squares = sum(part**2 / number for part, number in freedom)
    return Spread(kept, of_seeds, variance**2 / squares if squares > 0 else math.inf)


def _freedom_of_units(units: Units, left_out: Sequence[Array], variance: float) -> float:
    """Degrees of freedom of the `variance` over groups (Satterthwaite 1946)."""
    parts = zip(left_out, units.num_groups, strict=False)
    squares = sum(float(_of_units([found])) ** 2 / (number - 1) for found, number in parts)
    return variance**2 / squares if squares > 0 else 0.0


def _of_units(left_out: Sequence[Array]) -> Array:
    """(...) jackknife variances, by inclusion and exclusion, of scores (..., G) without each group
    of one grouping; or of two that cross, and then without each cell.
    """
    found = [(of.shape[-1] - 1) * np.asarray(of.var(axis=-1)) for of in left_out]
    return np.asarray(found[0] if len(found) == 1 else found[0] + found[1] - found[2])


def _bca(observed: float, draws: Array, jackknife: Array, spread: Spread) -> Interval:
    """BCa interval (Efron 1987) of `draws` (R,) brought to the variance of `spread`; `jackknife`
    are the influences of groups, for the acceleration.
    """
    if draws.var() == 0 or spread.variance == 0:
        return Interval(observed, observed)
    # What draws are off by on average, because a score is no sum, grows with their variance.
    wider = spread.variance / float(draws.var())
    off = float(draws.mean()) - observed
    draws = observed + off * wider + (draws - draws.mean()) * math.sqrt(wider)
    below = np.mean(draws < observed) + np.mean(draws == observed) / 2
    edge = 1 / (2 * len(draws))
    bias = float(ndtri(np.clip(below, edge, 1 - edge)))
    cubes, squares = float((jackknife**3).sum()), float((jackknife**2).sum())
    acceleration = cubes / (6 * squares**1.5) if squares > 0 else 0.0
    t = float(stdtrit(max(1.0, spread.freedom), (1 + LEVEL) / 2))
    ends = []
    for z in (-t, t):
        moved = bias + (bias + z) / (1 - acceleration * (bias + z))
        ends.append(_quantile(draws, moved))
    return Interval(*ends)


def _quantile(draws: Array, z: float) -> float:
    """Of the draws, at a normal quantile; beyond what so many draws can tell, by their deviation
    from there.
    """
    edge = abs(float(ndtri(5 / len(draws))))
    inside = min(max(z, -edge), edge)
    return float(np.quantile(draws, ndtr(inside))) + (z - inside) * float(draws.std())


def _t_interval(observed: float, spread: Spread) -> Interval:
    """Of a difference. What macro F1 of few groups is off by is the same in both systems and
    cancels: to correct for it adds noise, and BCa intervals of differences held the truth in one to
    two of a hundred repeats less (benchmarks/confirm_coverage.py).
    """
    off = float(stdtrit(max(1.0, spread.freedom), (1 + LEVEL) / 2)) * math.sqrt(spread.variance)
    return Interval(observed - off, observed + off)


def _mean_draws(one: Sampled, rng: np.random.Generator) -> Array:
    """(R,) means over seeds that are drawn with the rows."""
    resamples, runs = one.resampled.shape
    drawn = rng.multinomial(runs, np.full(runs, 1 / runs), size=resamples)
    return np.asarray((one.resampled * drawn).sum(axis=1) / runs)


def _jackknife(one: Sampled) -> Array:
    """(G,) influences of the coarsest unit's groups on a mean."""
    without = one.left_out[0].mean(axis=0)
    return np.asarray(without.mean() - without)


def mean_interval(units: Units, one: Sampled, seed: int = 0) -> Interval | None:
    """Interval of a system's mean over seeds, within the range of scores, 0 to 1; None where the
    units are too few to tell.
    """
    if not units.names:
        return None
    draws = _mean_draws(one, np.random.default_rng(seed))
    found = _bca(one.mean, draws, _jackknife(one), spread_of(units, one))
    return Interval(max(0.0, found.low), min(1.0, found.high))


@dataclass(frozen=True)
class Difference:
    """Of two systems' means over seeds, the first minus the second."""

    value: float
    interval: Interval
    p_units: float  # by sign flips of units: for these very runs
    p_seeds: float  # by Student's t, of the seeds as well
    wins: float  # probability that a run of the first beats one of the second on such rows
    spread: Spread
    seeds: tuple[int, int]


def difference(units: Units, first: Sampled, second: Sampled, seed: int = 0) -> Difference | None:
    """Compare two systems on the same rows; None where the units are too few to tell."""
    if not units.names:
        return None
    value = _apart(first, second)
    spread = spread_of(units, first, second)
    rng = np.random.default_rng(seed)
    p_units = max(
        sign_flip_p(units.of_cells[place], number, first, second, rng)
        for place, number in enumerate(units.num_groups)
    )
    return Difference(
        value,
        _t_interval(value, spread),
        p_units,
        _p_of(value, spread),
        probability_of_winning(first, second),
        spread,
        (len(first.scores), len(second.scores)),
    )


def _apart(first: Sampled, second: Sampled) -> float:
    """The difference of two means; that of equal scores is 0 however it was rounded."""
    value = first.mean - second.mean
    return value if abs(value) > _ROUNDING else 0.0


def _p_of(value: float, spread: Spread) -> float:
    if spread.variance <= _ROUNDING**2:
        return 1.0 if value == 0 else 0.0
    t = abs(value) / math.sqrt(spread.variance)
    return 2 * float(stdtr(max(1.0, spread.freedom), -t))


def p_seeds(units: Units, first: Sampled, second: Sampled) -> float:
    """That of `difference`, alone."""
    return _p_of(_apart(first, second), spread_of(units, first, second))


def probability_of_winning(first: Sampled, second: Sampled) -> float:
    """That a run of the first scores above one of the second on the same rows, seeds and rows drawn
    anew; a draw is half of it (Bouthillier et al. 2021, arXiv:2103.03098).
    """
    pairs = first.resampled[:, :, None] - second.resampled[:, None, :]
    return float((pairs > _ROUNDING).mean() + (np.abs(pairs) <= _ROUNDING).mean() / 2)


def sign_flip_p(
    of_cells: npt.NDArray[np.int64],
    number: int,
    first: Sampled,
    second: Sampled,
    rng: np.random.Generator,
) -> float:
    """Two-sided p of the null that it does not matter which system answered a unit: the difference
    of scores where the predictions of units (P,) are exchanged at random.

    All exchanges are tried where there are no more than RESAMPLES of them.
    """
    pairs = min(len(first.scores), len(second.scores))
    if len(first.scores) == 1 or len(second.scores) == 1:  # as a baseline without seeds
        pairs = max(len(first.scores), len(second.scores))
    by_unit = []
    for one in (first, second):
        groups = of_groups(one.counts, of_cells, number)
        by_unit.append(groups[np.arange(pairs) % len(one.scores)].transpose(1, 0, 2, 3))
    total, apart = by_unit[0] + by_unit[1], by_unit[0] - by_unit[1]
    observed = abs(_flipped(np.ones((1, number)), total, apart, first.metric)[0])
    is_all = 2**number <= RESAMPLES
    if is_all:
        bits = np.arange(2**number)[:, None] >> np.arange(number)
        signs = np.where(bits & 1, -1.0, 1.0)
    else:
        signs = rng.choice([-1.0, 1.0], size=(RESAMPLES, number))
    found = np.concatenate(
        [
            _flipped(signs[start : start + _CHUNK], total, apart, first.metric)
            for start in range(0, len(signs), _CHUNK)
        ]
    )
    as_large = int((np.abs(found) >= observed - 1e-12).sum())
    return as_large / len(found) if is_all else (1 + as_large) / (1 + len(found))


def _flipped(signs: Array, total: Array, apart: Array, metric: str) -> Array:
    """(R,) differences of mean scores where units with the sign -1 are exchanged."""
    groups, pairs, classes, _ = apart.shape
    moved = (signs @ apart.reshape(groups, -1)).reshape(-1, pairs, classes, classes)
    whole = total.sum(axis=0)
    one, other = scores_of((whole + moved) / 2, metric), scores_of((whole - moved) / 2, metric)
    return np.asarray((one - other).mean(axis=1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrected for how many they are (Holm 1979)."""
    found, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, p_values[place] * (len(p_values) - rank)))
        found[place] = largest
    return found


def corrected(found: Sequence[Difference], passed_over: Sequence[float] = ()) -> list[float]:
    """A p for each difference: the larger of its two, corrected for how many there are.
    `passed_over`: `p_seeds` of pairs that might have been looked at instead, as where a leader is
    only known by looking.
    """
    units = holm([one.p_units for one in found])
    seeds = holm([*(one.p_seeds for one in found), *passed_over])
    return [max(pair) for pair in zip(units, seeds, strict=False)]


def seeds_to_decide(found: Difference, comparisons: int = 1) -> int | None:
    """With how many seeds of each system a difference as large as this one would be told from 0
    among so many comparisons; None where more would not do it: the rows alone leave it open.
    """
    z = float(ndtri(1 - (1 - LEVEL) / (2 * comparisons)))
    room = found.value**2 - z**2 * found.spread.rows
    runs = max(found.seeds)
    if room <= 0 or found.spread.seeds == 0:
        return None
    needed = math.ceil(z**2 * found.spread.seeds * runs / room)
    return needed if runs < needed <= _MOST_SEEDS else None


def expected_best_of(number: int) -> float:
    """Mean of the largest of so many standard normal draws."""
    x = np.linspace(0, 9, 20001)
    # E[X] is the integral of 1 - F above 0 minus that of F below.
    return float(np.trapezoid(1 - ndtr(x) ** number - ndtr(-x) ** number, x))
