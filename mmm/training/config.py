"""Settings of one training run: a frozen record, checked once with every fault listed at once."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, cast

from mmm.features.recipe import AUDIO_FEATURES, LAYERS, MAX_CONTEXT
from mmm.setting import Field, Setting, fields_of, shown

# Settings by name: the flat mapping a space suggests, a ledger keeps and `make_config` checks.
ParamValue = str | int | float | bool | None
Params = Mapping[str, ParamValue]

CLASS_WEIGHTS = ("none", "inverse", "sqrt_inverse", "effective_number")
LABEL_POLICIES = ("expand", "first", "drop", "soft", "published")
ACCUMULATIONS = ("exact", "published")
INPUTS = ("both", "speech", "text")
SCALINGS = ("standard", "none")
POOLINGS = ("mean", "mean_std", "attentive")
LAYER_MIXES = ("one", "mean", "learned")
# Those that take one vector an utterance rather than a sequence, but for the linear one.
_POOLED = ("vanilla_concat", "three_way_concat", "gated_fusion", "late_fusion")
# Settings that only some architectures have, with their defaults; elsewhere they must be left out.
_ONLY: dict[str, tuple[ParamValue, tuple[str, ...]]] = {
    "num_blocks": (1, ("mlp_mixer",)),
    "residual": ("standard", ("mlp_mixer",)),
    "layers": (1, ("cross_attention",)),
    "heads": (8, ("cross_attention",)),
    "width": (256, (*_POOLED, "mlp_mixer")),
    "c": (0.01, ("linear",)),
    "pooling": ("mean", (*_POOLED, "linear")),
    "layer_mix": ("one", (*_POOLED, "linear")),
}
# What their inputs are made of, also of a system of the user's own.
_OF_POOLED = ("pooling", "layer_mix")
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
    context: Annotated[
        int,
        Setting("Utterances of context K, the current one included \\[1].", 1, MAX_CONTEXT),
    ] = 1
    audio_feature: Annotated[
        str,
        Setting("hidden_state or extract_feature \\[hidden_state].", choices=AUDIO_FEATURES),
    ] = "hidden_state"
    # Encoders by their names in the features folder; None: the only one of their kind.
    speech: Annotated[str | None, Setting("Speech encoder, by its name in the folder.")] = None
    text: Annotated[str | None, Setting("Text encoder, by its name in the folder.")] = None
    pooling: Annotated[
        str | None,
        Setting(
            "Pooled systems: mean of the frames, mean_std: mean and deviation, or attentive: a"
            " learned weighted mean \\[mean].",
            choices=POOLINGS,
        ),
    ] = None
    layer_mix: Annotated[
        str | None,
        Setting(
            "Pooled systems: one layer, the mean of all that were encoded, or learned weights"
            " \\[one].",
            choices=LAYER_MIXES,
        ),
    ] = None
    num_blocks: Annotated[int | None, Setting("mlp_mixer: blocks \\[1].", 1)] = None
    residual: str | None = None
    layers: Annotated[int | None, Setting("cross_attention: layers \\[1].", 1)] = None
    heads: Annotated[int | None, Setting("cross_attention: heads \\[8].", 1)] = None
    width: Annotated[
        int | None,
        Setting(
            "Model width, not for cross_attention \\[mlp_mixer and gated_fusion 128, the others 64;"
            " published 256].",
            1,
        ),
    ] = None
    classifier_hidden: Annotated[int | None, Setting(low=1)] = None
    dropout: Annotated[
        float, Setting("\\[concat systems 0.5, the others 0.3; published 0.1]", 0, 0.99)
    ] = 0.1
    masked: Annotated[bool, Setting()] = True
    epochs: Annotated[int, Setting("\\[pooled systems 30, the others 12; published 30]", 1)] = 30
    batch_size: Annotated[int, Setting("\\[32; published 64]", 1)] = 64
    accumulate: Annotated[int, Setting("Batches a step \\[1; published 8].", 1)] = 1
    accumulation: Annotated[str, Setting(choices=ACCUMULATIONS)] = "exact"
    lr: Annotated[
        float,
        Setting(
            "Learning rate of AdamW \\[5e-4, cross_attention 3e-4; published 5e-5].",
            0,
            above=True,
        ),
    ] = 3e-4
    weight_decay: Annotated[
        float, Setting("\\[pooled systems 0.5, the others 0.1; published 0.01]", 0)
    ] = 0.01
    weighted_sampling: Annotated[bool, Setting("Draw rare classes as often.")] = False
    shuffle: Annotated[
        bool, Setting("\\[shuffle, but with weighted sampling]", flag="--shuffle/--no-shuffle")
    ] = True
    class_weight: Annotated[
        str,
        Setting("none, inverse, sqrt_inverse or effective_number \\[none].", choices=CLASS_WEIGHTS),
    ] = "none"
    label_policy: Annotated[
        str,
        Setting(
            "Rows with several labels: expand, first, drop, soft \\[expand].",
            choices=LABEL_POLICIES,
        ),
    ] = "expand"
    label_smoothing: Annotated[
        float, Setting("Share of a label spread over all classes \\[0.1; published 0].", 0, 0.99)
    ] = 0.0
    inputs: Annotated[
        str, Setting("both, speech or text: what an ablation sees \\[both].", choices=INPUTS)
    ] = "both"
    # The larger, the weaker the penalty on the weights.
    c: Annotated[
        float | None,
        Setting("linear: scikit-learn's C \\[tuned on validation].", 0, above=True),
    ] = None
    # What was recorded before there was a choice; new runs say `standard`.
    input_scaling: Annotated[
        str,
        Setting(
            "standard: features with mean 0, deviation 1 over training rows; none \\[standard;"
            " published none].",
            choices=SCALINGS,
        ),
    ] = "none"
    seed: Annotated[int, Setting("\\[1024]", 0, 2**62)] = 1024
    # Of a system of the user's own (mmm/training/own_system.py), whose class `architecture` then
    # names: where its file was, the file's SHA-256, whether several train as one model (a sweep
    # decides; else alone), and the settings that only it has, each named own.NAME among others.
    system: str | None = None
    system_sha256: str | None = None
    in_packs: bool | None = None
    own: tuple[tuple[str, ParamValue], ...] | None = None

    @property
    def is_pooled(self) -> bool:
        """Whether the model takes one vector an utterance rather than a sequence."""
        if self.system_sha256 is not None:
            from mmm.training.own_system import loaded_system

            system = loaded_system(dataclasses.asdict(self))
            return system is not None and system.is_pooled
        return self.architecture in (*_POOLED, "linear")

    @property
    def takes_frames(self) -> bool:
        """Whether the model is given the frames of speech, to pool them itself or not at all."""
        return self.pooling == "attentive" or not self.is_pooled

    @property
    def features_key(self) -> "FeaturesKey":
        """Which features of a folder these settings are trained on."""
        is_mixed = self.layer_mix not in (None, "one")
        feature = LAYERS if is_mixed else self.audio_feature
        return FeaturesKey(feature, self.context, self.speech, self.text)

    def params(self) -> dict[str, ParamValue]:
        """The settings that apply, as a flat dict."""
        unused = ("own", *(_STEPWISE if self.architecture == "linear" else ()))
        found = {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if value is not None and name not in unused
        }
        return found | {f"own.{name}": value for name, value in self.own or ()}


class FeaturesKey(NamedTuple):
    """What names the features of a run in their folder."""

    audio_feature: str
    context: int
    speech: str | None = None
    text: str | None = None


@dataclass(frozen=True)
class Dims:
    """Sizes that the data decide, never a literal in a model."""

    speech_width: int
    text_width: int
    speech_positions: int
    text_positions: int
    num_classes: int
    speech_layers: int = 1  # that lie side by side in a speech vector


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
_UTTERANCE: Params = {
    **_SMALL_HEAD,
    "width": 64,
    "dropout": 0.5,
    "weight_decay": 0.5,
    "epochs": 30,
}
_SEQUENCE: Params = {**_SMALL_HEAD, "dropout": 0.3, "weight_decay": 0.1, "epochs": 12}
_NEW: dict[str, Params] = {
    "vanilla_concat": _UTTERANCE,
    "three_way_concat": _UTTERANCE,
    "cross_attention": {**_SEQUENCE, "lr": 3e-4},
    "mlp_mixer": {**_SEQUENCE, "width": 128},
    # Means of three seeds at K = 1 and 3 on Whisper's features: 0.703 and 0.707, 0.696 and 0.667
    # with _UTTERANCE; the other one 0.696 and 0.709, 0.684 and 0.710.
    "gated_fusion": {**_UTTERANCE, "width": 128, "dropout": 0.3},
    "late_fusion": {**_UTTERANCE, "dropout": 0.3},
}


def new_params(architecture: str) -> dict[str, ParamValue]:
    """What a new run of one system starts from where nothing else is said (benchmarks/heads.py).

    `make_config` alone completes settings that were recorded, and what a record leaves out was not
    there to be chosen.
    """
    from mmm.training.own_system import loaded_system

    new = _NEW.get(architecture, {})
    if (system := loaded_system({"architecture": architecture})) is not None:
        new = _UTTERANCE if system.is_pooled else {**_SEQUENCE, "width": 128}
        new = {name: new[name] for name in new if name != "width" or name in system.takes}
    return {"architecture": architecture, "input_scaling": "standard", **new}


def recorded_defaults(architecture: str) -> dict[str, ParamValue]:
    """What complete settings of an earlier version mean by what they leave out."""
    usual = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    own = {name: default for name, (default, owners) in _ONLY.items() if architecture in owners}
    return cast(dict[str, ParamValue], usual) | own


def make_config(params: Params) -> TrainConfig:
    """Check `params`, fill in what is left out and return the settings. Raises ConfigError with
    every fault, UnnamedSystem where no command has named the file of a system of the user's own.
    """
    # They import torch, which a command line that shows its help need not wait for.
    from mmm.models import SYSTEMS
    from mmm.models.mlp_mixer import RESIDUALS
    from mmm.training.own_system import loaded_system, own_settings

    faults: list[str] = []
    known = [field.name for field in dataclasses.fields(TrainConfig) if field.name != "own"]
    for name in params:
        if name not in known and not name.startswith("own."):
            faults.append(f"unknown setting {name!r}; known: {', '.join(known)}")
    given: dict[str, ParamValue] = {
        name: value for name, value in params.items() if name in known and value is not None
    }
    system = loaded_system(given)
    if system is not None:
        given["architecture"], given["system_sha256"] = system.name, system.sha256
        given.setdefault("system", system.reference)
    elif given.get("system") is not None:
        faults.append("system without system_sha256; name the file as architecture")
    architecture = given.get("architecture")
    if system is None and (not isinstance(architecture, str) or architecture not in SYSTEMS):
        what = f"unknown architecture {architecture!r}"
        if architecture is None:
            what = "architecture is missing"
        raise ConfigError("; ".join([*faults, f"{what}; expected one of {', '.join(SYSTEMS)}"]))
    own = own_settings(system, architecture, params, faults)

    for name, field in fields_of(TrainConfig).items():
        if (value := given.get(name)) is not None:
            faults += _faults(name, value, field)
    if given.get("residual", RESIDUALS[0]) not in RESIDUALS:
        faults.append(f"residual={given['residual']!r} is none of {', '.join(RESIDUALS)}")
    for name, (default, owners) in _ONLY.items():
        is_of_pooled = name in _OF_POOLED and system is not None and system.is_pooled
        is_taken = is_of_pooled or (system is not None and name in system.takes)
        if architecture in owners or is_taken:
            given.setdefault(name, default)
        elif name in given and system is not None:
            faults.append(f"{name} does not apply to {architecture}, which does not take it")
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
    elif system is None or "classifier_hidden" in system.takes:
        given.setdefault("classifier_hidden", 768 if architecture == "three_way_concat" else 512)
    elif "classifier_hidden" in given:
        faults.append(f"classifier_hidden does not apply to {architecture}, which does not take it")
    if system is not None and "masked" not in system.takes and given.get("masked") is False:
        faults.append(f"masked does not apply to {architecture}, which does not take it")
    if given.get("pooling") == "attentive":
        if architecture == "linear":
            faults.append("pooling='attentive' does not apply to linear, which is solved")
        if given.get("layer_mix", "one") != "one":
            faults.append(
                f"layer_mix={given['layer_mix']!r} mixes pooled vectors; pooling must be mean or"
                " mean_std"
            )
    if given.get("layer_mix", "one") != "one":
        if architecture == "linear" and given["layer_mix"] == "learned":
            faults.append("layer_mix='learned' does not apply to linear, which is solved")
        if given.get("audio_feature", AUDIO_FEATURES[0]) != AUDIO_FEATURES[0]:
            faults.append(
                f"layer_mix={given['layer_mix']!r} mixes layers; audio_feature must be hidden_state"
            )
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
    return TrainConfig(**cast(Any, given), own=own)  # each value's type has been checked above


def _faults(name: str, value: ParamValue, field: Field) -> Iterator[str]:
    setting, said = field.setting, f"{name}={shown(value)}"
    if field.kind is bool:
        if not isinstance(value, bool):
            yield f"{said} is neither true nor false"
    elif field.kind is str:
        if not setting.choices and not isinstance(value, str):
            yield f"{said} is no name"
        elif setting.choices and value not in setting.choices:
            yield f"{said} is none of {', '.join(setting.choices)}"
    elif isinstance(value, bool) or not isinstance(
        value, int if field.kind is int else int | float
    ):
        yield f"{said} is not a {'whole ' if field.kind is int else ''}number"
    elif not setting.takes(value):
        yield f"{said} is out of range; expected {setting.expected}"
