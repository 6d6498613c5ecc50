"""Encoders and layers searched in one sweep, against one sweep for each with the same compute in
all.

    python -m benchmarks.encoders_in_one_sweep manifest.csv --features DIR --compute 6m

The features folder holds several speech encoders (`mmm features DIR`). The one sweep may train for
`--compute` seconds, summed over workers, for `--trials` trials at most; then each of the n speech
encoders has a sweep of its own, with all text encoders, of an n-th of both. Printed: the best
validation score and the number of trials of each. The scores are of one seed each, and the best of
n sweeps is the luckiest of them.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from mmm.features.named import encoders_in
from mmm.features.names import NAMES
from mmm.features.recipe import LAYERS
from search.ledger.durations import parse_duration
from search.ledger.events import read_history


def with_one(features: Path, speech: str, place: Path) -> Path:
    """A folder with this speech encoder, its own layer alone, and all text encoders, without
    copying.
    """
    place.mkdir()
    shutil.copy(features / NAMES, place / NAMES)
    for encoder in encoders_in(features):
        if encoder.kind == "text" or encoder.name == speech:
            for store, recipe in encoder.stores.items():
                if recipe.get("feature") == LAYERS:
                    continue
                shutil.copytree(store, place / store.name, copy_function=os.link)
    return place


def sweep(given: argparse.Namespace, features: Path, name: str, num_sweeps: int) -> None:
    """One of so many that share compute and trials."""
    compute_s, trials = given.compute / num_sweeps, -(-given.trials // num_sweeps)
    words = ["run", given.space, str(given.manifest), "--features", str(features), "--name", name]
    options = ["--trials", str(trials), "--epochs", str(given.epochs), "--runs", str(given.runs)]
    budget = ["--compute-budget", f"{compute_s:.0f}s", "--seed", str(given.seed)]
    command = [sys.executable, "-P", "-m", "search", "-q", *words, *options, *budget]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--compute", type=parse_duration, required=True, help="such as 20m")
    parser.add_argument("--trials", type=int, default=140, help="at most, of all sweeps of a side")
    parser.add_argument("--space", default="benchmarks/pooled_space.py:suggest")
    parser.add_argument("--epochs", type=int, default=27)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    given = parser.parse_args()
    names = [one.name for one in encoders_in(given.features) if one.kind == "audio"]
    with tempfile.TemporaryDirectory(dir=given.features.parent) as place:
        sweep(given, given.features, "all", 1)
        for name in names:
            folder = with_one(given.features, name, Path(place) / name)
            sweep(given, folder, f"only-{name}", len(names))
    print("| sweep | compute | trials | best | its system | linear baseline |")
    print("| --- | ---: | ---: | ---: | --- | ---: |")
    for name in ["all", *(f"only-{name}" for name in names)]:
        history = read_history(given.runs / name / "ledger.sqlite")
        assert history.best is not None
        assert history.baseline is not None
        score, number = history.best
        trials = history.trials.values()
        seconds = sum(trial.alone_seconds for trial in trials)
        settings = history.trials[number].settings
        chosen = [str(settings[kind]) for kind in ("speech", "text") if settings.get(kind)]
        told = f"{settings['architecture']} {' + '.join(chosen)}".strip()
        base = history.baseline.metrics[history.spec.metric]
        print(f"| {name} | {seconds:.0f} s | {len(trials)} | {score:.4f} | {told} | {base:.4f} |")


if __name__ == "__main__":
    main()
