"""How far probabilities can be believed, and the one number that corrects them: a temperature."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.int64]

NUM_BINS = 10
_LEAST, _MOST = 0.05, 20.0  # temperatures beyond which nothing is a probability any more
_STEPS = 60  # each leaves two thirds of the range


@dataclass(frozen=True)
class Bin:
    """Answers of like confidence."""

    low: float  # of the confidence; the bin ends NUM_BINS to the unit
    confidence: float  # mean
    accuracy: float
    num_utterances: int


def reliability(probabilities: Floats, truth: Integers) -> list[Bin]:
    """Answers (N, C) sorted by the probability of the class answered, into bins of equal width;
    empty ones are left out. A truth beyond the C classes is never right.
    """
    confidence, is_right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    place = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)
    return [
        Bin(
            low=number / NUM_BINS,
            confidence=float(confidence[mine].mean()),
            accuracy=float(is_right[mine].mean()),
            num_utterances=int(mine.sum()),
        )
        for number in range(NUM_BINS)
        if (mine := place == number).any()
    ]


def calibration_error(bins: list[Bin]) -> float:
    """Expected calibration error: the mean distance of confidence and accuracy, by utterances (Guo
    et al. 2017, arXiv:1706.04599, equation 3).
    """
    total = sum(one.num_utterances for one in bins)
    return sum(one.num_utterances * abs(one.confidence - one.accuracy) for one in bins) / total


def with_temperature(probabilities: Floats, temperature: float) -> npt.NDArray[np.float64]:
    """Probabilities (N, C) with a temperature. Of a softmax it is that of the logits divided by it;
    what is answered stays.
    """
    logs = np.log(np.maximum(probabilities.astype(np.float64), 1e-12)) / temperature
    shares = np.exp(logs - logs.max(axis=1, keepdims=True))
    found: npt.NDArray[np.float64] = shares / shares.sum(axis=1, keepdims=True)
    return found


def fitted_temperature(probabilities: Floats, truth: Integers) -> float | None:
    """The temperature with the least cross-entropy on answers (N, C) (Guo et al. 2017, section
    4.2). Rows of a class that the model cannot answer do not count; None without any other.
    """
    known = truth < probabilities.shape[1]
    if not known.any():
        return None
    probabilities, truth = probabilities[known], truth[known]

    def loss(inverse: float) -> float:
        shares = with_temperature(probabilities, 1 / inverse)
        own = shares[np.arange(len(truth)), truth]
        return float(-np.log(np.maximum(own, 1e-300)).mean())

    # Convex in the inverse of the temperature.
    low, high = 1 / _MOST, 1 / _LEAST
    for _ in range(_STEPS):
        first, second = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, second) if loss(first) <= loss(second) else (first, high)
    return 2 / (low + high)
