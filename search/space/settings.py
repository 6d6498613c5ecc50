"""From what a space suggests to complete settings, checked against the features that are there."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mmm.device import training_precision
from mmm.features.recipe import AUDIO_FEATURES
from mmm.features.store import list_recipes
from mmm.manifest import Manifest
from mmm.manifest_csv import read_manifest
from mmm.models import ARCHITECTURES
from mmm.training.config import ConfigError, Params, TrainConfig, make_config
from mmm.training.contract import trains_in_packs
from mmm.training.features import Features, dims_of, load_features
from mmm.training.run import build_model
from search.ledger.data import describe
from search.ledger.records import DataNote
from search.ledger.spec import SweepSpec


def trial_config(settings: Params, spec: SweepSpec) -> TrainConfig:
    """The complete settings of a trial: what the space suggests, with the sweep's epochs and seed.
    Raises ConfigError.
    """
    if settings.get("architecture") == "linear":
        raise ConfigError(
            "architecture=linear is the baseline that every sweep fits by itself; leave it out of"
            " the space"
        )
    config = make_config(
        {"seed": spec.seed, "input_scaling": spec.input_scaling, **settings, "epochs": spec.epochs}
    )
    if config.system_sha256 is None or config.in_packs is not None:
        return config
    return replace(config, in_packs=trains_in_packs(config))


def precision_of(precisions: Mapping[str, str], architecture: str) -> str:
    """Of a sweep's precisions. A system that it does not name, because it came later or is the
    user's own, has that of the pooled ones.
    """
    return precisions.get(architecture, precisions["vanilla_concat"])


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

    def __call__(self, settings: Params) -> int:
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
            config.system_sha256,
            config.own,
        )
        if shape not in self._built:
            # Sizes are checked, nothing is allocated; code of the user's own may look at numbers.
            where = "meta" if config.system_sha256 is None else "cpu"
            with torch.device(where), torch.random.fork_rng(devices=[]):
                model = build_model(config, dims_of(features, config))
            self._built[shape] = sum(parameter.numel() for parameter in model.parameters())
        return self._built[shape]

    def data(self) -> DataNote:
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
