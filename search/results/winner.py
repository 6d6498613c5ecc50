"""The winner of a sweep looked at, on its validation rows: where it errs, and how far its
probabilities can be believed.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mmm.calibration import (
    Bin,
    calibration_error,
    fitted_temperature,
    reliability,
    with_temperature,
)
from mmm.manifest import Manifest
from mmm.metrics import (
    ClassScores,
    bootstrap_intervals,
    class_f1_intervals,
    classification_metrics,
    value_of,
)
from mmm.training.evaluate import score
from search.ledger.history import History
from search.results.answers import CHANGED, SweepData, answers_of
from search.storage.here import data_here

NUM_ERRORS = 50
MIN_DIALOGUES = 10  # as of a confirmation: intervals over fewer groups are much too narrow
_MOST_GROUPS = 12  # of sessions and of speakers, the largest
_SCORE_TOLERANCE = 0.01  # as where a bundle is exported
_LENGTHS = ((1, 3), (4, 7), (8, 15), (16, None))  # words
_POSITIONS = ((1, 1), (2, 3), (4, 7), (8, 15), (16, None))  # turns of the dialogue

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class OfClass:
    """One class, with a 95 % interval of its F1 where there are enough dialogues."""

    name: str
    scores: ClassScores
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Slice:
    """Rows that have something in common, with a 95 % interval of the accuracy where they are of
    enough dialogues.
    """

    kind: str  # what they have in common, as "speaker"
    name: str
    num_utterances: int
    num_dialogues: int
    accuracy: float
    interval: tuple[float, float] | None
    recall: float  # unweighted, of the classes that occur


@dataclass(frozen=True)
class Calibration:
    """`error_after` is that of temperatures fitted on the other half of the dialogues each; None
    with a single dialogue.
    """

    bins: tuple[Bin, ...]
    error: float
    temperature: float | None  # of all validation rows
    error_after: float | None


@dataclass(frozen=True)
class ConfidentError:
    """An utterance that was answered wrongly."""

    utterance_id: str
    audio: str  # as in the manifest: relative to its folder
    speaker: str
    turn: int
    text: str
    truth: str
    answered: str
    confidence: float
    share_of_truth: float  # the probability that it gave to what was right


@dataclass(frozen=True)
class Winner:
    """What is known of the answers of a sweep's best trial."""

    trial: int
    manifest: Path
    num_utterances: int
    num_dialogues: int
    num_errors: int
    classes: tuple[OfClass, ...]
    slices: tuple[Slice, ...]
    calibration: Calibration
    errors: tuple[ConfidentError, ...]  # the most confident first, NUM_ERRORS at most


def winner_here(
    history: History, folder: Path, cache: Path | None, away: Callable[[str], None]
) -> Winner | str | None:
    """As `read_winner`, of a sweep whose data may be at URLs; `cache` and `away` as `data_here` has
    them.
    """
    if history.best is not None and history.spec.folds is None:
        try:
            history = data_here(history, cache, [history.best[1]], away)
        except (ValueError, OSError) as error:
            return _in_one_line(error)
    return read_winner(history, folder)


def read_winner(history: History, folder: Path) -> Winner | str | None:
    """Of the sweep in `folder`; why it cannot be looked at, where something that it takes is not at
    hand; None where there is no winner yet.
    """
    if history.best is None:
        return None
    trial = history.trials[history.best[1]]
    if trial.num_folds > 1:
        return "over folds there is no single model whose probabilities could be looked at"
    try:
        data = SweepData(history)
        answers = answers_of(data, folder, trial)
    except (ValueError, KeyError, RuntimeError, OSError) as error:
        return _in_one_line(error)
    found = value_of(score(answers.probabilities, answers.rows), history.spec.metric)
    if abs(found - history.best[0]) > _SCORE_TOLERANCE:
        return (
            f"its weights score {found:.4f} now and {history.best[0]:.4f} in the ledger: {CHANGED}"
        )
    return look_at(
        trial.number,
        data.manifest,
        answers.rows.indices.tolist(),
        answers.rows.truth.numpy(),
        answers.rows.names,
        answers.probabilities.numpy().astype(np.float64),
    )


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:400]


def look_at(
    trial: int,
    manifest: Manifest,
    rows: Sequence[int],
    truth: Integers,
    names: Sequence[str],
    probabilities: Floats,
) -> Winner:
    """Of answers (N, C) to `rows` of a manifest (N,) whose `truth` (N,) is a place in `names`."""
    predicted = probabilities.argmax(axis=1)
    dialogues = np.array([manifest.utterances[row].dialogue_id for row in rows])
    of_classes = classification_metrics(truth, predicted, names)["per_class"]
    num_dialogues = len(set(dialogues.tolist()))
    intervals: Sequence[tuple[float, float] | None] = [None] * len(names)
    if num_dialogues >= MIN_DIALOGUES:
        intervals = class_f1_intervals(truth, predicted, dialogues.tolist(), len(names))
    errors = _errors(manifest, rows, truth, names, probabilities)
    return Winner(
        trial,
        manifest.path,
        len(rows),
        num_dialogues,
        len(errors),
        tuple(
            OfClass(name, of_classes[name], interval)
            for name, interval in zip(names, intervals, strict=True)
        ),
        tuple(_slices(manifest, rows, truth, names, predicted, dialogues)),
        _calibration(truth, probabilities, dialogues),
        tuple(errors[:NUM_ERRORS]),
    )


