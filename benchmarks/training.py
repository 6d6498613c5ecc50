"""Training against the machine: how much of its matrix-product rate a step reaches, and what packs
are worth.

    python -m benchmarks.training fraction [--precision bf16] [--architectures mlp_mixer ...]
    python -m benchmarks.training epoch [--rounds 5]
    python -m benchmarks.training packs --threads 1 [--sizes published]

fraction  the training step of each architecture at published sizes (batch 64, 512 speech and 128
          text positions, 1024 and 768 wide; the concat systems in a pack too). Floating-point
          operations are those executed (torch's count of the products and of attention, forward and
          backward); the time is that of the whole step, reading the batch, dropout, loss and AdamW
          included. The rate is that of the step's own main products, done alone in the same
          precision, by turns with the steps.
epoch     an epoch of vanilla_concat at published settings and widths on 13,000 utterances, from
          pooled vectors stored once.
packs     trials an hour of each architecture in packs of 1, 4 and 16: an epoch with its validation
          (the sequence systems: of two batches), at the widths of the built-in encoders at 10
          frames a second, or at published ones.
"""

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.training_data import features_of, write_corpus
from mmm.models import ARCHITECTURES
from mmm.training.config import TrainConfig, make_config, published_params
from mmm.training.features import Features
from mmm.training.fit import fit, fit_pack, train_epoch
from mmm.training.malloc import keep_freed_memory
from mmm.training.matmul_rate import executed, main_products, make_operands, product_rate
from mmm.training.pack import Pack
from mmm.training.run import Run, begin

BATCH = 64
SIZES = (1, 4, 16)


def members(
    config: TrainConfig, features: Features, size: int, precision: str = "float32"
) -> list[Run]:
    settings = config.params()
    configs = [
        make_config({**settings, "seed": seed, "lr": 1e-4 * (1 + seed)}) for seed in range(size)
    ]
    return [begin(one, features, precision=precision) for one in configs]


def stepper(runs: list[Run]) -> Callable[[], object]:
    """One optimizer step of a pack on a batch."""
    for run in runs:
        run.train = run.train.part(torch.arange(BATCH))
    pack = Pack(runs)
    return lambda: train_epoch(pack)


def median_ratio(pairs: list[tuple[float, float]]) -> float:
    return statistics.median(one / other for one, other in pairs)


def fraction(features: Features, options: argparse.Namespace) -> None:
    dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
    print(
        f"step of {BATCH} utterances, {options.precision}, {torch.get_num_threads()} threads,"
        f" {options.rounds} rounds by turns"
    )
    for name in options.architectures:
        for recipe, changes in (("published", {"accumulate": 1}), ("default", None)):
            base = published_params(name)
            settings = (
                {**base, **changes}
                if changes is not None
                else {"architecture": name, "dropout": 0.1}
            )
            config = make_config(settings)
            for size in (1, 16) if config.is_pooled else (1,):
                step = stepper(members(config, features, size, options.precision))
                products, operations = executed(step)
                operands = make_operands(main_products(products), dtype)
                repeats = max(1, round(0.3 / max(_timed(step), 1e-4)))
                product_rate(operands)
                times, rates = [], []
                for _ in range(options.rounds):
                    times.append(_timed(step, repeats))
                    rates.append(
                        statistics.fmean(
                            product_rate(operands) for _ in range(max(1, repeats // 2))
                        )
                    )
                reached = [
                    operations / seconds / rate for seconds, rate in zip(times, rates, strict=True)
                ]
                step_s, rate = statistics.median(times), statistics.median(rates)
                print(
                    f"  {name:<17} {recipe:<10} pack of {size:<2}  {step_s * 1000:8.1f} ms "
                    f" {operations / 1e9:7.2f} GFLOP  {operations / step_s / 1e9:6.1f} GFLOP/s of"
                    f" {rate / 1e9:6.1f}: {statistics.median(reached):.2f} ({min(reached):.2f} to"
                    f" {max(reached):.2f})",
                    flush=True,
                )


def _timed(step: Callable[[], object], repeats: int = 1) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        step()
    return (time.perf_counter() - started) / repeats


def epoch(features: Features, options: argparse.Namespace) -> None:
    run = begin(
        make_config({**published_params("vanilla_concat"), "epochs": options.rounds + 1}), features
    )
    seconds = [result.seconds for result in fit(run)][1:]
    spread = (
        f"{statistics.median(seconds):.2f} s an epoch ({min(seconds):.2f} to {max(seconds):.2f})"
    )
    print(
        f"vanilla_concat at published settings, {len(run.train):,} training and {len(run.dev):,}"
        f" validation utterances, {torch.get_num_threads()} threads: {spread}"
    )


def packs(features: Features, options: argparse.Namespace) -> None:
    print(
        "seconds of an epoch for each trial, validation included;"
        f" {len(features.manifest.rows('train'))} training rows, {torch.get_num_threads()} threads,"
        f" {options.rounds} rounds by turns"
    )
    for name, batch_size, width in itertools.product(
        options.architectures, options.batch_sizes, options.widths
    ):
        if name == "cross_attention" and width != options.widths[0]:
            continue
        changes = {} if name == "cross_attention" else {"width": width}
        config = make_config(
            {"architecture": name, "batch_size": batch_size, "epochs": 1000, **changes}
        )
        epochs: dict[int, Any] = {}
        for size in SIZES:
            runs = members(config, features, size)
            if not config.is_pooled:
                for run in runs:
                    run.train, run.dev = (
                        run.train.part(torch.arange(2 * batch_size)),
                        run.dev.part(torch.arange(32)),
                    )
            epochs[size] = fit_pack(runs)
            next(epochs[size])
        seconds: dict[int, list[float]] = {size: [] for size in SIZES}
        for _ in range(options.rounds):
            for size in SIZES:
                started = time.perf_counter()
                next(epochs[size])
                seconds[size].append((time.perf_counter() - started) / size)
        told = "  ".join(f"{size}: {statistics.median(seconds[size]):8.4f} s" for size in SIZES)
        gains = "  ".join(
            f"{size}: {median_ratio(list(zip(seconds[1], seconds[size], strict=True))):.2f}"
            for size in SIZES[1:]
        )
        shape = f"{name:<17} batch {batch_size:<3} width {config.width or features.text.width:<3}"
        print(f"  {shape} {told}   times as many trials an hour  {gains}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("fraction", "epoch", "packs"))
    parser.add_argument("--precision", default="float32", choices=("float32", "bf16"))
    parser.add_argument("--architectures", nargs="+", default=list(ARCHITECTURES))
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[32, 64])
    parser.add_argument(
        "--widths", nargs="+", type=int, default=[64, 256], help="packs: of all but cross_attention"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--sizes", choices=("built-in", "published"), help="[fraction: published, packs: built-in]"
    )
    parser.add_argument("--utterances", type=int, default=512)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as `mmm train` and the workers of a sweep do
    with tempfile.TemporaryDirectory() as folder:
        if options.what == "epoch":
            epoch(
                features_of(write_corpus(Path(folder) / "corpus", 13_000, is_pooled=True)), options
            )
            return
        is_published = (
            options.sizes or {"fraction": "published", "packs": "built-in"}[options.what]
        ) == "published"
        sizes: dict[str, Any] = (
            {} if is_published else {"speech_width": 120, "text_width": 128, "frames_per_s": 10}
        )
        manifest = write_corpus(Path(folder) / "corpus", options.utterances, **sizes)
        {"fraction": fraction, "packs": packs}[options.what](features_of(manifest), options)


if __name__ == "__main__":
    sys.exit(main())
