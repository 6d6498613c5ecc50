"""How busy are the workers? Our sweeps against stock Ray Tune on the same training, side by side in
one run.

    python benchmarks/sweep_efficiency.py [--lengths 10 2 0.5 0.05] [--trials 8 16 30 30]
        [--longer 0 24 160 400] [--repeats 1] [--workers 2] [--side both|ours|stock] [--rungs]
        [--json FILE]

Stock is what one writes after Ray's documentation: a function trainable, `OptunaSearch`,
`ASHAScheduler` and `MLflowLoggerCallback` into SQLite, everything else at its default. Both sides
train the same settings of `mmm` (one model a length, only the learning rate is searched) on the
same features of a generated corpus, one thread a worker. ASHA is on, but its first rung is the last
epoch: no trial is stopped, so that both do the same work; with `--rungs` ours has rungs at 3 and 9.
Ours writes checkpoints and ledger as always, stock writes no checkpoints. Sides alternate;
`--longer` is a third sweep, ours with more trials, because the few that stock gets through in
reasonable time are too few for a steady figure.

wall       seconds of the whole program, imports and shutting down included
steady     training seconds / workers / wall time, from the first result to the start of the last
           trial: until then there is work for every worker. Training seconds are CPU seconds of the
           epochs, on one thread.
with tail  the same until the last result; in the tail a worker may have nothing left to do
an hour    trials an hour, by `wall`, and in the steady window alone
first      seconds from the command to the start of the first training step

Run it with nothing else running: Ray's workers have a low priority, anything else on the machine
goes first.
"""

import argparse
import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

ROOT = Path(__file__).resolve().parent.parent
METRIC = "macro_f1"
NUM_EPOCHS = 9  # about as many in a trial; the model is chosen by it
# Cheapest first; each of these takes a few times as long for an epoch as the one before it.
LADDER: tuple[dict[str, Any], ...] = (
    {"architecture": "vanilla_concat", "width": 32, "classifier_hidden": 32, "batch_size": 128},
    {"architecture": "vanilla_concat", "width": 128, "batch_size": 32},
    {"architecture": "vanilla_concat", "width": 128, "batch_size": 8},
    {"architecture": "mlp_mixer", "width": 32, "num_blocks": 1, "batch_size": 32},
    {"architecture": "mlp_mixer", "width": 64, "num_blocks": 2, "batch_size": 32},
    {"architecture": "mlp_mixer", "width": 128, "num_blocks": 4, "batch_size": 32},
    {"architecture": "mlp_mixer", "width": 256, "num_blocks": 6, "batch_size": 32},
)
SPACE = """
SETTINGS = {settings!r}

def suggest(trial):
    return {{**SETTINGS, "lr": trial.suggest_float("lr", 1e-4, 1e-3, log=True)}}

# the same for OptunaSearch, which takes the suggested parameters from the trial
def constants(trial):
    suggest(trial)
    return SETTINGS
"""


@dataclass(frozen=True)
class Task:
    """One sweep that both sides can run."""

    folder: str
    manifest: str
    features: str
    space: str  # a file with SETTINGS and suggest
    settings: dict[str, Any]
    epochs: int
    trials: int
    workers: int
    first_rung: int


@dataclass(frozen=True)
class Epoch:
    """Times are seconds since 1970; `alone` is the CPU time, `arrived` when the driver had it."""

    trial: int
    started: float
    ended: float
    alone: float
    arrived: float


@dataclass(frozen=True)
class Figures:
    wall_s: float
    steady: float
    with_tail: float
    trials_an_hour: float
    steady_trials_an_hour: float
    first_step_s: float
    trial_s: float  # mean CPU seconds of a trial


def make_data(folder: Path) -> tuple[Path, Path]:
    """Manifest and features of a small generated corpus."""
    from mmm.corpora.generated.demo import make_demo_corpus
    from mmm.encoders.extract import encode_speech, encode_text
    from mmm.encoders.make import make_speech_encoder, make_text_encoder
    from mmm.manifest_csv import read_manifest

    manifest = make_demo_corpus(folder / "corpus", num_sessions=10)
    corpus, features = read_manifest(manifest), folder / "features"
    for steps in (
        encode_speech(
            corpus,
            features,
            make_speech_encoder("fbank", frame_rate=10.0, num_mels=32),
            ["hidden_state"],
        ),
        encode_text(corpus, features, make_text_encoder("char-ngram", width=64), [1]),
    ):
        for _ in steps:
            pass
    return manifest, features


def epoch_seconds(manifest: Path, features: Path, settings: dict[str, Any]) -> float:
    """CPU seconds of an epoch on one thread, the first epochs left out."""
    import torch

    from mmm.manifest_csv import read_manifest
    from mmm.training.config import make_config
    from mmm.training.features import load_features
    from mmm.training.fit import fit
    from mmm.training.run import begin

    torch.set_num_threads(1)
    config = make_config({**settings, "epochs": 6})
    run = begin(
        config,
        load_features(read_manifest(manifest), features, *config.features_key),
    )
    return statistics.median([result.cpu_seconds for result in fit(run)][2:])


