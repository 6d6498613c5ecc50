"""Training is a generator: `fit` yields one EpochResult an epoch and knows nothing of who asks."""

import hashlib
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn import functional

from mmm.batches import Features, SplitData, dims_of
from mmm.config import Dims, TrainConfig
from mmm.evaluate import evaluate, forward
from mmm.files import write_bytes
from mmm.models import ARCHITECTURES
from mmm.store import recipe_hash


class Diverged(RuntimeError):
    """Training met a loss that is not finite."""


@dataclass(frozen=True)
class EpochResult:
    """One epoch: mean training loss in nats, validation metrics, seconds by the clock and of this process's CPU."""

    epoch: int  # counted from 1
    train_loss: float
    metrics: dict[str, Any]
    seconds: float
    cpu_seconds: float
    is_best: bool  # by the objective, among the epochs so far
    eval_seconds: float  # of `seconds`, those of the validation


@dataclass
class Run:
    """A training run between epochs: everything that a checkpoint has to keep."""

    config: TrainConfig
    dims: Dims
    model: nn.Module
    optimizer: torch.optim.Optimizer
    train: SplitData
    dev: SplitData
    device: torch.device
    objective: str
    epoch: int = 0
    best_epoch: int = 0
    best_metrics: dict[str, Any] = field(default_factory=dict)
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    @property
    def best_score(self) -> float:
        return float(self.best_metrics[self.objective]) if self.best_metrics else -math.inf


def build_model(config: TrainConfig, dims: Dims) -> nn.Module:
    """A model with fresh weights from torch's global generator. Raises ValueError where sizes do not fit."""
    settings: dict[str, Any] = {"speech_width": dims.speech_width, "text_width": dims.text_width,
                                "num_classes": dims.num_classes, "classifier_hidden": config.classifier_hidden,
                                "dropout": config.dropout, "masked": config.masked}  # fmt: skip
    if config.is_pooled:
        settings |= {"context": config.context, "width": config.width}
    else:
        settings |= {"speech_positions": dims.speech_positions, "text_positions": dims.text_positions}
    if config.architecture == "cross_attention":
        settings |= {"layers": config.layers, "heads": config.heads}
    if config.architecture == "mlp_mixer":
        settings |= {"width": config.width, "num_blocks": config.num_blocks, "residual": config.residual}
    return ARCHITECTURES[config.architecture](**settings)


def resolve_device(name: str) -> torch.device:
    """`cpu`, `cuda` or `cuda:N`. Raises ValueError where this machine does not have it."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"unknown device {name!r}; expected cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {name!r} asked for, but this machine has {torch.cuda.device_count()} usable GPUs; use --device cpu"
        )
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"unknown device {name!r}; expected cpu, cuda or cuda:N")
    return device


def begin(config: TrainConfig, features: Features, *, objective: str = "macro_f1", device: torch.device | None = None) -> Run:
    """A run before its first epoch. Raises ValueError where settings and features do not fit."""
    device = device or torch.device("cpu")
    dims = dims_of(features, config)
    manifest = features.manifest
    train = SplitData(features, config, dims, manifest.rows("train"), config.label_policy)
    # Validation counts every label of a row, whatever the training rows do, so that scores of a sweep compare.
    dev_policy = "published" if config.label_policy == "published" else "expand"
    dev = SplitData(features, config, dims, manifest.rows("dev"), dev_policy)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = build_model(config, dims).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)
    return Run(config, dims, model, optimizer, train, dev, device, objective)


def epoch_seed(seed: int, epoch: int, purpose: str) -> int:
    """A seed for one epoch and purpose, so that a resumed run needs no generator state."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {epoch} {purpose}".encode(), digest_size=7).digest(), "little")


def row_order(config: TrainConfig, train: SplitData, epoch: int) -> Tensor:
    """Rows of an epoch in the order they are trained on, (N,)."""
    generator = torch.Generator().manual_seed(epoch_seed(config.seed, epoch, "order"))
    if config.weighted_sampling:
        # Published: a row weighs N / count of its class, N draws with replacement.
        weights = train.labels @ (len(train) / train.class_counts.clamp(min=1e-9))
        return torch.multinomial(weights, len(train), replacement=True, generator=generator)
    if config.shuffle:
        return torch.randperm(len(train), generator=generator)
    return torch.arange(len(train))


def class_weights(config: TrainConfig, train: SplitData) -> Tensor:
    """(C,) weights of the loss. A class without rows gets 0, its weight could not matter."""
    counts = train.class_counts
    if config.class_weight == "none":
        return torch.ones_like(counts)
    weights = torch.where(counts > 0, len(train) / counts.clamp(min=1e-9), 0.0)
    return weights.sqrt() if config.class_weight == "sqrt_inverse" else weights


