"""Are a sweep's training seconds what its trials take alone? Trains some of them again, alone, and
compares.

    python benchmarks/alone_seconds.py runs/NAME [--trials 8] [--epochs 3]

A sweep's efficiency is training seconds / workers / wall time. On the CPU the training seconds are
each worker's CPU time; a core shared with others (caches, memory, sibling threads) makes them
longer than alone, which would flatter the efficiency. This script prints the ratio trial by trial,
its median, and the efficiency with it taken out. Run it on the machine that ran the sweep, with
nothing else running.
"""

import argparse
import statistics
from pathlib import Path

import torch

from mmm.manifest_csv import read_manifest
from mmm.training.config import make_config
from mmm.training.features import load_features
from mmm.training.fit import fit
from mmm.training.run import begin
from search.ledger.events import read_history


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    history = read_history(options.sweep / "ledger.sqlite")
    spec = history.spec
    manifest = read_manifest(spec.manifest, check_audio=False)
    torch.set_num_threads(1)
    trained = [trial for trial in history.trials.values() if len(trial.epochs) >= options.epochs]
    # Spread over the sweep, so that all kinds of settings are among them.
    chosen = trained[:: max(1, len(trained) // options.trials)][: options.trials]
    ratios = []
    print(f"{'trial':>6}  {'architecture':<17} {'in the sweep':>12} {'alone':>8} {'ratio':>6}")
    for trial in chosen:
        config = make_config(dict(trial.settings))
        run = begin(
            config,
            load_features(manifest, Path(spec.features), *config.features_key),
        )
        alone = 0.0
        for result in fit(run):
            alone += result.seconds
            if result.epoch >= options.epochs:
                break
        swept = sum(entry.alone_seconds for entry in trial.epochs[: options.epochs])
        ratios.append(alone / swept)
        print(
            f"{trial.number:>6}  {config.architecture:<17} {swept:>10.2f} s {alone:>6.2f} s"
            f" {ratios[-1]:>6.2f}"
        )
    middle = statistics.median(ratios)
    print(f"median ratio {middle:.2f}")
    efficiency = history.last_close.efficiency if history.last_close else None
    if efficiency is not None:
        print(
            f"steady efficiency {efficiency:.3f} as printed, {efficiency * middle:.3f} with seconds"
            " measured alone"
        )


if __name__ == "__main__":
    main()
