"""Everything that can be refused is refused here, before Ray starts and before anything is
written.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mmm.batches import Features, dims_of, load_features
from mmm.config import ConfigError, TrainConfig, make_config
from mmm.encode_command import encode_command
from mmm.manifest import Manifest, read_manifest
from mmm.metrics import OBJECTIVES
from mmm.models import ARCHITECTURES
from mmm.precision import training_precision
from mmm.run import build_model
from mmm.scaling import SCALINGS
from mmm.store import AUDIO_FEATURES, list_recipes
from search.config import REPEATS, SweepSpec, check_name, check_tracking_uri
from search.data import describe


def trial_config(settings: Mapping[str, Any], spec: SweepSpec) -> TrainConfig:
    """The complete settings of a trial: what the space suggests, with the sweep's epochs and seed.
    Raises ConfigError.
    """
    if settings.get("architecture") == "linear":
        raise ConfigError(
            "architecture=linear is the baseline that every sweep fits by itself; leave it out of"
            " the space"
        )
    return make_config(
        {"seed": spec.seed, "input_scaling": spec.input_scaling, **settings, "epochs": spec.epochs}
    )


def sweep_precisions(spec: SweepSpec) -> dict[str, str]:
    """What `spec.precision` means for each architecture, the same on every machine of the sweep.
    Raises ValueError.

    Machines of a cluster differ, and this one need not be like them: `auto` is float32 on their
    CPUs and bf16 on their GPUs.
    """
    device = "cuda" if spec.gpus_per_trial > 0 else "cpu"
    if spec.precision == "auto" and spec.address is not None:
        return dict.fromkeys(ARCHITECTURES, "bf16" if device == "cuda" else "float32")
    return {name: training_precision(spec.precision, device, name) for name in ARCHITECTURES}


class SettingsCheck:
    """Number of parameters of a model of these settings. Raises ValueError or FileNotFoundError
    where it could not be trained.
    """

    def __init__(self, spec: SweepSpec) -> None:
        self.spec = spec
        self.manifest: Manifest = read_manifest(spec.manifest)
        self._features: dict[tuple[str, int], Features] = {}
        self._built: dict[tuple[Any, ...], int] = {}

    def __call__(self, settings: Mapping[str, Any]) -> int:
        config = trial_config(settings, self.spec)
        features = self.features(config)
        shape = (
            config.audio_feature,
            config.context,
            config.architecture,
            config.masked,
            config.heads,
            config.layers,
            config.width,
            config.num_blocks,
            config.residual,
            config.classifier_hidden,
        )
        if shape not in self._built:
            with torch.device("meta"):  # sizes are checked, nothing is allocated
                model = build_model(config, dims_of(features, config))
            self._built[shape] = sum(parameter.numel() for parameter in model.parameters())
        return self._built[shape]

    def data(self) -> dict[str, Any]:
        """What the ledger says of the data: the manifest, the feature stores, and the content of
        those that were looked at.
        """
        return describe(self.manifest, Path(self.spec.features), self._features.values())

    def features(self, config: TrainConfig) -> Features:
        """What settings are trained on, loaded once."""
        key = (config.audio_feature, config.context)
        if key not in self._features:
            self._features[key] = load_features(self.manifest, Path(self.spec.features), *key)
        return self._features[key]


def check_spec(spec: SweepSpec) -> None:
    """Raise ValueError with every fault of a sweep's options that can be seen without its data."""
    faults = []
    check_name(spec.name)
    for name, low in (
        ("trials", 1),
        ("epochs", 1),
        ("workers", 1),
        ("first_rung", 1),
        ("factor", 2),
        ("keep", 1),
    ):
        if getattr(spec, name) < low:
            faults.append(
                f"--{name.replace('_', '-')} {getattr(spec, name)} is too small; expected at least"
                f" {low}"
            )
    for name in (
        "patience",
        "max_parameters",
        "gpu_hours",
        "max_ms_per_utterance",
        "max_memory_mb",
    ):
        value = getattr(spec, name)
        if value is not None and not 0 < value < math.inf:
            faults.append(f"--{name.replace('_', '-')} {value:g} is out of range; expected above 0")
    if spec.max_equal_failures < 0:
        faults.append(
            f"--max-equal-failures {spec.max_equal_failures} is negative; expected a number of"
            " trials, or 0 for no end"
        )
    if spec.target is not None and not 0 < spec.target <= 1:
        faults.append(
            f"--target {spec.target:g} is no score to reach; expected above 0 and at most 1"
        )
    if spec.gpu_hours is not None and spec.gpus_per_trial == 0:
        faults.append(
            "--gpu-hours without --gpus-per-trial would never be used up; use --compute-budget"
        )
    if spec.repeats not in REPEATS:
        faults.append(f"unknown --repeats {spec.repeats!r}; expected one of {', '.join(REPEATS)}")
    if spec.input_scaling not in SCALINGS:
        faults.append(
            f"unknown --input-scaling {spec.input_scaling!r}; expected one of {', '.join(SCALINGS)}"
        )
    if spec.metric not in OBJECTIVES:
        faults.append(f"unknown --metric {spec.metric!r}; expected one of {', '.join(OBJECTIVES)}")
    if spec.gpus_per_trial < 0:
        faults.append(f"--gpus-per-trial {spec.gpus_per_trial:g} is negative")
    elif spec.gpus_per_trial > 1 and spec.gpus_per_trial != int(spec.gpus_per_trial):
        faults.append(
            f"--gpus-per-trial {spec.gpus_per_trial:g}: above 1 it must be a whole number"
        )
    if spec.gpus_per_trial > 0 and spec.address is None:
        there = torch.cuda.device_count()
        if spec.gpus_per_trial > there:
            faults.append(
                f"--gpus-per-trial {spec.gpus_per_trial:g}: this machine has {there} usable GPUs;"
                " leave it out, or name a cluster that has some with --address"
            )
    if spec.packs is not None and spec.packs > 1 and spec.limits_cost:
        faults.append(
            f"--packs {spec.packs} with --max-memory-mb or --max-ms-per-utterance: what a trial"
            " takes is only known alone; leave one of them out"
        )
    try:
        sweep_precisions(spec)
    except ValueError as error:
        faults.append(str(error))
    if spec.tracking_uri is not None:
        try:
            check_tracking_uri(spec.tracking_uri)
        except ValueError as error:
            faults.append(str(error))
    if faults:
        raise ValueError("; ".join(faults))