def _slices(
    manifest: Manifest,
    rows: Sequence[int],
    truth: Integers,
    names: Sequence[str],
    predicted: Integers,
    dialogues: npt.NDArray[np.str_],
) -> Iterator[Slice]:
    turns = [manifest.utterances[row] for row in rows]
    before = [
        _against_before(manifest, row, names[right]) for row, right in zip(rows, truth, strict=True)
    ]
    kinds: dict[str, list[str]] = {
        "session": [turn.session for turn in turns],
        "speaker": [turn.speaker for turn in turns],
        "length in words": [_range_of(len(turn.text.split()), _LENGTHS) for turn in turns],
        "turn of the dialogue": [
            _range_of(len(manifest.history(row, len(manifest.utterances))), _POSITIONS)
            for row in rows
        ],
        "emotion against the turn before": before,
    }
    for kind, groups in kinds.items():
        of = np.array(groups)
        found, counts = np.unique(of, return_counts=True)
        if kind in ("session", "speaker"):
            order = sorted(zip(-counts, found, strict=True))[:_MOST_GROUPS]
            ordered = [str(name) for _, name in order]
        else:
            ordered = sorted(map(str, found), key=_start_of)
        for name in ordered:
            mine = of == name
            metrics = classification_metrics(truth[mine], predicted[mine], names)
            own = dialogues[mine].tolist()
            interval = None
            if len(set(own)) >= MIN_DIALOGUES:
                interval = bootstrap_intervals(truth[mine], predicted[mine], own, len(names))[
                    "accuracy"
                ]
            yield Slice(
                kind,
                name or "unknown",
                int(mine.sum()),
                len(set(own)),
                metrics["accuracy"],
                interval,
                metrics["unweighted_recall"],
            )


def _against_before(manifest: Manifest, row: int, emotion: str) -> str:
    previous = manifest.utterances[row].previous
    if previous < 0:
        return "first turn"
    earlier = manifest.utterances[previous].emotions
    if not earlier:
        return "turn before without a label"
    return "the same" if emotion in earlier else "another"


def _range_of(number: int, ranges: Sequence[tuple[int, int | None]]) -> str:
    for low, high in ranges:
        if high is None:
            return f"{low} and more"
        if number <= high:
            return f"{low}" if low == high else f"{low} to {high}"
    raise AssertionError(number)


def _start_of(name: str) -> tuple[int, str]:
    first = name.split()[0]
    return int(first) if first.isdigit() else 0, name


def _calibration(
    truth: Integers, probabilities: Floats, dialogues: npt.NDArray[np.str_]
) -> Calibration:
    bins = reliability(probabilities, truth)
    after = None
    different = list(dict.fromkeys(dialogues.tolist()))
    if len(different) > 1:
        # A temperature is not to be judged on the rows that it was fitted on.
        in_first = np.isin(dialogues, different[::2])
        corrected = probabilities.copy()
        for fitted, judged in ((in_first, ~in_first), (~in_first, in_first)):
            own = fitted_temperature(probabilities[fitted], truth[fitted])
            if own is not None:
                corrected[judged] = with_temperature(probabilities[judged], own)
        after = calibration_error(reliability(corrected, truth))
    return Calibration(
        tuple(bins), calibration_error(bins), fitted_temperature(probabilities, truth), after
    )


def _errors(
    manifest: Manifest,
    rows: Sequence[int],
    truth: Integers,
    names: Sequence[str],
    probabilities: Floats,
) -> list[ConfidentError]:
    """An utterance each, also where several labels made several rows of it: then an answer is wrong
    that is none of them.
    """
    found: dict[int, ConfidentError] = {}
    for place, row in enumerate(rows):
        shares, turn = probabilities[place], manifest.utterances[row]
        answer = int(shares.argmax())
        if row in found or answer == truth[place] or names[answer] in turn.emotions:
            continue
        right = int(truth[place])
        found[row] = ConfidentError(
            turn.utterance_id,
            turn.audio,
            turn.speaker,
            turn.turn,
            turn.text,
            names[right],
            names[answer],
            float(shares[answer]),
            float(shares[right]) if right < len(shares) else 0.0,
        )
    return sorted(found.values(), key=lambda error: -error.confidence)
