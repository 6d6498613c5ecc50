"""The specification of a sweep, as its ledger has it."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit, urlunsplit

ParamValue = str | int | float | bool | None
# Parameters as a sampler suggests them, or the settings that a space makes of them.
Params = Mapping[str, ParamValue]

REPEATS = ("new-seed", "reuse")


@dataclass(frozen=True)
class SweepSpec:
    """All that decides what a sweep does. Paths are absolute, because workers run elsewhere."""

    name: str
    space: str
    manifest: str
    features: str
    trials: int
    epochs: int
    workers: int
    gpus_per_trial: float = 0.0
    metric: str = "macro_f1"
    time_budget_s: float | None = None
    seed: int = 1
    first_rung: int = 5
    factor: int = 3
    tracking_uri: str | None = None  # None: SQLite in the runs folder
    address: str | None = None
    keep: int = 20  # trials whose weights stay on disk
    command: str = ""
    # Budgets of all sessions together, beside trials and time; None: without end.
    compute_budget_s: float | None = None  # training, summed over workers
    gpu_hours: float | None = None
    target: float | None = None  # score
    patience: int | None = None  # ended trials without a better score
    # What a trial may cost.
    max_parameters: int | None = None
    max_ms_per_utterance: float | None = None
    max_memory_mb: float | None = None
    repeats: str = "new-seed"  # of settings that were trained: one of REPEATS
    # Parameter points that run before the space's known good ones.
    enqueue: list[Params] = field(default_factory=list)
    system_metrics: bool = False  # in MLflow, beside what is learned
    packs: int | None = (
        None  # trials of one shape that a worker trains as one model; None: as measured
    )
    precision: str = "auto"  # of training; auto: bf16 where it is faster
    # What `precision` came to where the sweep began, by architecture, so that no trial depends on
    # the machine it is trained on.
    precisions: dict[str, str] | None = None
    audio_features: list[str] | None = (
        None  # that the folder held when the sweep began, for spaces that look; None: older sweeps
    )
    # Of trials whose space does not say; ledgers from before there was a choice have no entry, and
    # go on without scaling.
    input_scaling: str = "none"
    max_equal_failures: int = 5  # in a row, after which the sweep ends; 0: it never does for that

    @property
    def limits_cost(self) -> bool:
        """Whether a trial may fail for what it takes while it trains."""
        return self.max_ms_per_utterance is not None or self.max_memory_mb is not None

    def as_json(self) -> dict[str, object]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, object]) -> Self:
        """What a ledger has of it; what an earlier version left out has its default. Raises
        ValueError where it names what this version does not know: it may decide what the sweep
        does.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := found.keys() - known:
            raise ValueError(f"the specification has {', '.join(sorted(unknown))}")
        return cls(**found)  # type: ignore[arg-type]

    @property
    def rungs(self) -> list[int]:
        """Epochs at which ASHA decides; the last epoch is no decision."""
        found, epoch = [], self.first_rung
        while epoch < self.epochs:
            found.append(epoch)
            epoch *= self.factor
        return found


def check_tracking_uri(uri: str) -> None:
    """Raises ValueError where a sweep could not be kept there exactly once, or a password would end
    up in files.
    """
    parts = urlsplit(uri)
    if "://" not in uri:
        raise ValueError(
            f"--tracking-uri {uri!r} is no URI; expected for example http://127.0.0.1:5000 or"
            " sqlite:///path.db"
        )
    if parts.scheme == "file":
        raise ValueError(
            f"--tracking-uri {uri!r}: MLflow's file store keeps a point twice where it is sent"
            " twice; use sqlite:///path.db or a server"
        )
    if parts.scheme in ("http", "https") and parts.username is not None:
        raise ValueError(
            "--tracking-uri with a user name in it would be written to files; "
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead"
        )


def without_password(uri: str) -> str:
    """As files and messages name a store."""
    parts = urlsplit(uri)
    return (
        urlunsplit(parts._replace(netloc=re.sub(r":[^@]*@", "@", parts.netloc)))
        if parts.password
        else uri
    )