def with_features_there(spec: SweepSpec) -> SweepSpec:
    """The specification of a new sweep with the speech features that its folder holds. Raises
    FileNotFoundError or ValueError.
    """
    held = {
        recipe["feature"]
        for recipe in list_recipes(Path(spec.features), Path(spec.manifest)).values()
        if recipe["kind"] == "audio"
    }
    return replace(spec, audio_features=[name for name in AUDIO_FEATURES if name in held] or None)


def check_contexts(spec: SweepSpec, drawn: list[Mapping[str, Any]]) -> None:
    """Raise FileNotFoundError naming every context and speech feature that a space needs and the
    folder lacks, at once.
    """
    recipes = list_recipes(Path(spec.features), Path(spec.manifest)).values()
    lacking = []
    wanted: dict[str, Any] = {}
    for option, kind, name, default in (
        ("context", "text", "context", 1),
        ("audio-feature", "audio", "feature", "hidden_state"),
    ):
        needed = {settings.get(option.replace("-", "_"), default) for settings in drawn}
        there = {recipe[name] for recipe in recipes if recipe["kind"] == kind}
        if missing := sorted(needed - there, key=str):
            wanted["contexts" if kind == "text" else "audio_features"] = missing
            lacking.append(
                (
                    option,
                    ",".join(map(str, missing)),
                    ", ".join(map(str, sorted(there, key=str))) or "none",
                )
            )
    if lacking:
        what = "; ".join(
            f"no features for {option}={values} (found: {there})"
            for option, values, there in lacking
        )
        command = encode_command(spec.manifest, spec.features, recipes, **wanted)
        raise FileNotFoundError(f"{spec.features}/: {what}; run: {command}")


def default_workers(gpus_per_trial: float) -> int:
    """As many trials at a time as this machine carries: its GPUs' worth, else one a core."""
    if gpus_per_trial > 0:
        return max(1, int(torch.cuda.device_count() / gpus_per_trial))
    return len(os.sched_getaffinity(0))
