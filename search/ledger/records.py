"""What a ledger is made of: a record for each kind of event. Their JSON, and the way back:
search/ledger/record_json.py.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple, Self, cast

from mmm.features.recipe import Recipe
from mmm.metrics import Metrics
from mmm.training.config import Params, ParamValue
from search.ledger.spec import SweepSpec

# Of a field that is written though it has its default: as it always was.
_ALWAYS = {"is_always_written": True}

EndState = Literal["complete", "pruned", "failed"]
# How a trial is tried again that ran out of memory (search/engine/memory.py).
MemoryAttempt = Literal["fewer", "alone", "half"]


@dataclass(frozen=True, slots=True)
class Sweep:
    """The first event: the frozen specification."""

    kind: ClassVar[str] = "sweep"
    spec: SweepSpec
    # As the ledger has it: a digest of it is what MLflow knows the sweep by, whatever fields the
    # specification has gained since.
    written: str = ""


@dataclass(frozen=True, slots=True)
class Session:
    """A start, by run or resume, with the specification as its options left it."""

    kind: ClassVar[str] = "session"
    spec: SweepSpec
    host: str
    command: str
    processor: str = ""  # of the driver's machine; empty in ledgers that do not say
    threads: int | None = None  # of torch in each worker


@dataclass(frozen=True, slots=True)
class Prior:
    """A trial of another sweep, for the sampler to learn from."""

    kind: ClassVar[str] = "prior"
    source: str
    params: Params
    scores: Mapping[int, float]  # by epoch


@dataclass(frozen=True, slots=True)
class Baseline:
    """The linear system on the same features (search/results/baseline.py)."""

    kind: ClassVar[str] = "baseline"
    settings: Params
    metrics: Metrics  # validation
    seconds: float
    sha256: str  # of its bundle
    num_parameters: int
    data_changes: int  # how often the data had been changed before


@dataclass(frozen=True, slots=True)
class Close:
    """The end of a session: done, interrupted, the budget that ended it, or broken off and why."""

    kind: ClassVar[str] = "close"
    why: str
    seconds: float
    efficiency: float | None
    # From the command to the first training step.
    first_step_s: float | None = field(default=None, metadata=_ALWAYS)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A trial's beginning."""

    kind: ClassVar[str] = "suggest"
    params: Params  # as the sampler suggested them
    distributions: Mapping[str, str]  # Optuna's JSON of each
    settings: Params  # complete, as trained
    queued: str | None = None  # which known good or enqueued point it was
    precision: str | None = None  # None in ledgers that do not say
    num_parameters: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """What a worker reported of an epoch. A large sweep has tens of thousands of them and few are
    asked for their tables (classes, confusions): those are text.
    """

    kind: ClassVar[str] = "epoch"
    epoch: int
    train_loss: float
    metrics: Mapping[str, float]  # validation, those that are one number
    seconds: float
    alone_seconds: float  # as they would be with nothing beside it
    started: float | None = None  # seconds since 1970, by the worker's clock
    ended: float
    memory_mb: float | None = None  # of the worker's process, or of its tensors on a GPU
    together: int | None = None  # trials that were trained in it; None: one, or nobody knows
    ms_per_utterance: float | None = None
    tables: str = ""  # the other metrics, as JSON
    copied_from: int | None = None  # the trial that had the same settings: nothing was trained
    fold: int = 1  # of a sweep over folds

    @property
    def all_metrics(self) -> Metrics:
        """The tables among them."""
        tables = json.loads(self.tables) if self.tables else {}
        return cast(Metrics, {**self.metrics, **tables})


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights that are on the disk."""

    kind: ClassVar[str] = "checkpoint"
    epoch: int
    sha256: str
    path: str
    fold: int = 1


@dataclass(frozen=True, slots=True)
class RungDecision:
    """Whether a trial goes on after a rung."""

    kind: ClassVar[str] = "decision"
    epoch: int
    action: Literal["continue", "stop"]
    reason: str


@dataclass(frozen=True, slots=True)
class FoldDecision:
    """Whether a trial that has trained a fold goes on with the next one."""

    kind: ClassVar[str] = "fold"
    fold: int
    action: Literal["continue", "stop"]
    reason: str


@dataclass(frozen=True, slots=True)
class End:
    """A trial's end."""

    kind: ClassVar[str] = "end"
    state: EndState
    reason: str
    traceback: str = field(default="", metadata=_ALWAYS)  # where it failed
    is_lost: bool = False  # it failed because its workers died


@dataclass(frozen=True, slots=True)
class Warned:
    """A worker's warning."""

    kind: ClassVar[str] = "note"
    about: ClassVar[str] = "warning"
    trial: int
    text: str


@dataclass(frozen=True, slots=True)
class GoesOnAlone:
    """A trial whose pack went wrong, or whose worker died with others in it."""

    kind: ClassVar[str] = "note"
    about: ClassVar[str] = "alone"
    trial: int
    reason: str


