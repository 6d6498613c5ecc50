"""A ledger of 10,000 trials: seconds to load it, memory, and seconds to the next suggestion.

python benchmarks/ledger_at_scale.py runs/at-scale        # makes the ledger on first use

The trials are random draws of the `full` space, stopped as ASHA would at 3, 9 and 27 epochs; each
epoch has all that a real one reports.
"""

import argparse
import random
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import distribution_to_json

from search.ledger.events import Entry, create_sweep, open_sweep, read_history
from search.ledger.records import (
    Checkpoint,
    End,
    Epoch,
    RungDecision,
    Session,
    Suggestion,
    split_tables,
)
from search.ledger.spec import SweepSpec
from search.suggest.searcher import Searcher
from spaces import SPACES

METRIC = "macro_f1"
CLASSES = ("neutral", "happy", "surprise", "angry", "sad", "disgust", "fear")
LENGTHS = {
    3: 6,
    9: 2,
    27: 1,
}  # epochs of a trial: of nine, six end at the first rung and two at the second
TOGETHER = 64  # trials whose events are written in one transaction


def metrics_of(score: float, draw: random.Random) -> dict[str, Any]:
    """As mmm.metrics.classification_metrics and mmm.training.evaluate make them."""
    near = [min(1.0, max(0.0, draw.gauss(score, 0.1))) for _ in range(28)]
    names = (
        "accuracy",
        "weighted_precision",
        "weighted_recall",
        "weighted_f1",
        METRIC,
        "unweighted_recall",
        "recall_sd",
    )
    return {
        **dict(zip(names, [*near[:4], score, *near[5:7]], strict=True)),
        "per_class": {
            name: {
                "precision": near[k],
                "recall": near[k + 7],
                "f1": near[k + 14],
                "support": draw.randint(5, 200),
            }
            for k, name in enumerate(CLASSES)
        },
        "confusion_matrix": [[draw.randint(0, 60) for _ in CLASSES] for _ in CLASSES],
        "loss": 2 - score,
    }


def trial_entries(
    number: int, suggested: optuna.Trial, settings: dict[str, Any], draw: random.Random
) -> list[Entry]:
    """Everything that a ledger holds of one trial."""
    distributions = {
        name: distribution_to_json(found) for name, found in suggested.distributions.items()
    }
    suggestion = Suggestion(suggested.params, distributions, settings)
    entries: list[Entry] = [(number, suggestion)]
    length = draw.choices(list(LENGTHS), list(LENGTHS.values()))[0]
    quality = draw.uniform(0.1, 0.5)
    for epoch in range(1, length + 1):
        seconds = draw.uniform(0.5, 5.0)
        metrics = metrics_of(
            min(1.0, max(0.0, quality * (1 - 0.7**epoch) + draw.gauss(0, 0.02))), draw
        )
        scalars, tables = split_tables(metrics)
        entry = Epoch(
            epoch=epoch,
            train_loss=2 - quality,
            metrics=scalars,
            seconds=seconds,
            alone_seconds=seconds,
            ended=1.7e9,
            tables=tables,
        )
        entries.append((number, entry))
        if epoch in LENGTHS:
            path = f"/storage/runs/at-scale/trials/{number:05d}/checkpoint-{epoch:05d}.safetensors"
            entries.append((number, Checkpoint(epoch, draw.randbytes(32).hex(), path)))
            reason = (
                f"rank {draw.randint(1, 500)} of {draw.randint(500, 1000)} at epoch {epoch}, best"
                " 300 go on"
            )
            if epoch < 27:
                action: Literal["continue", "stop"] = "stop" if epoch == length else "continue"
                entries.append((number, RungDecision(epoch, action, reason)))
            if epoch == length:
                entries.append((number, End("complete" if epoch == 27 else "pruned", reason)))
    return entries


def sweep_entries(spec: SweepSpec, num_trials: int) -> Iterator[list[Entry]]:
    """The events of a whole sweep after its specification, in the transactions to write them
    in.
    """
    draw = random.Random(1)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    yield [Session(spec, "", "")]
    for start in range(0, num_trials, TOGETHER):
        together: list[Entry] = []
        for number in range(start, min(num_trials, start + TOGETHER)):
            suggested = study.ask()
            settings = {
                **SPACES["full"].suggest(suggested),
                "epochs": 27,
                "seed": 1,
                "classifier_hidden": 256,
            }
            together += trial_entries(number, suggested, settings, draw)
        yield together


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, default=10_000)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = options.folder / "ledger.sqlite"
    if not path.is_file():
        started = time.perf_counter()
        spec = SweepSpec(
            "at-scale", "full", "manifest.csv", "features", options.trials + 1, 27, workers=2
        )
        with create_sweep(options.folder, spec) as ledger:
            for entries in sweep_entries(spec, options.trials):
                ledger.append(*entries)
        print(
            f"written in {time.perf_counter() - started:.1f} s; run again to measure in a process"
            " of its own"
        )
        return
    started, started_cpu = time.perf_counter(), time.process_time()
    history = read_history(path)
    print(
        f"{path.stat().st_size / 1e6:.0f} MB, {len(history.trials)} trials, "
        f"{sum(len(trial.epochs) for trial in history.trials.values())} epochs"
    )
    cpu_s = time.process_time() - started_cpu  # what it takes on a machine that does nothing else
    print(f"read_history: {time.perf_counter() - started:.2f} s, {cpu_s:.2f} s of the processor")
    del history
    started = time.perf_counter()
    with open_sweep(options.folder) as ledger:
        print(
            f"opened for writing: {time.perf_counter() - started:.2f} s, peak memory"
            f" {peak_mb():.0f} MB"
        )
        for what in ("first", "second"):
            started = time.perf_counter()
            ledger.history.ranked(METRIC)
            print(f"ranking, {what} time: {time.perf_counter() - started:.3f} s")
        started = time.perf_counter()
        searcher = Searcher(
            SPACES["full"], METRIC, 1, ledger.history.trials, queue=(), rungs=(3, 9, 27)
        )
        print(f"searcher: {time.perf_counter() - started:.2f} s")
        for number in range(len(ledger.history.trials), len(ledger.history.trials) + 3):
            started = time.perf_counter()
            searcher.suggest(number)
            print(f"suggestion: {time.perf_counter() - started:.3f} s")
        print(f"peak memory {peak_mb():.0f} MB")


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
