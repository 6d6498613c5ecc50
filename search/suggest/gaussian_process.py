"""A model of learning curves: a Gaussian process over settings and epochs, fitted to what trials
have shown so far.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.linalg import solve_triangular
from scipy.optimize import minimize

Array = np.ndarray[Any, np.dtype[np.float64]]
_SQRT5 = math.sqrt(5.0)
# Priors of the hyperparameters' logarithms, mean and deviation: smooth over a parameter's whole
# range unless the data say otherwise; variances of settings, luck and noise; ranges in progress of
# settings and luck; and the odds that what settings do is as in another sweep.
_LENGTH = (math.log(1.5), 1.0)
_OTHERS = (
    (0.0, 0.7),
    (math.log(0.1), 1.0),
    (math.log(0.15), 1.0),
    (math.log(1.5), 1.0),
    (math.log(0.7), 1.0),
    (0.0, 1.5),
)
_LENGTH_BOUNDS, _OTHER_BOUNDS = (-3.0, 4.0), (-6.0, 3.0)
_CURVE, _CURVE_RANGE = (
    2.0,
    1.5,
)  # variance and range in progress of the curve that all trials of a sweep share
_JITTER = 1e-6
_BLOCK = 128  # rows of the whitening that are multiplied at once
_ROOM = 128  # rows for scores to come, whenever there is none left
_FIT_TO = 260  # observations, when hyperparameters are fitted
_FIT_STEPS = 25
_FEW = 8  # scores, from which on they have a spread of their own


@dataclass(frozen=True)
class Observations:
    """Scores that trials were seen with, N of them, each at some progress of its training."""

    features: Array  # (N, D), settings as `Encoding` has them
    progress: Array  # (N,), logarithm of the epoch over that of the last one: 1 at the end
    trials: Array  # (N,), which trial; its luck (seed) is shared by all its scores
    sources: Array  # (N,), which sweep; 0 is this one
    scores: Array  # (N,)

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, places: Any) -> "Observations":
        parts = (self.features, self.progress, self.trials, self.sources, self.scores)
        return Observations(*(part[places] for part in parts))

    @staticmethod
    def of(
        rows: Sequence[tuple[Sequence[float], float, int, int, float]], width: int
    ) -> "Observations":
        """Of (features, progress, trial, source, score) rows."""
        features = np.array([row[0] for row in rows], dtype=float).reshape(len(rows), width)
        return Observations(
            features,
            *(np.array([row[place] for row in rows], dtype=float) for place in (1, 2, 3, 4)),
        )

    def __add__(self, other: "Observations") -> "Observations":
        return Observations(
            np.vstack([self.features, other.features]),
            np.concatenate([self.progress, other.progress]),
            np.concatenate([self.trials, other.trials]),
            np.concatenate([self.sources, other.sources]),
            np.concatenate([self.scores, other.scores]),
        )


class CurveProcess:
    """A Gaussian process over learning curves: what a score says about other epochs, other settings
    and other sweeps.

    A standardised score is the sum of four independent parts (freeze-thaw, Swersky et al. 2014,
    arXiv:1406.3896, has the first and third; the products are those of multi-task processes,
    Bonilla et al. 2007): a curve that all trials of a sweep have; what settings do (Matern 5/2 with
    a length scale a column), related between epochs and, less, between sweeps; a trial's luck,
    which its epochs share; noise. Hyperparameters are logarithms: D length scales, variances of
    settings, luck and noise, ranges of settings and luck in progress, odds of the correlation
    between sweeps.
    """

    def __init__(self, seen: Observations, theta: Array | None = None) -> None:
        """Conditions on `seen`; its hyperparameters are fitted where `theta` is None."""
        self.seen = seen
        self._units = _units_of(seen)
        self.centre, self.scale = self._units[0]
        self.theta = fitted(seen) if theta is None else theta
        # The inverse of the Cholesky factor of the scores' covariance, with which seeing another
        # score costs two products with a vector and no system of equations. It lies in a larger
        # array, so that it is not copied whenever a row comes.
        self._room = _inverse_of(np.linalg.cholesky(self.noisy_kernel(seen)))
        self._whitened = self.whitening @ _standardised(seen, self._units)
        self.weights = self.whitening.T @ self._whitened  # (N,), of the means

    @property
    def whitening(self) -> Array:
        """(N, N), lower triangular: its product with its transpose, that first, is the inverse of
        the covariance of the scores seen.
        """
        return self._room[: len(self.seen), : len(self.seen)]

    def whiten(self, cross: Array, rows: slice | None = None) -> Array:
        """The whitening's product with this (N, M), or so many `rows` of it; right of the diagonal
        is nothing to multiply.
        """
        rows = rows or slice(0, len(self.seen))
        blocks = [
            self._room[begin : (end := min(begin + _BLOCK, rows.stop)), :end] @ cross[:end]
            for begin in range(rows.start, rows.stop, _BLOCK)
        ]
        return np.concatenate(blocks) if len(blocks) != 1 else np.asarray(blocks[0])

    def see(self, more: Observations) -> None:
        """Condition on `more` (M) as well."""
        size, total = len(self.seen), len(self.seen) + len(more)
        if total > len(self._room):
            room = np.zeros((total + _ROOM, total + _ROOM))
            room[:size, :size] = self.whitening
            self._room = room
        cross = self.kernel(self.seen, more)  # (N, M)
        half, back = np.empty_like(cross), np.zeros_like(cross)
        for begin in range(0, size, _BLOCK):  # both products while the block is in the cache
            end = min(begin + _BLOCK, size)
            block = self._room[begin:end, :end]
            half[begin:end] = block @ cross[:end]
            back[:end] += block.T @ half[begin:end]
        own = _inverse_of(np.linalg.cholesky(self.noisy_kernel(more) - half.T @ half))
        self._room[size:total, :size] = -own @ back.T
        self._room[size:total, size:total] = own
        new = own @ (_standardised(more, self._units) - half.T @ self._whitened)
        self._whitened = np.concatenate([self._whitened, new])
        self.seen += more
        weights = self.whitening[size:].T @ new
        weights[:size] += self.weights
        self.weights = weights

    def kernel(self, left: Observations, right: Observations) -> Array:
        """Covariance (M, N) of scores, without noise."""
        width = self.seen.features.shape[1]
        inverse = np.exp(-self.theta[:width])
        settings, luck, _, settings_range, luck_range, odds = np.exp(self.theta[width:])
        a, b = left.features * inverse, right.features * inverse
        squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * a @ b.T
        # In place from here on: a sweep's driver spends most of its time in these few lines.
        distance = np.sqrt(np.maximum(squared, 1e-12, out=squared), out=squared)
        distance *= _SQRT5
        kernel = np.exp(-distance)
        distance *= 1 + distance / 3
        distance += 1
        kernel *= distance  # Matern 5/2
        # Scores are seen at few epochs, the rungs, so that there are few pairs of them.
        epochs, of_left = np.unique(left.progress, return_inverse=True)
        others, of_right = np.unique(right.progress, return_inverse=True)
        apart = np.abs(epochs[:, None] - others[None])

        def at(of_pairs: Array) -> Array:
            of_pairs = of_pairs if len(epochs) == 1 else of_pairs[of_left]
            return np.asarray(of_pairs if len(others) == 1 else of_pairs[:, of_right])

        kernel *= at(settings * np.exp(-apart / settings_range))
        curve = at(_CURVE * np.exp(-apart / _CURVE_RANGE))
        if left.sources.any() or right.sources.any():
            same_source = left.sources[:, None] == right.sources[None]
            kernel = np.where(same_source, kernel, odds / (1 + odds) * kernel)
            curve = curve * same_source
        kernel += curve
        mine, theirs = np.nonzero(left.trials[:, None] == right.trials[None])
        kernel[mine, theirs] += luck * np.exp(-apart / luck_range)[of_left[mine], of_right[theirs]]
        return np.asarray(kernel)

    def noisy_kernel(self, seen: Observations) -> Array:
        """Covariance (N, N) of scores that are seen."""
        kernel = self.kernel(seen, seen)
        kernel[np.diag_indices_from(kernel)] += (
            np.exp(self.theta[seen.features.shape[1] + 2]) + _JITTER
        )
        return kernel

    def expected(self, points: Observations) -> Array:
        """Mean (M,) of the scores at `points`, without noise; those of trials that were seen with
        their luck.
        """
        return self.mean(self.kernel(points, self.seen))

    def expected_of_settings(self, features: Array) -> tuple[Array, Array]:
        """Mean and standard deviation (M,) of the final scores of settings (M, D), luck left
        out.
        """
        cross = self.kernel(at_the_end(features), self.seen)
        half = self.whiten(cross.T)
        variance = self.variance - (half**2).sum(axis=0)
        return self.mean(cross), np.sqrt(np.maximum(variance, 1e-10)) * self.scale

    def mean_of_settings(self, features: Array) -> Array:
        """The mean alone, for a fraction of the time."""
        return self.mean(self.kernel(at_the_end(features), self.seen))

    def mean(self, cross: Array) -> Array:
        """Scores expected (M,) where this (M, N) is the kernel with what was seen."""
        return np.asarray(cross @ self.weights * self.scale + self.centre)

    def expected_steps(self, features: Array) -> tuple[Array, Array]:
        """Mean and standard deviation (M - 1,) of the final score of each of these settings (M, D)
        less that of the one before it, luck left out.
        """
        means, covariance = self._joint(features)
        variance = np.diag(covariance)
        of_steps = variance[1:] + variance[:-1] - 2 * np.diag(covariance, 1)
        return np.diff(means), np.sqrt(np.maximum(of_steps, 1e-12 * self.scale**2))

    def drawn_functions(self, features: Array, count: int, rng: np.random.Generator) -> Array:
        """Final scores (count, M) of these settings (M, D) in functions drawn from the posterior,
        but for a number that all of one function have in common.
        """
        means, covariance = self._joint(features)
        values, vectors = np.linalg.eigh(covariance)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        return np.asarray(means + rng.standard_normal((count, len(means))) @ root.T)

    @property
    def variance(self) -> float:
        """Of a final score before anything was seen, luck left out, in units of `scale` squared."""
        return float(_CURVE + np.exp(self.theta[self.seen.features.shape[1]]))

    def luck_at_the_end(self, progress: Array) -> Array:
        """Covariance (N,) of a trial's luck at so much progress and at its end."""
        width = self.seen.features.shape[1]
        luck, luck_range = np.exp(self.theta[[width + 1, width + 4]])
        return np.asarray(luck * np.exp(-np.abs(1.0 - progress) / luck_range))

    @property
    def seed_noise(self) -> float:
        """Standard deviation of the final score of the same settings over seeds."""
        width = self.seen.features.shape[1]
        return float(np.sqrt(np.exp(self.theta[width + 1 : width + 3]).sum()) * self.scale)

    def _joint(self, features: Array) -> tuple[Array, Array]:
        """Mean (M,) and covariance (M, M) of the final scores of settings (M, D), right for their
        differences: in these is nothing of the luck that they have in common, being one trial.
        """
        points = at_the_end(features)
        cross = self.kernel(points, self.seen)
        half = self.whiten(cross.T)
        covariance = (self.kernel(points, points) - half.T @ half) * self.scale**2
        return self.mean(cross), covariance