@dataclass(frozen=True, slots=True)
class DeadWorker:
    """A worker that died while it trained this trial and nothing else."""

    kind: ClassVar[str] = "note"
    about: ClassVar[str] = "dead worker"
    trial: int
    reason: str


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """A trial that ran out of memory, and how it is tried again."""

    kind: ClassVar[str] = "note"
    about: ClassVar[str] = "memory"
    trial: int
    reason: str
    attempt: MemoryAttempt


@dataclass(frozen=True, slots=True)
class LostNode:
    """A node that died or was taken away while it trained this trial, which is no fault of it."""

    kind: ClassVar[str] = "note"
    about: ClassVar[str] = "lost node"
    trial: int
    reason: str


@dataclass(frozen=True, slots=True)
class ClockMoved:
    """Since the event before, the machine's clock has gone on by so many seconds more than have
    passed: it was set, or the machine slept.
    """

    kind: ClassVar[str] = "note"
    about: ClassVar[str] = "clock"
    seconds: float


@dataclass(frozen=True, slots=True)
class PackMeasured:
    """How long a step takes with so many trials of one kind in a pack, and how many are best."""

    kind: ClassVar[str] = "note"
    about: ClassVar[str] = "packs"
    architecture: ParamValue
    batch_size: ParamValue
    width: ParamValue
    seconds: Mapping[str, float]
    size: int


@dataclass(frozen=True, slots=True)
class SplitDigest:
    """A split's utterances, and digests of what trials are trained on of them."""

    utterances: int
    rows: str
    texts: str
    labels: str
    classes: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ManifestDigest:
    """The manifest of a session."""

    name: str
    path: str
    sha256: str
    profile: str = ""  # JSON: utterances by split, and the classes
    splits: Mapping[str, SplitDigest] | None = None  # None: an earlier version wrote it
    folds: str = ""  # digest of which utterance is in which; empty where there are none


@dataclass(frozen=True, slots=True)
class StoreDigest:
    """A feature store of a session."""

    kind: str  # audio or text
    of: str | int  # the feature or the context
    encoder: str
    digest: str
    path: str
    recipe: Recipe | None = None  # None: an earlier version wrote it
    content: Mapping[str, str] | None = None  # by split, of those that trials may ask for


@dataclass(frozen=True, slots=True)
class DataNote:
    """What a session trains on, and what of it had been changed where somebody went on all the
    same (search/ledger/data.py).
    """

    kind: ClassVar[str] = "note"
    about: ClassVar[str] = "data"
    manifest: ManifestDigest
    stores: tuple[StoreDigest, ...]
    restarted: tuple[int, ...] = ()  # interrupted trials that began again on them
    changed: tuple[str, ...] = ()
    only_train_labels: bool = False  # earlier scores then stand, and weights fit


@dataclass(frozen=True, slots=True)
class SpaceNote:
    """The file with the space of a session, where it is not that of the session before."""

    kind: ClassVar[str] = "note"
    about: ClassVar[str] = "space"
    space: str  # as the specification names it
    sha256: str
    text: str

    def is_same(self, other: Self) -> bool:
        """Whether both are one function of one text, wherever its file lies."""
        names = (one.space.rpartition(":")[2] for one in (self, other))
        return self.sha256 == other.sha256 and len(set(names)) == 1


@dataclass(frozen=True, slots=True)
class OpenedTest:
    """The test split was opened for finalists, before anything of it was read."""

    kind: ClassVar[str] = "note"
    about: ClassVar[str] = "test opening"
    who: str
    command: str
    finalists: tuple[str, ...]
    trials: tuple[int, ...]  # their runs
    manifest_sha256: str
    utterances: int


@dataclass(frozen=True, slots=True)
class ScoredOnTest:
    """What one of these runs scores there."""

    kind: ClassVar[str] = "note"
    about: ClassVar[str] = "test score"
    trial: int
    bundle_sha256: str
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class UnknownEvent:
    """What this version has no record for."""

    kind: str
    text: str  # JSON of the body


SweepRecord = (
    Sweep
    | Session
    | Prior
    | Baseline
    | Close
    | Warned
    | GoesOnAlone
    | DeadWorker
    | OutOfMemory
    | LostNode
    | ClockMoved
    | PackMeasured
    | DataNote
    | SpaceNote
    | OpenedTest
    | ScoredOnTest
    | UnknownEvent
)
TrialRecord = Suggestion | Epoch | Checkpoint | RungDecision | FoldDecision | End
Record = SweepRecord | TrialRecord


class Event(NamedTuple):
    """One line of the ledger."""

    seq: int
    time: float  # seconds since 1970
    trial: int | None
    body: Record

    @property
    def kind(self) -> str:
        return self.body.kind


def as_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def split_tables(metrics: Metrics) -> tuple[Mapping[str, float], str]:
    """The metrics that are one number, and the others as an `Epoch` has them."""
    tables = {name: value for name, value in metrics.items() if isinstance(value, dict | list)}
    scalars = {name: value for name, value in metrics.items() if name not in tables}
    return cast(Mapping[str, float], scalars), as_json(tables) if tables else ""
