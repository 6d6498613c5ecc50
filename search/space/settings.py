"""From what a space suggests to complete settings, checked against the features that are there."""

from collections.abc import Hashable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch

from mmm.device import training_precision
from mmm.features.named import encoders_in
from mmm.features.recipe import AUDIO_FEATURES
from mmm.manifest import Manifest
from mmm.manifest_csv import read_manifest
from mmm.models import ARCHITECTURES
from mmm.training.config import ConfigError, FeaturesKey, Params, TrainConfig, make_config
from mmm.training.contract import trains_in_packs
from mmm.training.features import Features, dims_of, load_features
from mmm.training.pack import pack_shape
from mmm.training.run import build_model
from search.ledger.data import describe
from search.ledger.records import DataNote
from search.ledger.spec import SpeechEncoderThere, SweepSpec, TextEncoderThere
from spaces import There as SpaceThere

_There = TypeVar("_There", SpeechEncoderThere, TextEncoderThere)


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
        # Features are enough: the audio may be on other machines, or nowhere any more.
        # Nothing that is searched sees the test split.
        self.manifest: Manifest = read_manifest(spec.manifest, check_audio=False).without_test()
        self._features: dict[FeaturesKey, Features] = {}
        self._built: dict[Hashable, int] = {}

    def __call__(self, settings: Params) -> int:
        config = trial_config(settings, self.spec)
        features = self.features(config)
        shape = self.spec.features_key(config), pack_shape(config)
        if shape not in self._built:
            # Sizes are checked, nothing is allocated; code of the user's own may look at numbers.
            where = "meta" if config.system_sha256 is None else "cpu"
            with torch.device(where), torch.random.fork_rng(devices=[]):
                try:
                    model = build_model(config, dims_of(features, config))
                except (RuntimeError, TypeError) as error:  # sizes that no tensor can have
                    raise ValueError(
                        f"no {config.architecture} of these sizes can be made: {error}"
                    ) from None
            self._built[shape] = sum(parameter.numel() for parameter in model.parameters())
        return self._built[shape]

    def data(self) -> DataNote:
        """What the ledger says of the data: the manifest, the feature stores, and the content of
        those that were looked at.
        """
        return describe(self.manifest, Path(self.spec.features), self._features.values())

    def features(self, config: TrainConfig) -> Features:
        """What settings are trained on, loaded once."""
        key = self.spec.features_key(config)
        if key not in self._features:
            self._features[key] = load_features(self.manifest, Path(self.spec.features), *key)
        return self._features[key]


def there_in(spec: SweepSpec) -> SpaceThere | None:
    """What spaces are told of the features folder; None where a sweep began before they asked."""
    if spec.audio_features is None and spec.speech_encoders is None:
        return None
    speech, text = spec.speech_encoders or {}, spec.text_encoders or {}
    contexts = [set(one["contexts"]) for one in text.values()]
    return SpaceThere(
        audio_features=tuple(spec.audio_features or ()),
        speech={name: tuple(one["features"]) for name, one in speech.items()},
        text=tuple(text),
        contexts=tuple(sorted(set.intersection(*contexts))) if contexts else (),
        layered=tuple(name for name, one in speech.items() if one["has_layers"]),
    )


def with_features_there(spec: SweepSpec) -> SweepSpec:
    """The specification with what its features folder holds, for a new sweep all of it. One that
    goes on keeps its encoders; where one was made anew, that is now the encoder of the name. Raises
    FileNotFoundError or ValueError.
    """
    there = encoders_in(Path(spec.features), Path(spec.manifest))
    speech = {
        one.name: SpeechEncoderThere(
            identity=one.identity,
            features=list(one.audio_features),
            has_layers=one.layers is not None,
        )
        for one in there
        if one.kind == "audio"
    }
    text = {
        one.name: TextEncoderThere(identity=one.identity, contexts=list(one.contexts))
        for one in there
        if one.kind == "text"
    }
    if spec.speech_encoders is not None and spec.text_encoders is not None:
        return replace(
            spec,
            speech_encoders=_as_they_are(spec.speech_encoders, speech),
            text_encoders=_as_they_are(spec.text_encoders, text),
        )
    if spec.audio_features is not None:
        return spec  # of an earlier version
    held = {feature for one in speech.values() for feature in one["features"]}
    return replace(
        spec,
        audio_features=[name for name in AUDIO_FEATURES if name in held] or None,
        speech_encoders=speech,
        text_encoders=text,
    )


def _as_they_are(then: Mapping[str, _There], now: Mapping[str, _There]) -> dict[str, _There]:
    identities = {one["identity"] for one in now.values()}
    only = next(iter(now.values())) if len(now) == len(then) == 1 else None
    return {
        name: one if one["identity"] in identities else now.get(name) or only or one
        for name, one in then.items()
    }
