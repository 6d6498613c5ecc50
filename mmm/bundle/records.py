"""What a bundle's config.json and provenance.json say, each written and read here alone."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from mmm.features.recipe import Recipe
from mmm.metrics import Metrics
from mmm.training.config import Dims, TrainConfig, make_config

FORMAT = 1


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
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError where something is missing or wrong."""
        return cls(
            name=content["name"],
            config=make_config(content["settings"]),
            dims=Dims(**content["dims"]),
            labels=tuple(content["labels"]),
            audio_recipe=content["audio_recipe"],
            text_recipe=content["text_recipe"],
        )


@dataclass(frozen=True)
class EnsembleHead:
    """config.json of an ensemble, whose members are bundles in folders below it."""

    name: str
    labels: tuple[str, ...]
    members: tuple[str, ...]

    def as_json(self) -> Mapping[str, object]:
        return {"format": FORMAT, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Raises KeyError or TypeError where something is missing or wrong."""
        return cls(content["name"], tuple(content["labels"]), tuple(content["members"]))


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
