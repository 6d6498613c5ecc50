"""Settings of one training run: a frozen record, checked once with every fault listed at once."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from mmm.features.recipe import AUDIO_FEATURES, MAX_CONTEXT
from mmm.models import SYSTEMS
from mmm.models.mlp_mixer import RESIDUALS
from mmm.training.scaling import SCALINGS

# Settings by name: the flat mapping a space suggests, a ledger keeps and `make_config` checks.
ParamValue = str | int | float | bool | None
Params = Mapping[str, ParamValue]

CLASS_WEIGHTS = ("none", "inverse", "sqrt_inverse", "effective_number")
LABEL_POLICIES = ("expand", "first", "drop", "soft", "published")
ACCUMULATIONS = ("exact", "published")
INPUTS = ("both", "speech", "text")
# Settings that only some architectures have, with their defaults; elsewhere they must be left out.
_ONLY: dict[str, tuple[ParamValue, tuple[str, ...]]] = {
    "num_blocks": (1, ("mlp_mixer",)),
    "residual": ("standard", ("mlp_mixer",)),
    "layers": (1, ("cross_attention",)),
    "heads": (8, ("cross_attention",)),
    "width": (256, ("vanilla_concat", "three_way_concat", "mlp_mixer")),
    "c": (0.01, ("linear",)),
}
# What decides how a fusion system is trained step by step; the linear one is solved instead.
_STEPWISE = (
    "classifier_hidden",
    "dropout",
    "masked",
    "batch_size",
    "accumulate",
    "accumulation",
    "lr",
    "weight_decay",
    "weighted_sampling",
    "shuffle",
    "label_smoothing",
)


class ConfigError(ValueError):
    """Settings that cannot be trained; the message lists every fault."""


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training run, after MMM's scripts. Make it with `make_config`, which checks
    and completes it.

    Settings that the architecture does not have are None; `linear` has none of those by which the
    others are trained step by step.
    """

    architecture: str
    context: int = 1  # utterances, the current one included
    audio_feature: str = "hidden_state"
    num_blocks: int | None = None
    residual: str | None = None
    layers: int | None = None
    heads: int | None = None
    width: int | None = None
    classifier_hidden: int | None = None
    dropout: float = 0.1
    masked: bool = True
    epochs: int = 30
    batch_size: int = 64
    accumulate: int = 1
    accumulation: str = "exact"
    lr: float = 3e-4
    weight_decay: float = 0.01
    weighted_sampling: bool = False
    shuffle: bool = True
    class_weight: str = "none"
    label_policy: str = "expand"
    label_smoothing: float = 0.0
    inputs: str = "both"
    c: float | None = None  # scikit-learn's C: the larger, the weaker the penalty on the weights
    input_scaling: str = "none"  # as before there was a choice; new runs say `standard`
    seed: int = 1024

    @property
    def is_pooled(self) -> bool:
        """Whether the model takes one vector an utterance rather than a sequence."""
        return self.architecture in ("vanilla_concat", "three_way_concat", "linear")

    def params(self) -> dict[str, ParamValue]:
        """The settings that apply, as a flat dict."""
        unused = _STEPWISE if self.architecture == "linear" else ()
        return {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if value is not None and name not in unused
        }


@dataclass(frozen=True)
class Dims:
    """Sizes that the data decide, never a literal in a model."""

    speech_width: int
    text_width: int
    speech_positions: int
    text_positions: int
    num_classes: int


_PUBLISHED: Params = {
    "context": 1,
    "audio_feature": "hidden_state",
    "dropout": 0.1,
    "masked": False,
    "epochs": 30,
    "batch_size": 64,
    "accumulate": 8,
    "accumulation": "published",
    "lr": 5e-5,
    "weight_decay": 0.01,
    "weighted_sampling": False,
    "shuffle": False,
    "class_weight": "none",
    "label_policy": "published",
    "input_scaling": "none",
    "seed": 1024,
}


def published_params(architecture: str) -> dict[str, ParamValue]:
    """The published recipe of one system (MMM, section 4), faults included; see
    docs/reference-systems.md.
    """
    own: dict[str, Params] = {
        "mlp_mixer": {"num_blocks": 1, "residual": "published", "width": 256},
        "cross_attention": {"layers": 1, "heads": 8},
    }
    return {"architecture": architecture, **_PUBLISHED, **own.get(architecture, {"width": 256})}


# Chosen on frozen features of a few thousand utterances, where a head overfits within ten epochs
# (docs/LOG.md, 2026-11-26).
_SMALL_HEAD: Params = {"batch_size": 32, "label_smoothing": 0.1, "lr": 5e-4}
_CONCAT: Params = {**_SMALL_HEAD, "width": 64, "dropout": 0.5, "weight_decay": 0.5, "epochs": 30}
_SEQUENCE: Params = {**_SMALL_HEAD, "dropout": 0.3, "weight_decay": 0.1, "epochs": 12}
_NEW: dict[str, Params] = {
    "vanilla_concat": _CONCAT,
    "three_way_concat": _CONCAT,
    "cross_attention": {**_SEQUENCE, "lr": 3e-4},
    "mlp_mixer": {**_SEQUENCE, "width": 128},
}


