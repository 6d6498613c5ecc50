"""What MLflow is told of one run: its metrics, parameters, tags and data sets, and their names."""

import hashlib
import re
from dataclasses import dataclass, field
from typing import NamedTuple

from mmm.training.config import Params
from search.tracking.inputs import Input

SWEEP = "sweep"  # the key of the sweep's own run; a trial's is its number
# What MLflow allows in a name of a metric, without the characters that are our own here.
_REFUSED = re.compile(r"[^\w \-]")
_MOST_LETTERS = 200  # of MLflow's 250


def metric_name(label: str) -> str:
    """A label in the name of a metric: letters and digits of any script, `_`, `-` and spaces stay,
    any other character is its hexadecimal code between full stops (`very happy/sad` is `very
    happy.2F.sad`), so that no two labels have one name. One of more than 200 characters is cut,
    with a hash of the whole.
    """
    name = _REFUSED.sub(lambda found: f".{ord(found[0]):X}.", label)
    if len(name) <= _MOST_LETTERS:
        return name
    return f"{name[:_MOST_LETTERS]}.{hashlib.sha256(label.encode()).hexdigest()[:12]}"


class Point(NamedTuple):
    """One metric of a run. MLflow's SQL stores keep equal points once."""

    name: str
    value: float
    time_ms: int
    step: int


@dataclass
class Change:
    """What a run has not been told yet."""

    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    inputs: list[Input] = field(default_factory=list)
    status: str | None = None
    ended: float | None = None


@dataclass
class Run:
    """A run as far as the ledger goes."""

    key: str
    name: str
    started: float
    parent: str | None
    tags: dict[str, str]  # what it is made with
    settings: Params = field(default_factory=dict)
    chosen: frozenset[str] = frozenset()  # settings that the space suggested
    state: str = "running"
    epoch: int = 0
    told: float = 0.0  # when the last epoch was reported
    final: float | None = None
    best: tuple[float, int] | None = None  # score and epoch
    folds: dict[int, dict[int, float]] = field(default_factory=dict)  # scores by fold and epoch


def run_name(settings: Params, number: int) -> str:
    """`mlp_mixer K3 b2 #17`."""
    short = {"context": "K", "num_blocks": "b", "layers": "L", "fold": "fold"}
    parts = [f"{letter}{settings[name]}" for name, letter in short.items() if name in settings]
    return " ".join([str(settings.get("architecture", "invalid")), *parts, f"#{number}"])