def _train_epoch(run: Run, epoch: int) -> float:
    """One pass over the training rows; the mean loss a row, weighted as the gradient was."""
    config, model = run.config, run.model
    weights_C = class_weights(config, run.train).to(run.device)
    groups = [rows.split(config.batch_size)
              for rows in row_order(config, run.train, epoch).split(config.batch_size * config.accumulate)]  # fmt: skip
    published = config.accumulation == "published"
    total_loss = torch.zeros((), device=run.device)
    total_weight = torch.zeros((), device=run.device)
    model.train()
    run.optimizer.zero_grad(set_to_none=True)
    number = 0
    for group in groups:
        group_weight = sum((run.train.labels[rows].to(run.device) @ weights_C).sum() for rows in group)
        for rows in group:
            batch = run.train.batch(rows, run.device)
            shares_BC = batch.labels * weights_C
            loss = -(shares_BC * functional.log_softmax(forward(model, batch), dim=-1)).sum()
            total_loss += loss.detach()
            total_weight += shares_BC.sum()
            # Exact: k batches of b weigh as one batch of k * b. Published: each batch's mean, over k.
            (loss / (shares_BC.sum() * config.accumulate if published else group_weight)).backward()
            if published and number % config.accumulate == 0:
                run.optimizer.step()
                run.optimizer.zero_grad(set_to_none=True)
            number += 1
        if not published:
            run.optimizer.step()
            run.optimizer.zero_grad(set_to_none=True)
    # Published: gradients left over after the last step are dropped; exact has none.
    run.optimizer.zero_grad(set_to_none=True)
    return float(total_loss / total_weight)


def fit(run: Run) -> Iterator[EpochResult]:
    """Train until `config.epochs`, yielding after each. Continues where `run` stands. Raises Diverged."""
    while run.epoch < run.config.epochs:
        epoch = run.epoch + 1
        started, cpu_started = time.perf_counter(), time.process_time()
        with torch.random.fork_rng(devices=[run.device] if run.device.type == "cuda" else []):
            torch.manual_seed(epoch_seed(run.config.seed, epoch, "dropout"))
            train_loss = _train_epoch(run, epoch)
        if not math.isfinite(train_loss):
            raise Diverged(f"training loss is {train_loss} in epoch {epoch} (lr {run.config.lr:g})")
        eval_started = time.perf_counter()
        metrics = evaluate(run.model, run.dev, run.device)
        eval_seconds = time.perf_counter() - eval_started
        if not math.isfinite(metrics["loss"]):
            raise Diverged(f"validation loss is {metrics['loss']} after epoch {epoch} (lr {run.config.lr:g})")
        is_best = metrics[run.objective] > run.best_score
        if is_best:
            run.best_epoch, run.best_metrics = epoch, metrics
            run.best_weights = {name: value.detach().cpu().clone() for name, value in run.model.state_dict().items()}
        run.epoch = epoch
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
        yield EpochResult(epoch, train_loss, metrics, seconds, cpu_seconds, is_best, eval_seconds)


def save_checkpoint(run: Run, path: Path) -> str:
    """Write model, optimizer and best weights, complete or not at all; returns the SHA-256 of the file."""
    tensors = {f"model.{name}": value.detach().cpu().contiguous() for name, value in run.model.state_dict().items()}
    tensors |= {f"best.{name}": value.contiguous() for name, value in run.best_weights.items()}
    for index, state in run.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value.detach().cpu().contiguous() for name, value in state.items()}
    about = {"epoch": run.epoch, "best_epoch": run.best_epoch, "best_metrics": run.best_metrics, **_identity(run)}
    content = save_tensors(tensors, metadata={"run": json.dumps(about)})
    write_bytes(path, content)
    return hashlib.sha256(content).hexdigest()


def load_checkpoint(run: Run, path: Path, sha256: str | None = None) -> None:
    """Bring a fresh run to where the checkpoint was. Raises ValueError where it is damaged or of other settings."""
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
    # More epochs than before is how a run is prolonged; anything else would be another run.
    differing = [key for part in here for key in _differing(here[part], about[part]) if key != "epochs"]
    if differing:
        raise ValueError(f"{path}: a checkpoint of other settings ({', '.join(differing)} differ)")
    run.model.load_state_dict({name[6:]: value for name, value in tensors.items() if name.startswith("model.")})
    run.best_weights = {name[5:]: value for name, value in tensors.items() if name.startswith("best.")}
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, entry = name.split(".", 2)
            state.setdefault(int(index), {})[entry] = value
    run.optimizer.load_state_dict({"state": state, "param_groups": run.optimizer.state_dict()["param_groups"]})
    run.epoch, run.best_epoch, run.best_metrics = about["epoch"], about["best_epoch"], about["best_metrics"]


def _identity(run: Run) -> dict[str, Any]:
    """What a checkpoint must have in common with the run that goes on from it."""
    features = run.train.features
    data = {
        "manifest": features.manifest.sha256,
        "speech": recipe_hash(features.speech.recipe),
        "text": recipe_hash(features.text.recipe),
    }
    return {"config": asdict(run.config), "dims": asdict(run.dims), "data": data, "objective": run.objective}


def _differing(here: Any, there: Any) -> list[str]:
    if not isinstance(here, dict):
        return [] if here == there else ["objective"]
    return [name for name in here.keys() | there.keys() if here.get(name) != there.get(name)]
