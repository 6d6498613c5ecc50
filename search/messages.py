"""What the driver and its workers tell each other, and the one place that turns it into JSON and
back. Both are of the same version.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from mmm.training.config import Params
from search.ledger.records import Checkpoint, Epoch, PackMeasured


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A trial to train."""

    sweep: str  # its folder
    number: int
    settings: Params
    manifest: str
    features: str
    metric: str
    device: str
    rungs: Sequence[int]
    precision: str
    # Encoders, by recipe where the sweep knows them (SweepSpec.features_key).
    speech: str | None = None
    text: str | None = None
    fold: int | None = None  # to train without; None: the sweep has none
    # What is read in the manifest's place: a file without the rows of its test split, and what of
    # the manifest is not in it. None: there is no such file.
    sealed: str | None = None
    manifest_sha256: str = ""
    classes: Sequence[str] = ()
    checkpoints: Sequence[Checkpoint] = ()  # that are on the disk, the newer first
    features_url: str | None = None  # where they come from, into the machine's `cache`
    cache: str | None = None
    largest_pack: int = 1  # over 1: first measure how large a pack of such trials is worth it
    batch_parts: int = 1  # that each batch is computed in, for less memory


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a trial cannot go on in this worker."""

    reason: str
    traceback: str
    is_diverged: bool = False  # that is what its settings are like
    is_together: bool = False  # it is the whole pack's: nobody can tell whose
    is_memory: bool = False  # of the machine or the GPU there was not enough

    @property
    def goes_on(self) -> bool:
        """Whether the trial may be trained on elsewhere, from its checkpoint."""
        return self.is_together or self.is_memory


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a trial in a slice of its training, or in several."""

    number: int
    epochs: Sequence[Epoch] = ()
    checkpoint: Checkpoint | None = None
    is_last: bool = False
    warnings: Sequence[str] = ()
    failure: Failure | None = None
    packs: PackMeasured | None = None


def as_json(messages: Sequence[Order] | Sequence[Report]) -> str:
    return json.dumps([asdict(message) for message in messages])


def orders_of(text: str) -> list[Order]:
    orders = json.loads(text)
    for order in orders:
        order["checkpoints"] = [Checkpoint(**found) for found in order["checkpoints"]]
    return [Order(**order) for order in orders]


def reports_of(text: str) -> list[Report]:
    reports = json.loads(text)
    records = {"checkpoint": Checkpoint, "failure": Failure, "packs": PackMeasured}
    for report in reports:
        report["epochs"] = [Epoch(**epoch) for epoch in report["epochs"]]
        for name, record in records.items():
            report[name] = None if report[name] is None else record(**report[name])
    return [Report(**report) for report in reports]


@dataclass(frozen=True, slots=True)
class Weights:
    """A checkpoint, or at a trial's end the best weights."""

    epoch: int
    content: bytes
    seconds: float  # that making it took


@dataclass(frozen=True, slots=True)
class Cut:
    """What a trial did in a slice of its training, taken while it stood between two epochs; not on
    the disk yet.
    """

    number: int
    epoch: int  # the last one
    epochs: tuple[Epoch, ...] = ()
    warnings: tuple[str, ...] = ()
    failure: Failure | None = None
    is_last: bool = False
    weights: Weights | None = None
    answers: bytes | None = None  # of a fold: the file with what it answered so far

    def after(self, earlier: "Cut") -> "Cut":
        """Both in one."""
        return replace(
            self,
            epochs=earlier.epochs + self.epochs,
            warnings=earlier.warnings + self.warnings,
            weights=self.weights or earlier.weights,
            answers=self.answers or earlier.answers,
        )

    def report(self, checkpoint: Checkpoint | None = None) -> Report:
        """What the driver is told of it."""
        return Report(
            self.number, self.epochs, checkpoint, self.is_last, self.warnings, self.failure
        )
