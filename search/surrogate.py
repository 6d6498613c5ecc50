"""What the searcher believes: Gaussian processes over settings, fitted to what trials have shown so far."""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize

Array = np.ndarray[Any, np.dtype[np.float64]]
_NOMINAL = math.sqrt(0.5)  # two different categories are 1 apart
_SQRT5 = math.sqrt(5.0)
# Priors of the hyperparameters' logarithms, mean and deviation: smooth over a parameter's whole range unless the data say
# otherwise, noise a fifth of the variance.
_LENGTH, _SIGNAL, _NOISE = (math.log(1.5), 1.0), (0.0, 0.7), (math.log(0.2), 1.0)
_BOUNDS = {"length": (-3.0, 4.0), "signal": (-3.0, 3.0), "noise": (-6.0, 2.0)}
_JITTER = 1e-6


class Encoding:
    """Parameters as numbers: categories one-hot, ranges scaled to [0, 1] (logarithmic ones by their logarithm).

    Choices that are numbers are one column, in the order in which they are listed. A parameter that settings do not have
    is in the middle of its range, or no category at all. The columns are those of `distributions`.
    """

    def __init__(self, distributions: Mapping[str, BaseDistribution]) -> None:
        self._columns: dict[str, tuple[int, Callable[[Any], float] | dict[Any, int]]] = {}
        self._absent: list[float] = []
        for name in sorted(distributions):  # the same columns, whichever settings came first
            distribution, place = distributions[name], len(self._absent)
            if _is_nominal(distribution):
                self._columns[name] = (place, {choice: index for index, choice in enumerate(distribution.choices)})
                self._absent += [0.0] * len(distribution.choices)
            else:
                self._columns[name] = (place, _scaling(distribution))
                self._absent.append(0.5)

    @property
    def width(self) -> int:
        return len(self._absent)

    def __call__(self, params: Mapping[str, Any]) -> list[float]:
        """The row of these parameters. Names and choices that are not in the distributions are left out."""
        row = self._absent.copy()
        for name, value in params.items():
            place, how = self._columns.get(name, (0, {}))
            if isinstance(how, dict):
                if value in how:
                    row[place + how[value]] = _NOMINAL
            else:
                with contextlib.suppress(KeyError, TypeError, ValueError):
                    row[place] = min(max(how(value), -0.5), 1.5)
        return row


def _is_nominal(distribution: BaseDistribution) -> TypeGuard[CategoricalDistribution]:
    return isinstance(distribution, CategoricalDistribution) and not all(
        isinstance(choice, (int, float)) and not isinstance(choice, bool) for choice in distribution.choices
    )


def _scaling(distribution: BaseDistribution) -> Callable[[Any], float]:
    if isinstance(distribution, CategoricalDistribution):
        places = {choice: index / max(1, len(distribution.choices) - 1) for index, choice in enumerate(distribution.choices)}
        return places.__getitem__
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    low, high = float(distribution.low), float(distribution.high)
    if high <= low:
        return lambda value: 0.5
    if distribution.log:
        start, width = math.log(low), math.log(high / low)
        return lambda value: (math.log(value) - start) / width
    return lambda value: (value - low) / (high - low)