def new_params(architecture: str) -> dict[str, ParamValue]:
    """What a new run of one system starts from where nothing else is said (benchmarks/heads.py).

    `make_config` alone completes settings that were recorded, and what a record leaves out was not
    there to be chosen.
    """
    return {"architecture": architecture, "input_scaling": "standard", **_NEW.get(architecture, {})}


def make_config(params: Params) -> TrainConfig:
    """Check `params`, fill in what is left out and return the settings. Raises ConfigError with
    every fault.
    """
    faults: list[str] = []
    known = {field.name: field for field in dataclasses.fields(TrainConfig)}
    for name in params:
        if name not in known:
            faults.append(f"unknown setting {name!r}; known: {', '.join(known)}")
    given: dict[str, ParamValue] = {
        name: value for name, value in params.items() if name in known and value is not None
    }
    architecture = given.get("architecture")
    if not isinstance(architecture, str) or architecture not in SYSTEMS:
        what = f"unknown architecture {architecture!r}"
        if architecture is None:
            what = "architecture is missing"
        raise ConfigError("; ".join([*faults, f"{what}; expected one of {', '.join(SYSTEMS)}"]))

    def number(
        name: str,
        kind: type[int] | type[float],
        low: float,
        high: float = math.inf,
        *,
        above: bool = False,
    ) -> None:
        value = given.get(name)
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, int if kind is int else (int, float)):
            faults.append(f"{name}={value!r} is not a {'whole ' if kind is int else ''}number")
        elif not (low < value if above else low <= value) or value > high or value == math.inf:
            wanted = f"{'above' if above else 'at least'} {low:g}"
            if high < math.inf:
                wanted += f" and at most {high:g}"
            faults.append(f"{name}={value!r} is out of range; expected {wanted}")

    def choice(name: str, choices: tuple[str, ...]) -> None:
        if name in given and given[name] not in choices:
            faults.append(f"{name}={given[name]!r} is none of {', '.join(choices)}")

    number("context", int, 1, MAX_CONTEXT)
    for name in ("num_blocks", "layers", "heads", "width", "classifier_hidden"):
        number(name, int, 1)
    for name in ("epochs", "batch_size", "accumulate"):
        number(name, int, 1)
    number("dropout", float, 0, 0.99)
    number("label_smoothing", float, 0, 0.99)
    number("lr", float, 0, above=True)
    number("weight_decay", float, 0)
    number("c", float, 0, above=True)
    number("seed", int, 0, 2**62)
    choice("audio_feature", AUDIO_FEATURES)
    choice("class_weight", CLASS_WEIGHTS)
    choice("label_policy", LABEL_POLICIES)
    choice("accumulation", ACCUMULATIONS)
    choice("inputs", INPUTS)
    choice("input_scaling", SCALINGS)
    choice("residual", RESIDUALS)
    for name in ("masked", "weighted_sampling", "shuffle"):
        if not isinstance(given.get(name, False), bool):
            faults.append(f"{name}={given[name]!r} is neither true nor false")
    for name, (default, owners) in _ONLY.items():
        if architecture in owners:
            given.setdefault(name, default)
        elif name in given:
            faults.append(f"{name} does not apply to {architecture} (only to {', '.join(owners)})")
    if architecture == "linear":
        faults += [
            f"{name} does not apply to linear, which is solved and not trained step by step"
            for name in _STEPWISE
            if name in given
        ]
        if given.setdefault("epochs", 1) != 1:
            faults.append(f"epochs={given['epochs']!r}: linear is solved in one epoch")
        # There was a choice before there was this system.
        given.setdefault("input_scaling", "standard")
    else:
        given.setdefault("classifier_hidden", 768 if architecture == "three_way_concat" else 512)
    given.setdefault("shuffle", not given.get("weighted_sampling", False))
    if given.get("weighted_sampling") is True and given["shuffle"] is True:
        faults.append(
            "weighted sampling draws its own order, so it cannot be combined with shuffling"
        )
    if given.get("weighted_sampling") is True and given.get("class_weight", "none") != "none":
        faults.append(
            "weighted sampling already balances the classes, so class_weight must be none"
        )
    if faults:
        raise ConfigError("; ".join(faults))
    for name in ("dropout", "label_smoothing", "lr", "weight_decay", "c"):
        if isinstance(value := given.get(name), int):
            given[name] = float(value)
    return TrainConfig(**cast(Any, given))  # each value's type has been checked above
