"""What a sweep found beyond its scores, as one typed record: what decided them, what each system
can be expected to reach, and where the winner errs. `report --json` and the appendix have it in
short, the page in full.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from search.ledger.history import History
from search.results.expected_best import SystemExpected, by_system
from search.results.importance import Ablation, Expected, Importance, ablation_of, importances
from search.results.page.paths import without_folders
from search.results.winner import OfClass, Winner


@dataclass(frozen=True)
class ExpectedOfSystem:
    """The best score of so many trials of one system, in the mean, with a 95 % band."""

    system: str
    trials: int
    score: float
    low: float
    high: float


@dataclass(frozen=True)
class Calibrated:
    """The winner's expected calibration error, and what a temperature makes of it."""

    error: float
    temperature: float | None
    error_after: float | None


@dataclass(frozen=True)
class Findings:
    """As docs/results.md has its fields."""

    importances: tuple[Importance, ...]  # the most important first; none of too few trials
    ablation: Ablation | None
    systems: tuple[ExpectedOfSystem, ...]  # the best first, after one trial, after ten, after all
    classes: tuple[OfClass, ...]  # of the winner; none where it was not looked at
    calibration: Calibrated | None
    left_out: str  # why the winner was not looked at; empty where it was

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def findings(history: History, winner: Winner | str | None) -> Findings:
    """Of a sweep, finished or not; `winner` as `read_winner` has it."""
    expected = Expected(history)
    looked = winner if isinstance(winner, Winner) else None
    own = None if looked is None else looked.calibration
    systems = by_system(expected) if expected.is_known else []
    return Findings(
        tuple(importances(expected)),
        ablation_of(expected),
        tuple(one for system in systems for one in _in_short(system)),
        () if looked is None else looked.classes,
        None if own is None else Calibrated(own.error, own.temperature, own.error_after),
        without_folders(winner) if isinstance(winner, str) else "",
    )


def _in_short(found: SystemExpected) -> Iterator[ExpectedOfSystem]:
    """After 1 trial, about 10, and all of them."""
    places = {0, int(abs(found.numbers - 10).argmin()), len(found.numbers) - 1}
    for place in sorted(places):
        yield ExpectedOfSystem(
            found.system,
            int(found.numbers[place]),
            *(float(one[place]) for one in (found.scores, found.low, found.high)),
        )
