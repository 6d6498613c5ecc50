"""Training is a generator: `fit` yields one EpochResult an epoch and knows nothing of who asks."""

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mmm.device import autocast
from mmm.metrics import Metrics, value_of
from mmm.training.batches import SplitData
from mmm.training.class_weights import class_weights
from mmm.training.config import TrainConfig
from mmm.training.dropout import dropout_on
from mmm.training.evaluate import pack_probabilities, score
from mmm.training.linear import fit_linear
from mmm.training.pack import Pack
from mmm.training.run import Run


class Diverged(RuntimeError):
    """Training met a loss that is not finite."""


@dataclass(frozen=True)
class EpochResult:
    """One epoch: mean training loss in nats, validation metrics, seconds by the clock and of the
    CPU: the process's, or with one thread that thread's.

    Seconds of an epoch that M runs were trained in together are shared out: each has an M-th.
    """

    epoch: int  # counted from 1
    train_loss: float
    metrics: Metrics
    seconds: float
    cpu_seconds: float
    is_best: bool  # by the objective, among the epochs so far
    eval_seconds: float  # of `seconds`, those of the validation
    answers: Tensor  # (N,) class of each validation row, in the split's order


def epoch_seed(seed: int, epoch: int, purpose: str) -> int:
    """A seed for one epoch and purpose, so that a resumed run needs no generator state."""
    return int.from_bytes(
        hashlib.blake2b(f"{seed} {epoch} {purpose}".encode(), digest_size=7).digest(), "little"
    )


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


def untimed(name: str) -> AbstractContextManager[None]:
    """In the place of a watch for each part of a step (mmm/training/profile.py)."""
    return nullcontext()


def train_epoch(
    pack: Pack, part: Callable[[str], AbstractContextManager[None]] = untimed
) -> list[float]:
    """One pass of every member over its training rows; their mean losses a row, weighted as the
    gradients were.
    """
    runs, first = pack.runs, pack.runs[0]
    config, train, device = first.config, first.train, first.device

    # In a stack, everything below has a leading axis M.
    def of_all(values: list[Tensor]) -> Tensor:
        return torch.stack(values) if pack.is_stacked else values[0]

    order_N = of_all([row_order(run.config, run.train, run.epoch + 1) for run in runs])
    weights_C = of_all([class_weights(run.config, run.train) for run in runs])
    weights_C = weights_C.unsqueeze(-2).to(device)
    smoothing = of_all([torch.tensor([[run.config.label_smoothing]]) for run in runs]).to(device)
    seeds = [epoch_seed(run.config.seed, run.epoch + 1, "dropout") for run in runs]
    rates = [run.config.dropout for run in runs]
    drop = dropout_on(device, rates, seeds, is_stacked=pack.is_stacked)
    published = config.accumulation == "published"
    total_loss = torch.zeros(len(runs), device=device)
    total_weight = torch.zeros(len(runs), device=device)
    pack.forget_gradients()
    number = 0
    for group in order_N.split(config.batch_size * config.accumulate, dim=-1):
        batches = group.split(config.batch_size, dim=-1)
        weights = [
            (train.labels[rows].to(device) * weights_C).sum(dim=(-2, -1)) for rows in batches
        ]
        group_weight = sum(weights)
        for rows, weight in zip(batches, weights, strict=True):
            # Exact: k batches of b weigh as one of k * b. Published: each batch's mean, over k.
            divisor = weight * config.accumulate if published else group_weight
            for rows_at_once in train.parts(rows, device, at_least=first.batch_parts):
                with part("reading"):
                    batch = train.batch(rows_at_once, device)
                with part("forward"):
                    with autocast(first.precision, device.type):
                        logits_BC = pack.forward(batch, drop).float()
                    labels_BC = batch.labels
                    targets_BC = labels_BC + smoothing * (1 / labels_BC.shape[-1] - labels_BC)
                    scores_BC = functional.log_softmax(logits_BC, dim=-1)
                    loss = -(targets_BC * weights_C * scores_BC).sum(dim=(-2, -1))
                    total_loss += loss.detach()
                with part("backward"):
                    (loss / divisor).sum().backward()
            total_weight += weight
            if published and number % config.accumulate == 0:
                with part("optimizer"):
                    pack.step()
            number += 1
        if not published:
            with part("optimizer"):
                pack.step()
    # Published: gradients left over after the last step are dropped; exact has none.
    pack.forget_gradients()
    return (total_loss / total_weight).tolist()


def fit_pack(runs: list[Run]) -> Iterator[list[tuple[Run, EpochResult | Diverged]]]:
    """Train runs of one shape as one model, each as it would be alone; yields what an epoch of each
    came to.

    `runs` is the caller's: what is removed from it or added to it counts from the next epoch on. A
    run that has finished or diverged is removed here. Raises ValueError where the shapes of the
    runs differ.
    """
    pack: Pack | None = None
    while runs := _unfinished(runs):
        if pack is None or [id(run) for run in pack.runs] != [id(run) for run in runs]:
            if pack is not None:
                pack.dissolve()
            pack = Pack(runs)
        cpu_time = time.thread_time if torch.get_num_threads() == 1 else time.process_time
        started, cpu_started = time.perf_counter(), cpu_time()
        if runs[0].config.architecture == "linear":
            losses = [fit_linear(run) for run in runs]
        else:
            losses = train_epoch(pack)
        eval_started = time.perf_counter()
        shares_MNC = pack_probabilities(pack, runs[0].dev, runs[0].device)
        scores = [score(shares, runs[0].dev) for shares in shares_MNC]
        ended = time.perf_counter()
        taken = ended - started, cpu_time() - cpu_started, ended - eval_started
        shared = [seconds / len(runs) for seconds in taken]
        outcomes = [
            (run, _close_epoch(run, loss, metrics, shares.argmax(dim=1), *shared))
            for run, loss, metrics, shares in zip(runs, losses, scores, shares_MNC, strict=True)
        ]
        for run, outcome in outcomes:
            if isinstance(outcome, Diverged):
                runs.remove(run)
        yield outcomes
    if pack is not None:
        pack.dissolve()


def _unfinished(runs: list[Run]) -> list[Run]:
    runs[:] = [run for run in runs if not run.is_finished]
    return runs


def _close_epoch(
    run: Run,
    train_loss: float,
    metrics: Metrics,
    answers: Tensor,
    seconds: float,
    cpu_seconds: float,
    eval_seconds: float,
) -> EpochResult | Diverged:
    epoch = run.epoch + 1
    if not math.isfinite(train_loss):
        return Diverged(f"training loss is {train_loss} in epoch {epoch} (lr {run.config.lr:g})")
    if not math.isfinite(metrics["loss"]):
        return Diverged(
            f"validation loss is {metrics['loss']} after epoch {epoch} (lr {run.config.lr:g})"
        )
    is_best = value_of(metrics, run.objective) > run.best_score
    if is_best:
        run.best_epoch, run.best_metrics = epoch, metrics
        run.best_weights = {
            name: value.detach().cpu().clone() for name, value in run.model.state_dict().items()
        }
    run.epoch = epoch
    return EpochResult(
        epoch, train_loss, metrics, seconds, cpu_seconds, is_best, eval_seconds, answers
    )


def fit(run: Run) -> Iterator[EpochResult]:
    """Train until `config.epochs`, yielding after each. Continues where `run` stands. Raises
    Diverged.
    """
    for ((_, outcome),) in fit_pack([run]):
        if isinstance(outcome, Diverged):
            raise outcome
        yield outcome
