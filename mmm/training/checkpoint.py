"""Checkpoints of a training run: model, optimizer and best weights as safetensors."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from mmm.features.recipe import recipe_hash
from mmm.training.config import TrainConfig
from mmm.training.run import Run
from mmm.training.tensor_file import tensor_bytes


def checkpoint_bytes(run: Run) -> bytes:
    """Model, optimizer and best weights as the content of a file; a copy, so that the run may be
    trained on.
    """
    tensors = {f"model.{name}": value for name, value in run.model.state_dict().items()}
    if run.best_epoch != run.epoch:  # else they are the model's
        tensors |= {f"best.{name}": value for name, value in run.best_weights.items()}
    for index, state in run.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    about = {
        "epoch": run.epoch,
        "best_epoch": run.best_epoch,
        "best_metrics": run.best_metrics,
        "precision": run.precision,
        **_identity(run),
    }
    return tensor_bytes(tensors, metadata={"run": json.dumps(about)})


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
        about = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["run"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: damaged, or no checkpoint of mmm train ({error})") from None
    here = _identity(run)
    # What an earlier version had no setting for is as it was then: the setting's default.
    about["config"] = {
        field.name: field.default for field in fields(TrainConfig) if field.default is not MISSING
    } | about["config"]
    # More epochs than before is how a run is prolonged; anything else would be another run.
    differing = [
        key for part in here for key in _differing(here[part], about[part]) if key != "epochs"
    ]
    if differing:
        raise ValueError(f"{path}: a checkpoint of other settings ({', '.join(differing)} differ)")
    run.model.load_state_dict(
        {name[6:]: value for name, value in tensors.items() if name.startswith("model.")}
    )
    run.best_weights = best_of(tensors) if about["best_epoch"] else {}
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, entry = name.split(".", 2)
            state.setdefault(int(index), {})[entry] = value
    run.optimizer.load_state_dict({"state": state})
    # As it began, also on a machine where `auto` would choose otherwise; checkpoints of earlier
    # versions do not say.
    run.precision = about.get("precision", run.precision)
    run.epoch, run.best_epoch, run.best_metrics = (
        about["epoch"],
        about["best_epoch"],
        about["best_metrics"],
    )


def best_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the best epoch in a checkpoint's tensors."""
    part = "best." if any(name.startswith("best.") for name in tensors) else "model."
    return {
        name.removeprefix(part): value for name, value in tensors.items() if name.startswith(part)
    }


def _identity(run: Run) -> dict[str, Any]:
    """What a checkpoint must have in common with the run that goes on from it."""
    features = run.train.features
    data = {
        "manifest": features.manifest.sha256,
        "speech": recipe_hash(features.speech.recipe),
        "text": recipe_hash(features.text.recipe),
    }
    return {
        "config": asdict(run.config),
        "dims": asdict(run.dims),
        "data": data,
        "objective": run.objective,
    }


def _differing(here: Any, there: Any) -> list[str]:
    if not isinstance(here, dict):
        return [] if here == there else ["objective"]
    return [name for name in here.keys() | there.keys() if here.get(name) != there.get(name)]
