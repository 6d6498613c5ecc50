"""Checkpoints of a training run: model, optimizer and best weights as safetensors."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Self

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from mmm.features.recipe import recipe_hash
from mmm.files import parse_json
from mmm.metrics import Metrics
from mmm.training.config import Dims, Params, recorded_defaults
from mmm.training.run import Run
from mmm.training.tensor_file import tensor_bytes


@dataclass(frozen=True, kw_only=True)
class _Header:
    """What a checkpoint says of the run beside its tensors."""

    epoch: int
    best_epoch: int
    best_metrics: Metrics
    precision: str | None = None  # earlier versions did not say
    # What it must have in common with a run that goes on from it:
    config: Params
    dims: Mapping[str, int]
    data: Mapping[str, str]  # hashes
    objective: str

    def differing(self, other: Self) -> list[str]:
        """Names of settings, sizes and data that differ. More epochs than before is how a run is
        prolonged.
        """
        # What an earlier version had no setting or size for is as it was then: the default.
        before = recorded_defaults(str(other.config.get("architecture")))
        sizes = {one.name: one.default for one in fields(Dims) if one.default is not MISSING}
        pairs = (
            (self.config, {**before, **other.config}),
            (self.dims, {**sizes, **other.dims}),
            (self.data, other.data),
            ({"objective": self.objective}, {"objective": other.objective}),
        )
        return [
            name
            for mine, theirs in pairs
            for name in mine.keys() | theirs.keys()
            if mine.get(name) != theirs.get(name) and name != "epochs"
        ]


def _header_of(run: Run) -> _Header:
    features = run.train.features
    return _Header(
        epoch=run.epoch,
        best_epoch=run.best_epoch,
        best_metrics=run.best_metrics,
        precision=run.precision,
        config={
            **{name: value for name, value in asdict(run.config).items() if name != "own"},
            **{f"own.{name}": value for name, value in run.config.own or ()},
        },
        dims=asdict(run.dims),
        data={
            "manifest": features.manifest.sha256,
            "speech": recipe_hash(features.speech.recipe),
            "text": recipe_hash(features.text.recipe),
        },
        objective=run.objective,
    )


def checkpoint_bytes(run: Run) -> bytes:
    """Model, optimizer and best weights as the content of a file; a copy, so that the run may be
    trained on.
    """
    tensors = {f"model.{name}": value for name, value in run.model.state_dict().items()}
    if run.best_epoch != run.epoch:  # else they are the model's
        tensors |= {f"best.{name}": value for name, value in run.best_weights.items()}
    for index, state in run.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    return tensor_bytes(tensors, metadata={"run": json.dumps(asdict(_header_of(run)))})


def load_checkpoint(run: Run, path: Path, sha256: str | None = None) -> None:
    """Bring a fresh run to where the checkpoint was, in the precision that it began with.

    Raises ValueError where it is damaged or of other settings.
    """
    content = path.read_bytes()
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{path}: damaged: its checksum is not the one that was recorded")
    length = int.from_bytes(content[:8], "little")
    try:
        tensors = load_tensors(content)
        header = _Header(**parse_json(parse_json(content[8 : 8 + length])["__metadata__"]["run"]))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: damaged, or no checkpoint of mmm train ({error})") from None
    if differing := _header_of(run).differing(header):
        raise ValueError(f"{path}: a checkpoint of other settings ({', '.join(differing)} differ)")
    run.model.load_state_dict(
        {name[6:]: value for name, value in tensors.items() if name.startswith("model.")}
    )
    run.best_weights = best_of(tensors) if header.best_epoch else {}
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, entry = name.split(".", 2)
            state.setdefault(int(index), {})[entry] = value
    run.optimizer.load_state_dict({"state": state})
    # As it began, also on a machine where `auto` would choose otherwise.
    run.precision = header.precision or run.precision
    run.epoch, run.best_epoch = header.epoch, header.best_epoch
    run.best_metrics = header.best_metrics


def best_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the best epoch in a checkpoint's tensors."""
    part = "best." if any(name.startswith("best.") for name in tensors) else "model."
    return {
        name.removeprefix(part): value for name, value in tensors.items() if name.startswith(part)
    }
