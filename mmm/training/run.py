"""A training run between epochs: its settings, model, optimizer and data."""

import math
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn

from mmm.metrics import Metrics, value_of
from mmm.models import SYSTEMS
from mmm.models.attentive_pooling import AttentivePooling
from mmm.models.layer_mix import LayerMix
from mmm.models.scaled import Scaled
from mmm.training.adamw import AdamW, Optimizer
from mmm.training.batches import SplitData
from mmm.training.config import Dims, TrainConfig
from mmm.training.features import Features, dims_of
from mmm.training.gpu_features import keep_only
from mmm.training.own_system import loaded_system
from mmm.user_code import fault_of

# What a model is made with, of a run's settings and of the sizes that the data decide.
_COMMON = ("speech_width", "text_width", "num_classes")
_FUSION = (*_COMMON, "classifier_hidden", "masked")
_POOLED = (*_FUSION, "context", "width")
_SEQUENCE = (*_FUSION, "speech_positions", "text_positions")
_MADE_WITH = {
    "vanilla_concat": _POOLED,
    "three_way_concat": _POOLED,
    "cross_attention": (*_SEQUENCE, "layers", "heads"),
    "mlp_mixer": (*_SEQUENCE, "width", "num_blocks", "residual"),
    "gated_fusion": _POOLED,
    "late_fusion": _POOLED,
    "linear": _COMMON,
}

ALL_FOLDS = 0  # in the place of a fold's number


@dataclass
class Run:
    """A training run between epochs: everything that a checkpoint has to keep."""

    config: TrainConfig
    dims: Dims
    model: nn.Module
    optimizer: Optimizer
    train: SplitData
    dev: SplitData
    device: torch.device
    objective: str
    # Of the training step; validation is always in float32, as predictions are.
    precision: str = "float32"
    # That each batch is computed in, at least, their gradients added up: less memory, and but for
    # dropout's draws the same step.
    batch_parts: int = 1
    epoch: int = 0
    best_epoch: int = 0
    best_metrics: Metrics = field(default_factory=Metrics)
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    @property
    def best_score(self) -> float:
        return value_of(self.best_metrics, self.objective) if self.best_metrics else -math.inf

    @property
    def is_finished(self) -> bool:
        """Whether the last epoch is trained."""
        return self.epoch >= self.config.epochs


def build_model(config: TrainConfig, dims: Dims) -> nn.Module:
    """A model with fresh weights from torch's global generator. Raises ValueError where sizes do
    not fit.
    """
    known = {**asdict(config), **asdict(dims)}
    known["speech_width"] = dims.speech_width // dims.speech_layers
    head: nn.Module
    if (system := loaded_system(config.params())) is None:
        head = SYSTEMS[config.architecture](
            **{name: known[name] for name in _MADE_WITH[config.architecture]}
        )
    else:
        try:
            head = system.make(
                **{name: known[name] for name in system.takes}, **dict(config.own or ())
            )
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise ValueError(
                f"{system.reference}: its constructor fails: {fault_of(error)}"
            ) from error
    if dims.speech_layers > 1:
        head = LayerMix(head, num_layers=dims.speech_layers)
    if config.pooling == "attentive":
        head = AttentivePooling(head, speech_width=dims.speech_width)
    if config.input_scaling == "none":
        return head
    return Scaled(
        head, speech_width=dims.speech_width, text_width=dims.text_width, is_pooled=config.is_pooled
    )


def begin(
    config: TrainConfig,
    features: Features,
    *,
    objective: str = "macro_f1",
    device: torch.device | None = None,
    precision: str = "float32",
    fold: int | None = None,
    batch_parts: int = 1,
) -> Run:
    """A run before its first epoch. Raises ValueError where settings and features do not fit.

    `fold`: train without the rows of this fold of the manifest and validate on them; ALL_FOLDS:
    train on the rows of all folds, where a validation is of rows that were trained on; None: the
    split of train and dev. `batch_parts`: how many each batch is computed in, at least.
    """
    device = device or torch.device("cpu")
    if device.type == "cuda":
        keep_only((features.speech.path, features.text.path))
    dims = dims_of(features, config)
    manifest = features.manifest
    if fold is None:
        train_rows, dev_rows = manifest.rows("train"), manifest.rows("dev")
    elif fold == ALL_FOLDS:
        train_rows = dev_rows = manifest.rows_in_folds()
    else:
        train_rows, dev_rows = manifest.fold_rows(fold)
    train = SplitData(features, config, dims, train_rows, config.label_policy)
    # Validation counts every label of a row, whatever the training rows do, so that scores of a
    # sweep compare.
    dev_policy = "published" if config.label_policy == "published" else "expand"
    dev = SplitData(features, config, dims, dev_rows, dev_policy)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = build_model(config, dims)
    if isinstance(model, Scaled):
        model.load_state_dict(train.statistics(), strict=False)
    model.to(device)
    optimizer = make_optimizer(config, model)
    return Run(
        *(config, dims, model, optimizer, train, dev, device, objective, precision),
        batch_parts=batch_parts,
    )


def make_optimizer(config: TrainConfig, model: nn.Module) -> Optimizer:
    return AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