def run_program(command: list[str], log: Path) -> tuple[float, float]:
    """Run to its end; when it started and how long it took. Raises with the end of its output where
    it failed.
    """
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    started = time.time()
    with open(log, "w") as file:
        done = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": path}, stdout=file, stderr=file, check=False
        )
    if done.returncode:
        raise SystemExit(
            f"{' '.join(command)}\nended with {done.returncode}:\n{log.read_text()[-3000:]}"
        )
    return started, time.time() - started


def run_ours(task: Task) -> tuple[float, float, list[Epoch]]:
    from search.ledger.events import read_events

    runs = Path(task.folder) / "runs"
    started, wall_s = run_program(
        [
            sys.executable,
            "-m",
            "search",
            "run",
            f"{task.space}:suggest",
            task.manifest,
            "--features",
            task.features,
            "--name",
            "ours",
            "--trials",
            str(task.trials),
            "--epochs",
            str(task.epochs),
            "--first-rung",
            str(task.first_rung),
            "--workers",
            str(task.workers),
            "--runs",
            str(runs),
        ],
        Path(task.folder) / "log",
    )
    epochs = [
        Epoch(
            event.trial or 0,
            event.body.started,
            event.body.ended,
            event.body.alone_seconds,
            event.time,
        )
        for event in read_events(runs / "ours" / "ledger.sqlite")
        if event.kind == "epoch"
    ]
    return started, wall_s, epochs


def run_stock(task: Task) -> tuple[float, float, list[Epoch]]:
    folder = Path(task.folder)
    (folder / "task.json").write_text(json.dumps(asdict(task)))
    started, wall_s = run_program(
        [sys.executable, __file__, "--stock-task", str(folder / "task.json")], folder / "log"
    )
    return (
        started,
        wall_s,
        [Epoch(**epoch) for epoch in json.loads((folder / "epochs.json").read_text())],
    )


def stock(task: Task) -> None:
    """The stock sweep itself, in a process of its own. Writes epochs.json."""
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    # OptunaSearch pickles its space with every snapshot, by name.
    spec = importlib.util.spec_from_file_location("stock_space", task.space)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["stock_space"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    told: list[dict[str, Any]] = []

    def train(config: dict[str, Any]) -> None:
        import time
        from pathlib import Path

        import torch

        from mmm.manifest_csv import read_manifest
        from mmm.metrics import scalar_metrics
        from mmm.training.config import make_config
        from mmm.training.features import load_features
        from mmm.training.fit import fit
        from mmm.training.run import begin

        torch.set_num_threads(1)
        config = make_config({**config, "epochs": task.epochs})
        manifest = read_manifest(task.manifest, check_audio=False)
        run = begin(
            config,
            load_features(manifest, Path(task.features), *config.features_key),
        )
        started = time.time()
        for result in fit(run):
            ended = time.time()
            alone = min(result.seconds, result.cpu_seconds)
            times = {"started": started, "ended": ended, "alone": alone}
            tune.report(
                {**scalar_metrics(result.metrics), "train_loss": result.train_loss, **times}
            )
            started = time.time()

    class Watch(tune.Callback):  # type: ignore[misc]
        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
        ) -> None:
            entry = {name: result[name] for name in ("started", "ended", "alone")}
            told.append({"trial": trials.index(trial), **entry, "arrived": time.time()})

    ray.init(num_cpus=task.workers)
    store = MLflowLoggerCallback(
        tracking_uri=f"sqlite:///{task.folder}/mlflow.db", experiment_name="stock"
    )
    tune.Tuner(
        train,
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(space=module.constants, metric=METRIC, mode="max", seed=1),
            scheduler=ASHAScheduler(
                metric=METRIC, mode="max", max_t=task.epochs, grace_period=task.epochs
            ),
            num_samples=task.trials,
        ),
        run_config=tune.RunConfig(
            name="stock", storage_path=f"{task.folder}/ray", callbacks=[store, Watch()]
        ),
    ).fit()
    (Path(task.folder) / "epochs.json").write_text(json.dumps(told))


def figures(task: Task, started: float, wall_s: float, epochs: list[Epoch]) -> Figures:
    by_trial: dict[int, list[Epoch]] = {}
    for epoch in epochs:
        by_trial.setdefault(epoch.trial, []).append(epoch)
    if len(by_trial) != task.trials or any(
        len(trial) != task.epochs for trial in by_trial.values()
    ):
        counts = sorted(len(trial) for trial in by_trial.values())
        raise SystemExit(
            f"{task.folder}: expected {task.trials} trials of {task.epochs} epochs, found {counts};"
            " see its log"
        )
    first, last = min(epoch.arrived for epoch in epochs), max(epoch.arrived for epoch in epochs)
    last_start = max(trial[0].started for trial in by_trial.values())

    def efficiency(until: float) -> float:
        trained = 0.0
        for epoch in epochs:
            inside = max(0.0, min(epoch.ended, until) - max(epoch.started, first))
            trained += epoch.alone * min(1.0, inside / max(epoch.ended - epoch.started, 1e-9))
        return trained / task.workers / (until - first) if until > first else math.nan

    ended = sum(
        first < max(epoch.ended for epoch in trial) <= last_start for trial in by_trial.values()
    )
    return Figures(
        wall_s,
        efficiency(last_start),
        efficiency(last),
        task.trials / wall_s * 3600,
        ended / (last_start - first) * 3600 if last_start > first else math.nan,
        min(epoch.started for epoch in epochs) - started,
        sum(epoch.alone for epoch in epochs) / task.trials,
    )


