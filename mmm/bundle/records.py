"""What a bundle's config.json and provenance.json say, each written and read here alone."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Self

from mmm.features.recipe import Recipe, checked_recipe
from mmm.metrics import Metrics
from mmm.training.config import Dims, TrainConfig, make_config

FORMAT = 1
# What a bundle's sizes can be: a file that says more would have memory taken for it.
_WIDEST, _MOST_POSITIONS = 1 << 20, 1 << 14


@dataclass(frozen=True)
class Head:
    """config.json of a bundle: all that predicting needs beside the weights, and beside the file of
    a system of its author's own, of which it has the class's name and the file's SHA-256.
    """

    name: str
    config: TrainConfig
    dims: Dims
    labels: tuple[str, ...]
    audio_recipe: Recipe
    text_recipe: Recipe
    _: KW_ONLY
    # That validation answers were calibrated with, where the answers were looked at.
    temperature: float | None = None

    def as_json(self) -> Mapping[str, object]:
        return {
            "format": FORMAT,
            "name": self.name,
            # Where the file of a system of the user's own lies is nobody else's business.
            "settings": {
                name: value
                for name, value in self.config.params().items()
                if name not in ("system", "in_packs")
            },
            "dims": dataclasses.asdict(self.dims),
            "labels": self.labels,
            "audio_recipe": self.audio_recipe,
            "text_recipe": self.text_recipe,
            **({} if self.temperature is None else {"temperature": self.temperature}),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError where something is missing or wrong."""
        labels = _labels(content["labels"])
        recipes = [checked_recipe(content[f"{kind}_recipe"]) for kind in ("audio", "text")]
        if [recipe["kind"] for recipe in recipes] != ["audio", "text"]:
            raise ValueError("a recipe of speech for text, or of text for speech")
        return cls(
            name=_name(content["name"]),
            config=make_config(_settings(content)),
            dims=_dims(content["dims"], len(labels)),
            labels=labels,
            audio_recipe=recipes[0],
            text_recipe=recipes[1],
            temperature=_temperature(content),
        )


def _settings(content: Mapping[str, Any]) -> Mapping[str, Any]:
    found = content["settings"]
    if not isinstance(found, Mapping):
        raise TypeError(f"settings are no object but {type(found).__name__}")
    return found


@dataclass(frozen=True)
class EnsembleHead:
    """config.json of an ensemble, whose members are bundles in folders below it. A member that is
    named several times counts as often.
    """

    name: str
    labels: tuple[str, ...]
    members: tuple[str, ...]
    temperature: float | None = None  # of the mean of their probabilities

    def as_json(self) -> Mapping[str, object]:
        known = {name: value for name, value in vars(self).items() if value is not None}
        return {"format": FORMAT, **known}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError where something is missing or wrong."""
        members = content["members"]
        if not isinstance(members, list) or not members:
            raise ValueError("no members are named")
        return cls(
            _name(content["name"]),
            _labels(content["labels"]),
            tuple(members),
            _temperature(content),
        )


def _temperature(content: Mapping[str, Any]) -> float | None:
    given = content.get("temperature")
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < math.inf:
        raise ValueError(f"temperature is {given!r:.40}, no number above 0")
    return float(given)


def _name(given: object) -> str:
    if not isinstance(given, str):
        raise ValueError(f"name is {given!r:.40}")
    return given


def _labels(given: object) -> tuple[str, ...]:
    if (
        not isinstance(given, list)
        or not all(isinstance(one, str) and one for one in given)
        or len(set(given)) < max(2, len(given))
    ):
        raise ValueError("labels are not two or more different names")
    return tuple(given)


def _dims(given: Mapping[str, Any], num_labels: int) -> Dims:
    dims = Dims(**given)
    for name, value in vars(dims).items():
        most = _MOST_POSITIONS if name.endswith("_positions") else _WIDEST
        if type(value) is not int or not 1 <= value <= most:
            raise ValueError(f"{name} is {value!r:.40}, no whole number from 1 to {most:,}")
    if dims.num_classes != num_labels:
        raise ValueError(f"{num_labels} labels for {dims.num_classes} classes")
    return dims


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """provenance.json: how a bundle was made. What is not known is None, and not in the file."""

    mmm_version: str | None = None
    torch_version: str | None = None
    python_version: str | None = None
    made: str | None = None  # the time, in UTC
    audio_features: str | None = None  # hash of the recipe
    text_features: str | None = None
    manifest_sha256: str | None = None
    # Of the training
    seed: int | None = None
    objective: str | None = None
    epoch: int | None = None  # of the weights
    epochs_trained: int | None = None
    validation_utterances: int | None = None
    precision: str | None = None
    validation_metrics: Metrics | None = None  # over folds: means, of models without the fold
    fold_scores: Sequence[float] | None = None  # of the objective; trained on all folds' rows
    command: str | None = None  # that of mmm train
    system: str | None = None  # of the user's own: its file's name and class
    system_sha256: str | None = None  # of that file
    from_bundle_sha256: str | None = None  # whose weights it began with
    # Of the sweep
    sweep: str | None = None
    trial: int | str | None = None  # its number, or the name of what is no trial
    trials: Sequence[int] | None = None  # of an ensemble
    trial_state: str | None = None
    space: str | None = None
    trials_in_sweep: int | None = None
    data: int | None = None  # which of the data it was trained on, where they were changed
    data_changes: Sequence[str] | None = None
    search: Mapping[str, str | int | float] | None = None  # as the model card tells it
    # What another version wrote
    other: Mapping[str, object] = field(default_factory=dict)

    def as_json(self) -> Mapping[str, object]:
        known = {name: value for name, value in vars(self).items() if name != "other"}
        return {**{name: value for name, value in known.items() if value is not None}, **self.other}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        names = {one.name for one in dataclasses.fields(cls)} - {"other"}
        return cls(
            **{name: value for name, value in content.items() if name in names},
            other={name: value for name, value in content.items() if name not in names},
        )
