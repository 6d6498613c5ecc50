"""The specification of a sweep, as its ledger has it."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Self, TypedDict
from urllib.parse import urlsplit, urlunsplit

from mmm.metrics import OBJECTIVES
from mmm.setting import Setting
from mmm.training.config import SCALINGS, FeaturesKey, Params, ParamValue, TrainConfig
from search.ledger.durations import parse_duration

ANY_FOLDS = 0  # asked for, before the manifest has said how many there are
REPEATS = ("new-seed", "reuse")
AUTO = "auto"


def parse_packs(text: str) -> int | None:
    """`auto` -> None, `off` -> 1, `8` -> 8. Raises ValueError."""
    if text == "auto":
        return None
    if text != "off" and not re.fullmatch(r"[1-9]\d{0,3}", text):
        raise ValueError(
            f"--packs {text!r} is not understood; expected auto, off or a number of trials, for"
            " example 8"
        )
    return 1 if text == "off" else int(text)


def parse_gpus(text: str) -> float | str:
    """`auto` -> AUTO, which is measured before there is a specification; `0.25` -> 0.25. Raises
    ValueError.
    """
    if text == AUTO:
        return AUTO
    try:
        return float(text)
    except ValueError:
        raise ValueError(
            f"--gpus-per-trial {text!r} is not understood; expected auto or a number, for example"
            " 0.25"
        ) from None


class SpeechEncoderThere(TypedDict):
    """What a sweep's features folder had of a speech encoder."""

    identity: str  # hash of its recipe
    features: list[str]
    has_layers: bool  # whether pooled vectors of several layers are there, to be mixed


class TextEncoderThere(TypedDict):
    """What it had of a text encoder."""

    identity: str
    contexts: list[int]


def trials_of_gpu(gpus_per_trial: float) -> int:
    """How many trials share one GPU: what is left over of two is of no use to a third."""
    return max(1, int(1 / gpus_per_trial + 1e-6))  # a tenth ten times is one