def line(name: str, task: Task, found: Figures) -> str:
    return (
        f"  {name:<12} {task.trials:>6} {found.trial_s:>8.3f} {found.wall_s:>8.1f}"
        f" {found.first_step_s:>7.1f} {found.steady:>8.3f} {found.with_tail:>10.3f}"
        f" {found.trials_an_hour:>9.0f} {found.steady_trials_an_hour:>9.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--lengths",
        type=float,
        nargs="+",
        default=[10.0, 2.0, 0.5, 0.05],
        help="seconds of a trial",
    )
    parser.add_argument(
        "--trials", type=int, nargs="+", default=[8, 16, 30, 30], help="of both sides, by length"
    )
    parser.add_argument(
        "--longer",
        type=int,
        nargs="+",
        default=[0, 24, 160, 400],
        help="of ours again, by length; 0: not",
    )
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--side", choices=["both", "ours", "stock"], default="both")
    parser.add_argument("--rungs", action="store_true")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    parser.add_argument("--keep", type=Path, help="work in this folder and keep it")
    parser.add_argument("--stock-task", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stock_task:
        stock(Task(**json.loads(options.stock_task.read_text())))
        return
    if not len(options.lengths) == len(options.trials) == len(options.longer):
        parser.error("--lengths, --trials and --longer need as many values each")
    with tempfile.TemporaryDirectory(prefix="sweep-efficiency-") as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        compare(folder.resolve(), options)


def compare(folder: Path, options: argparse.Namespace) -> None:
    """Run and print everything."""
    manifest, features = make_data(folder)
    seconds = [epoch_seconds(manifest, features, settings) for settings in LADDER]
    print(
        f"{options.workers} workers on {len(os.sched_getaffinity(0))} cores; load now"
        f" {os.getloadavg()[0]:.2f}",
        flush=True,
    )
    written: list[dict[str, Any]] = []
    for length, trials, longer in zip(options.lengths, options.trials, options.longer, strict=True):
        chosen = min(
            range(len(LADDER)),
            key=lambda index: abs(math.log(length / seconds[index] / NUM_EPOCHS)),
        )
        epochs = max(1, round(length / seconds[chosen]))
        settings = {**LADDER[chosen], "context": 1}
        space = folder / f"space_{length:g}.py"
        space.write_text(SPACE.format(settings=settings))
        print(
            f"\ntrials of about {length:g} s: {settings['architecture']}, {epochs} epochs of"
            f" {seconds[chosen] * 1000:.1f} ms"
        )
        print(
            f"  {'':<12} {'trials':>6} {'trial s':>8} {'wall s':>8} {'first s':>7} {'steady':>8}"
            f" {'with tail':>10} {'an hour':>9} {'(steady)':>9}",
            flush=True,
        )
        sides: list[tuple[str, Callable[[Task], tuple[float, float, list[Epoch]]], int]] = [
            ("ours", run_ours, trials),
            ("stock", run_stock, trials),
            ("ours, longer", run_ours, longer),
        ]
        found: dict[str, list[Figures]] = {}
        for repeat in range(options.repeats):
            for name, run, count in sides:
                if not count or options.side not in ("both", name.split(",")[0]):
                    continue
                place = folder / f"{length:g}_{name.replace(', ', '_')}_{repeat}"
                place.mkdir()
                rung = 3 if options.rungs else epochs
                task = Task(
                    str(place),
                    str(manifest),
                    str(features),
                    str(space),
                    settings,
                    epochs,
                    count,
                    options.workers,
                    rung,
                )
                one = figures(task, *run(task))
                found.setdefault(name, []).append(one)
                written.append(
                    {
                        "length_s": length,
                        "side": name,
                        "repeat": repeat,
                        "trials": count,
                        **asdict(one),
                    }
                )
                print(line(name, task, one), flush=True)
        if "ours" in found and "stock" in found:
            for what, field in (
                ("an hour", "trials_an_hour"),
                ("an hour (steady)", "steady_trials_an_hour"),
            ):
                ratio = statistics.median(
                    getattr(one, field) for one in found["ours"]
                ) / statistics.median(getattr(one, field) for one in found["stock"])
                print(f"  trials {what}, ours / stock: {ratio:.1f}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
