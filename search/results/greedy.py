"""Which trials to make an ensemble of: greedy selection with replacement on their validation
probabilities (Caruana et al. 2004, "Ensemble selection from libraries of models", sections 2.1 and
2.2), and what the selection itself is worth.

Deviations: no bagging of candidates; of members that give the same score that with the lower
cross-entropy is taken, since scores of few rows are often equal.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mmm.metrics import classification_metrics, value_of
from search.ledger.history import History
from search.results.answers import Answers, SweepData, answers_of

ROUNDS = 25  # members at most, repetitions counted
NUM_PARTS = 5  # of the dialogues, for the nested score

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Choice:
    """One way to choose among trials. `nested` is the score on dialogues that the choice did not
    see; None with a single dialogue.
    """

    name: str
    trials: tuple[int, ...]  # one that counts several times is named as often
    score: float  # on the rows that it was chosen on, so that it is too high
    nested: float | None

    @property
    def said(self) -> str:
        """Its trials, as `trials 3 (2 times), 1`."""
        counts = Counter(self.trials)
        named = ", ".join(
            f"{number} ({times} times)" if times > 1 else f"{number}"
            for number, times in counts.items()
        )
        return f"trial{'s' if len(counts) > 1 else ''} {named}"


@dataclass(frozen=True)
class Selection:
    """What the greedy selection found, and what it is held against."""

    metric: str
    num_candidates: int
    num_utterances: int
    num_parts: int
    single: Choice
    top: Choice
    greedy: Choice

    def lines(self) -> list[str]:
        """A sentence a choice, and what the second score is."""
        found = []
        for one in (self.single, self.top, self.greedy):
            nested = "" if one.nested is None else f", nested {one.nested:.4f}"
            found.append(f"{one.name} ({one.said}): {self.metric} {one.score:.4f}{nested}")
        return [
            *found,
            f"chosen among {self.num_candidates} trials with weights by {self.num_utterances:,}"
            f" validation rows; nested: chosen on {self.num_parts - 1} of {self.num_parts} parts of"
            " the dialogues and scored on the other; each trial's epoch was chosen on all rows",
        ]

    def as_facts(self) -> Mapping[str, str]:
        """The same for a model card."""
        *choices, how = self.lines()
        return {"ensemble selection": "; ".join(choices), "ensemble candidates": how}


def select_greedily(
    history: History,
    folder: Path,
    numbers: Sequence[int],
    top: int,
    done: Callable[[int], None] = lambda _: None,
) -> Selection:
    """Among the trials `numbers` of the sweep in `folder`, best first, that count labels as the
    first does; `top` is how many of the best the plain mean beside it takes. `done` is called with
    each whose answers are computed.

    Raises ValueError where weights are damaged, or there are none.
    """
    data = SweepData(history)
    answers: list[Answers] = []
    for number in numbers:
        found = answers_of(data, folder, history.trials[number])
        done(number)
        if not answers or _rows(found) == _rows(answers[0]):
            answers.append(found)
    rows = answers[0].rows
    return choose(
        history.spec.metric,
        [one.trial.number for one in answers],
        np.stack([one.probabilities.numpy().astype(np.float64) for one in answers]),
        rows.truth.numpy(),
        rows.names,
        [data.manifest.utterances[row].dialogue_id for row in rows.indices.tolist()],
        top,
    )


def _rows(found: Answers) -> tuple[object, ...]:
    return found.rows.indices.tolist(), found.rows.truth.tolist(), found.rows.names


def choose(
    metric: str,
    numbers: Sequence[int],
    probabilities: Floats,
    truth: Integers,
    names: Sequence[str],
    dialogues: Sequence[str],
    top: int,
) -> Selection:
    """Of answers (M, N, C) of the M trials `numbers` to rows whose `truth` (N,) is a place in
    `names`.
    """

    def score(answers: Floats, rows: Integers) -> float:
        own = classification_metrics(truth[rows], answers.argmax(axis=-1), names)
        return value_of(own, metric)

    def loss(answers: Floats, rows: Integers) -> float:
        known = truth[rows] < answers.shape[1]
        own = answers[known, truth[rows][known]]
        return float(-np.log(np.maximum(own, 1e-12)).mean()) if known.any() else 0.0

    def rank(rows: Integers) -> list[int]:
        own = [score(one[rows], rows) for one in probabilities]
        return sorted(range(len(own)), key=lambda place: -own[place])

    def greedy(rows: Integers) -> list[int]:
        total = np.zeros_like(probabilities[0, rows])
        chosen: list[int] = []
        best: tuple[float, list[int]] = (-1.0, [])
        for size in range(1, ROUNDS + 1):
            means = [(total + one[rows]) / size for one in probabilities]
            worth = [(score(mean, rows), -loss(mean, rows)) for mean in means]
            place = max(range(len(worth)), key=worth.__getitem__)
            total += probabilities[place, rows]
            chosen.append(place)
            if worth[place][0] > best[0]:  # of equal ones the smallest
                best = worth[place][0], list(chosen)
        return best[1]

    different = list(dict.fromkeys(dialogues))
    num_parts = min(NUM_PARTS, len(different))
    place_of = {name: place % num_parts for place, name in enumerate(different)}
    part, everyone = np.array([place_of[name] for name in dialogues]), np.arange(len(truth))

    def nested(choose_on: Callable[[Integers], list[int]]) -> float | None:
        if num_parts < 2:
            return None
        answers = np.zeros_like(probabilities[0])
        for number in range(num_parts):
            held_out = np.flatnonzero(part == number)
            members = choose_on(np.flatnonzero(part != number))
            answers[held_out] = probabilities[members][:, held_out].mean(axis=0)
        return score(answers, everyone)

    def choice(name: str, choose_on: Callable[[Integers], list[int]]) -> Choice:
        members = sorted(choose_on(everyone), key=rank(everyone).index)
        return Choice(
            name,
            tuple(numbers[place] for place in members),
            score(probabilities[members].mean(axis=0), everyone),
            nested(choose_on),
        )

    few = min(top, len(numbers))
    return Selection(
        metric,
        len(numbers),
        len(truth),
        num_parts,
        choice("the best single trial", lambda rows: rank(rows)[:1]),
        choice(f"mean of the best {few}", lambda rows: rank(rows)[:few]),
        choice("greedy selection", greedy),
    )