@dataclass(frozen=True)
class SweepSpec:
    """All that decides what a sweep does. Paths are absolute, because workers run elsewhere."""

    name: str
    space: str
    manifest: str
    features: str
    trials: Annotated[int, Setting("Settings to try.", 1, default=40)]
    epochs: Annotated[int, Setting("Epochs of a trial that is not stopped early.", 1, default=27)]
    workers: Annotated[int, Setting("Trials at a time \\[one a core, or a GPU share].", 1)]
    gpus_per_trial: Annotated[
        float,
        Setting(
            "GPUs of a trial; 0.25 lets four share one, auto measures how many are to.",
            0,
            wrong="is negative",
            default="0",
            metavar="auto|N",
            parse=parse_gpus,
        ),
    ] = 0.0
    metric: Annotated[str, Setting("Validation metric to maximise.", choices=OBJECTIVES)] = (
        "macro_f1"
    )
    time_budget_s: Annotated[
        float | None,
        Setting(
            "Stop after this long, all sessions together, for example 2h.",
            flag="--time-budget",
            parse=parse_duration,
        ),
    ] = None
    seed: Annotated[int, Setting("Of the sampler and of the trials.")] = 1
    first_rung: Annotated[int, Setting("ASHA: first epoch at which trials are stopped.", 1)] = 5
    factor: Annotated[int, Setting("ASHA: one in so many goes on.", 2)] = 3
    tracking_uri: Annotated[
        str | None, Setting("MLflow's tracking URI \\[SQLite in the runs folder].")
    ] = None
    address: Annotated[
        str | None, Setting("Ray cluster to join, for example auto \\[a local one].")
    ] = None
    # On record, so that a sweep that goes on by itself may join it again.
    insecure: Annotated[
        bool, Setting("Join a cluster that asks for no token, which runs anyone's commands.")
    ] = False
    ship: Annotated[
        bool,
        Setting(
            "Nodes of the cluster train with this machine's mmm-search, and your own systems.",
            flag="--ship/--no-ship",
        ),
    ] = False
    keep: Annotated[int, Setting("Trials whose weights stay on disk.", 1)] = 20
    command: str = ""
    # Budgets of all sessions together, beside trials and time; None: without end.
    compute_budget_s: Annotated[
        float | None,
        Setting(
            "Stop after so much training, summed over workers, for example 10h.",
            flag="--compute-budget",
            parse=parse_duration,
        ),
    ] = None
    gpu_hours: Annotated[
        float | None, Setting("Stop after so many hours of GPUs in training.", 0, above=True)
    ] = None
    target: Annotated[
        float | None,
        Setting(
            "Stop when the best validation score reaches this.",
            0,
            1,
            above=True,
            wrong="is no score to reach; expected above 0 and at most 1",
        ),
    ] = None
    patience: Annotated[
        int | None,
        Setting("Stop after so many ended trials without a better score.", 0, above=True),
    ] = None
    # What a trial may cost.
    max_parameters: Annotated[
        int | None, Setting("Larger models fail without training.", 0, above=True)
    ] = None
    max_ms_per_utterance: Annotated[
        float | None, Setting("Trials that validate slower fail.", 0, above=True)
    ] = None
    max_memory_mb: Annotated[
        float | None, Setting("Trials that hold more memory fail.", 0, above=True)
    ] = None
    repeats: Annotated[
        str,
        Setting(
            "Settings that were trained: new-seed, or reuse what the ledger has.", choices=REPEATS
        ),
    ] = "new-seed"
    # Parameter points that run before the space's known good ones.
    enqueue: list[Params] = field(default_factory=list)
    system_metrics: Annotated[bool, Setting("Send CPU, GPU and memory use to MLflow, too.")] = False
    packs: Annotated[  # None: as measured
        int | None,
        Setting(
            "Trials of one shape that a worker trains as one model \\[auto, one worker: off].",
            metavar="auto|off|N",
            parse=parse_packs,
        ),
    ] = None
    precision: Annotated[
        str, Setting("Of training: float32, bf16, or auto: what is fast there.")
    ] = "auto"
    # What `precision` came to where the sweep began, by architecture, so that no trial depends on
    # the machine it is trained on.
    precisions: dict[str, str] | None = None
    # Speech features that the folder held when the sweep began, for spaces that look; None: older
    # sweeps.
    audio_features: list[str] | None = None
    # Encoders that the folder held when the sweep began, by their names then: a sweep goes on with
    # them, whatever they are called by now; None: older sweeps.
    speech_encoders: dict[str, SpeechEncoderThere] | None = None
    text_encoders: dict[str, TextEncoderThere] | None = None
    # Of trials whose space does not say; ledgers from before there was a choice have no entry, and
    # go on without scaling.
    input_scaling: Annotated[
        str,
        Setting(
            "standard: columns of the features with mean 0, deviation 1 over training rows; none:"
            " as they are.",
            choices=SCALINGS,
            default="standard",
        ),
    ] = "none"
    # Of the manifest when the sweep began; None: its split of train and dev.
    folds: int | None = None
    # A URL, or an absolute path: the sweep's folder is copied there.
    storage: Annotated[
        str | None,
        Setting("Copy the sweep there, a path or for example s3://bucket/sweeps.", metavar="URL"),
    ] = None
    storage_interval_s: Annotated[
        float | None,
        Setting("How often \\[60s].", 0, flag="--storage-interval", parse=parse_duration),
    ] = None
    # Where manifest and features come from, which then lie in the cache of each machine; None: they
    # are at their paths.
    manifest_url: str | None = None
    features_url: str | None = None
    cache: Annotated[
        str | None,
        Setting(
            "Where each machine keeps manifest and features of a URL \\[~/.cache/mmm-search].",
            metavar="DIR",
        ),
    ] = None
    max_equal_failures: Annotated[
        int,
        Setting(
            "Stop after N trials in a row that failed for the same reason, 0: never.",
            0,
            wrong="is negative; expected a number of trials, or 0 for no end",
            metavar="N",
        ),
    ] = 5
    # Over folds: whether a trial is given up that falls behind the best one on those it has.
    races_folds: bool = True
    until_noise: Annotated[
        bool,
        Setting(
            "Stop where less further gain is expected than seeds differ by.",
            flag="--until-noise/--no-until-noise",
        ),
    ] = False
    min_per_system: Annotated[
        int | None,
        Setting("Trials that each system gets before the search may leave it out.", 1, metavar="N"),
    ] = None

    @property
    def limits_cost(self) -> bool:
        """Whether a trial may fail for what it takes while it trains."""
        return self.max_ms_per_utterance is not None or self.max_memory_mb is not None

    @property
    def score_name(self) -> str:
        """What a trial's score is, in words."""
        if self.folds:
            return f"mean {self.metric} over {self.folds} folds"
        return f"validation {self.metric}"

    def features_key(self, config: TrainConfig) -> FeaturesKey:
        """What names a trial's features: encoders by their recipes, not their names."""
        key = config.features_key
        return key._replace(
            speech=self.speech_identity(key.speech), text=self.text_identity(key.text)
        )

    def speech_identity(self, name: ParamValue) -> str | None:
        """The recipe of an encoder that a trial's settings name; where the sweep does not know it,
        the name.
        """
        return _identity(self.speech_encoders, name)

    def text_identity(self, name: ParamValue) -> str | None:
        return _identity(self.text_encoders, name)

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


def _identity(
    encoders: Mapping[str, SpeechEncoderThere] | Mapping[str, TextEncoderThere] | None,
    named: ParamValue,
) -> str | None:
    name = None if named is None else str(named)
    if not encoders:
        return name
    if name is None:
        return next(iter(encoders.values()))["identity"] if len(encoders) == 1 else None
    return encoders[name]["identity"] if name in encoders else name


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