def _inverse_of(lower: Any) -> Array:
    return np.asarray(solve_triangular(lower, np.eye(len(lower)), lower=True, check_finite=False))


def at_the_end(features: Array) -> Observations:
    """Settings (M, D) of trials that nobody has seen, after their last epochs."""
    count = len(features)
    return Observations(
        features, np.ones(count), np.full(count, -1.0), np.zeros(count), np.zeros(count)
    )


def _units_of(seen: Observations) -> dict[int, tuple[float, float]]:
    """Source -> centre and spread of its scores; this sweep has the spread of the others while it
    has few of its own.
    """
    scores = {
        int(source): seen.scores[seen.sources == source] for source in np.unique(seen.sources)
    }
    spreads = {source: float(of.std()) + 1e-9 for source, of in scores.items() if len(of) >= _FEW}
    typical = float(np.mean(list(spreads.values()))) if spreads else 0.05
    found = {
        source: (float(of.mean()), spreads.get(source, typical)) for source, of in scores.items()
    }
    return {
        0: (float(np.mean([centre for centre, _ in found.values()])) if found else 0.0, typical),
        **found,
    }


def _standardised(seen: Observations, units: Mapping[int, tuple[float, float]]) -> Array:
    of_each = np.array([units[int(source)] for source in seen.sources]).reshape(len(seen), 2)
    return np.asarray((seen.scores - of_each[:, 0]) / of_each[:, 1])


