"""A sweep over the concat systems in packs against the same sweep without: trials an hour, and the
results trial by trial.

    python -m benchmarks.pack_sweep [--trials 64] [--epochs 5] [--rounds 2] [--workers 2]

Both run `mmm-search run` with the same enqueued points (both architectures, K = 1 to 3, the rest at
random) on the same features of a generated corpus, by turns. No trial is stopped early, so that
both do the same work; each trial of one is compared with the trial of the other that has the same
settings, epoch by epoch.

steady    trials an hour from the first result to the last
whole     trials an hour of the whole command, starting and stopping included
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from search.ledger.events import read_history
from search.ledger.history import History

SPACE = """
def suggest(trial):
    return {"architecture": trial.suggest_categorical("architecture", ["vanilla_concat",
            "three_way_concat"]),
            "context": trial.suggest_int("context", 1, 3),
            "lr": trial.suggest_float("lr", 1e-4, 1e-2, log=True),
            "dropout": trial.suggest_float("dropout", 0.0, 0.5),
            "weight_decay": trial.suggest_float("weight_decay", 1e-4, 0.3, log=True),
            "class_weight": trial.suggest_categorical("class_weight", ["none", "inverse",
            "sqrt_inverse"]),
            "batch_size": BATCH, "width": 128}
"""


def points(number: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        {
            "architecture": ("vanilla_concat", "three_way_concat")[place % 2],
            "context": 1 + place // 2 % 3,
            "lr": float(10 ** rng.uniform(-4, -2)),
            "dropout": float(rng.uniform(0, 0.5)),
            "weight_decay": float(10 ** rng.uniform(-4, -0.6)),
            "class_weight": ("none", "inverse", "sqrt_inverse")[int(rng.integers(3))],
        }
        for place in range(number)
    ]


def command(folder: Path, *arguments: object) -> float:
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return time.perf_counter() - started


def steady_s(history: History) -> float:
    """From the first result to the last."""
    ended = [entry.ended for trial in history.trials.values() for entry in trial.epochs]
    return float(max(ended) - min(ended))


def compare(one: History, other: History) -> tuple[int, float, int]:
    """Trials with the same settings, the largest difference of a validation loss, and epochs whose
    macro F1 differs at all.
    """
    partners = {trial.queued: trial for trial in other.trials.values()}
    largest, differing = 0.0, 0
    for trial in one.trials.values():
        partner = partners[trial.queued]
        assert trial.settings == partner.settings
        assert len(trial.epochs) == len(partner.epochs)
        for mine, theirs in zip(trial.epochs, partner.epochs, strict=True):
            largest = max(largest, abs(mine.metrics["loss"] - theirs.metrics["loss"]))
            differing += mine.metrics["macro_f1"] != theirs.metrics["macro_f1"]
    return len(partners), largest, differing


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--scripts", type=int, default=3)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command(
            folder, "mmm", "demo-corpus", "corpus", "--sessions", 16, "--scripts", options.scripts
        )
        command(
            folder,
            "mmm",
            "encode",
            "corpus/manifest.csv",
            "--features",
            "features",
            "--frame-rate",
            10,
            "--num-mels",
            40,
            "--context",
            "1,2,3",
            "--audio-feature",
            "hidden_state",
        )
        (folder / "space.py").write_text(SPACE.replace("BATCH", str(options.batch_size)))
        (folder / "points.json").write_text(json.dumps(points(options.trials)))
        steady: dict[str, list[float]] = {"off": [], "auto": []}
        whole: dict[str, list[float]] = {"off": [], "auto": []}
        histories: dict[str, History] = {}
        for turn in range(options.rounds):
            for packs in ("off", "auto") if turn % 2 == 0 else ("auto", "off"):
                sweep = f"{packs}{turn}"
                wall_s = command(
                    folder,
                    "search",
                    "run",
                    "space.py:suggest",
                    "corpus/manifest.csv",
                    "--features",
                    "features",
                    "--name",
                    sweep,
                    "--trials",
                    options.trials,
                    "--epochs",
                    options.epochs,
                    "--first-rung",
                    options.epochs,
                    "--packs",
                    packs,
                    "--workers",
                    options.workers,
                    "--enqueue",
                    "points.json",
                )
                history = histories[packs] = read_history(folder / "runs" / sweep / "ledger.sqlite")
                steady[packs].append(3600 * options.trials / steady_s(history))
                whole[packs].append(3600 * options.trials / wall_s)
                told = f"steady {steady[packs][-1]:7.0f} an hour, whole {whole[packs][-1]:7.0f}"
                print(f"  packs {packs:<4}  {options.trials} trials: {told}", flush=True)
        for what, found in (("steady", steady), ("whole", whole)):
            medians = {packs: statistics.median(speeds) for packs, speeds in found.items()}
            ratio = medians["auto"] / medians["off"]
            print(
                f"{what}: {medians['auto']:.0f} trials an hour in packs, {medians['off']:.0f}"
                f" without: {ratio:.2f} times"
            )
        number, largest, differing = compare(histories["off"], histories["auto"])
        epochs = sum(len(trial.epochs) for trial in histories["off"].trials.values())
        print(
            f"{number} pairs of trials: validation loss differs by at most {largest:.1e}, macro F1"
            f" in {differing} of {epochs} epochs"
        )


if __name__ == "__main__":
    sys.exit(main())