class GaussianProcess:
    """Matern 5/2 kernel with a length scale a column (Rasmussen & Williams 2006, chapters 2, 4 and 5).

    Hyperparameters are logarithms: D length scales, signal variance, noise variance, of the standardised target.
    """

    def __init__(self, features: Array, target: Array, noise: Array, theta: Array | None = None) -> None:
        """features (N, D), target (N,), noise (N,): variance of each, relative to the fitted one. Fits `theta` if None."""
        self.features, self.noise = features, noise
        self.centre, self.scale = float(target.mean()), float(target.std() + 1e-9)
        self.target = (target - self.centre) / self.scale
        self.theta = self._most_likely() if theta is None else theta
        self._condition()

    def _most_likely(self, max_iterations: int = 30) -> Array:
        width = self.features.shape[1]
        squares = (self.features[:, None, :] - self.features[None, :, :]) ** 2  # (N, N, D)
        mean, deviation = (np.array([_LENGTH[i]] * width + [_SIGNAL[i], _NOISE[i]]) for i in (0, 1))

        def loss(theta: Array) -> tuple[float, Array]:
            inverse = np.exp(-2 * theta[:width])
            distance = np.sqrt(np.maximum(squares @ inverse, 1e-12))
            decay = np.exp(-_SQRT5 * distance)
            signal, noise = np.exp(theta[width]), np.exp(theta[width + 1])
            shape = (1 + _SQRT5 * distance + 5 / 3 * distance**2) * decay
            kernel = signal * shape
            kernel[np.diag_indices_from(kernel)] += noise * self.noise + _JITTER
            lower = np.linalg.cholesky(kernel)
            weights = cho_solve((lower, True), self.target)
            standard = (theta - mean) / deviation
            value = 0.5 * self.target @ weights + np.log(np.diag(lower)).sum() + 0.5 * standard @ standard
            inner = np.outer(weights, weights) - cho_solve((lower, True), np.eye(len(kernel)))
            # d kernel / d log length = signal 5/3 (1 + sqrt5 r) exp(-sqrt5 r) * squared difference / length^2
            common = inner * (signal * 5 / 3 * (1 + _SQRT5 * distance) * decay)
            gradient = np.empty_like(theta)
            gradient[:width] = -0.5 * np.tensordot(common, squares, axes=2) * inverse
            gradient[width] = -0.5 * (inner * signal * shape).sum()
            gradient[width + 1] = -0.5 * (np.diag(inner) * noise * self.noise).sum()
            return float(value), gradient + standard / deviation

        bounds = [_BOUNDS["length"]] * width + [_BOUNDS["signal"], _BOUNDS["noise"]]
        start = np.array([0.0] * width + [_SIGNAL[0], _NOISE[0]])
        found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": max_iterations})
        return np.asarray(found.x)

    def _condition(self) -> None:
        kernel = self._kernel(self.features)
        kernel[np.diag_indices_from(kernel)] += np.exp(self.theta[-1]) * self.noise + _JITTER
        self._lower = np.linalg.cholesky(kernel)
        self._weights = cho_solve((self._lower, True), self.target)

    def believing(self, features: Array) -> "GaussianProcess":
        """The same process once (M, D) more points have turned out as expected: less is left to learn near them."""
        mean, _ = self.predict(features)
        other = object.__new__(GaussianProcess)
        other.features = np.vstack([self.features, features])
        other.noise = np.concatenate([self.noise, np.ones(len(features))])
        other.centre, other.scale, other.theta = self.centre, self.scale, self.theta
        other.target = np.concatenate([self.target, (mean - self.centre) / self.scale])
        other._condition()
        return other

    def _kernel(self, left: Array) -> Array:
        inverse = np.exp(-self.theta[:-2])
        a, b = left * inverse, self.features * inverse
        squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * a @ b.T
        distance = np.sqrt(np.maximum(squared, 1e-12))
        shape = (1 + _SQRT5 * distance + 5 / 3 * distance**2) * np.exp(-_SQRT5 * distance)
        return np.asarray(np.exp(self.theta[-2]) * shape)

    def predict(self, features: Array) -> tuple[Array, Array]:
        """Mean and standard deviation (M,) of what is at (M, D), without noise."""
        cross = self._kernel(features)
        half = solve_triangular(self._lower, cross.T, lower=True)
        variance = np.exp(self.theta[-2]) - (half**2).sum(axis=0)
        return cross @ self._weights * self.scale + self.centre, np.sqrt(np.maximum(variance, 1e-10)) * self.scale


def extrapolated(scores: Array, groups: Sequence[Any]) -> tuple[Array, Array]:
    """Estimated final best score of each trial (N,), and the variance of that estimate (N,).

    `scores` (N, R): a trial's best score at each rung, the last epoch counting as one; NaN where it was not reached.
    What a rung will still add is what it added to the trials of the same group (architecture) that went on, shrunk to
    what it added to all, and that to nothing: some systems learn slowly and would look bad for ever.
    """
    names = sorted(set(groups), key=str)
    member = np.array([[group == name for name in names] for group in groups], dtype=float)  # (N, G)
    added = np.diff(scores, axis=1)
    went_on = ~np.isnan(added)
    added = np.where(went_on, added, 0.0)
    everywhere = added.sum(axis=0) / (went_on.sum(axis=0) + 1)
    gains = (member.T @ added + 2 * everywhere) / (member.T @ went_on + 2)  # (G, R - 1)
    left = np.where(went_on, 0.0, member @ gains)
    return np.nanmax(scores, axis=1) + left.sum(axis=1), 0.25 * (left**2).sum(axis=1)