def _some_of(seen: Observations, which: Any, most: int) -> Any:
    """Which observations (N,) to take for at most about `most` of those in `which`: of whole
    trials, spread evenly.
    """
    numbers = np.unique(seen.trials[which])
    count = int(which.sum())
    if count > most:
        numbers = numbers[
            np.linspace(0, len(numbers) - 1, max(1, int(most * len(numbers) / count))).astype(int)
        ]
    return np.isin(seen.trials, numbers) & which


def fitted(seen: Observations) -> Array:
    """The most likely hyperparameters (maximum a posteriori) of at most _FIT_TO observations of
    whole trials, spread evenly.
    """
    target = _standardised(seen, _units_of(seen))
    if len(seen) > _FIT_TO:
        places = _some_of(seen, seen.sources == 0, _FIT_TO)
        places |= _some_of(
            seen,
            seen.sources != 0,
            _FIT_TO - int(places.sum()) if places.sum() < _FIT_TO // 2 else _FIT_TO // 2,
        )
        seen, target = seen.take(places), target[places]
    width = seen.features.shape[1]
    tensor = torch.from_numpy
    squares = tensor((seen.features[:, None, :] - seen.features[None, :, :]) ** 2).flatten(
        0, 1
    )  # (N N, D)
    apart = tensor(np.abs(seen.progress[:, None] - seen.progress[None]))
    same_trial = tensor(np.equal.outer(seen.trials, seen.trials).astype(float))
    same_source = tensor(np.equal.outer(seen.sources, seen.sources).astype(float))
    curve = _CURVE * torch.exp(-apart / _CURVE_RANGE) * same_source
    middle, deviation = (
        tensor(np.array([_LENGTH[i]] * width + [part[i] for part in _OTHERS])) for i in (0, 1)
    )

    def loss(values: Array) -> tuple[float, Array]:
        theta = torch.tensor(values, requires_grad=True)
        settings, luck, noise, settings_range, luck_range, odds = theta[width:].exp()
        related = same_source + odds / (1 + odds) * (1 - same_source)
        distance = (squares @ torch.exp(-2 * theta[:width])).clamp(min=1e-12).sqrt().view_as(apart)
        shape = (1 + _SQRT5 * distance + 5 / 3 * distance**2) * torch.exp(-_SQRT5 * distance)
        kernel = curve + settings * related * shape * torch.exp(-apart / settings_range)
        kernel = kernel + luck * same_trial * torch.exp(-apart / luck_range)
        lower = torch.linalg.cholesky(
            kernel + torch.diag_embed((noise + _JITTER).expand(len(target)))
        )
        whitened = torch.linalg.solve_triangular(lower, tensor(target)[:, None], upper=False)
        standard = (theta - middle) / deviation
        value = 0.5 * (whitened**2).sum() + lower.diagonal().log().sum() + 0.5 * (standard**2).sum()
        value.backward()
        assert theta.grad is not None
        return value.item(), theta.grad.numpy().copy()

    bounds = [_LENGTH_BOUNDS] * width + [_OTHER_BOUNDS] * len(_OTHERS)
    found = minimize(
        loss,
        middle.numpy(),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": _FIT_STEPS},
    )
    return np.asarray(found.x)
