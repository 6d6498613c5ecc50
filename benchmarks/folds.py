"""What a sweep over folds costs, and what it is worth, replayed on recorded fold curves.

    python -m benchmarks.folds record --out benchmarks/data/folds.jsonl
    python -m benchmarks.folds replay

`record` trains random settings of the pooled systems on the generated corpus: each on the five
folds of two partitions of its sessions, with a seed of its own in each. `replay` runs the real
controller and searcher on one of the partitions, with the nearest recorded setting's curves as the
answer to each suggestion, and judges what each policy would export by the mean over folds of the
other partition: other seeds, other folds. Repeats differ in the searcher's seed, the partition and
the order of the folds; all of them search the same settings, so that late in a sweep they are few
independent ones.

* ours: rungs on the first fold, then fold after fold as long as the trial may still win.
* Wilcoxon: the same, with Optuna's WilcoxonPruner in the place of our race.
* rungs, then all folds: without a race.
* all folds of every trial: no rungs either.
* holdout: the first fold alone.

"Needs n times fewer" is the budget over the epochs at which our mean over repeats first is what the
other's is at the end of the budget; the interval is a bootstrap over repeats, both sides resampled.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import optuna
import torch
from optuna.distributions import distribution_to_json

import search.engine.verdicts as verdicts
from benchmarks.pooled_space import POINT, suggest
from benchmarks.record_curves import append, encode, recorded
from benchmarks.recording import Array, Encoding
from mmm.corpora.generated.demo import make_demo_corpus
from mmm.manifest import Manifest
from mmm.manifest_csv import read_manifest
from mmm.training.config import make_config
from mmm.training.features import Features, load_features
from mmm.training.fit import fit
from mmm.training.run import begin
from search.engine.asha import Decision
from search.engine.controller import Controller
from search.ledger.events import create_sweep
from search.ledger.records import Epoch
from search.ledger.spec import SweepSpec
from search.ledger.trial import Trial, best_mean
from search.messages import Report
from spaces import Space, There

optuna.logging.set_verbosity(optuna.logging.ERROR)
DATA = Path(__file__).parent / "data" / "folds.jsonl"
METRIC, EPOCHS, FOLDS, PARTITIONS = "macro_f1", 27, 5, 2
_THERE = There(audio_features=("hidden_state",), contexts=(1, 2, 3))


def in_folds(manifest: Manifest, partition: int) -> Manifest:
    """Sessions dealt to folds: in turn, or by neighbours."""
    sessions = sorted({one.session for one in manifest.utterances})
    size = len(sessions) // FOLDS
    fold_of = {
        session: 1 + (place % FOLDS if partition == 0 else min(place // size, FOLDS - 1))
        for place, session in enumerate(sessions)
    }
    utterances = tuple(
        dataclasses.replace(one, split="train", fold=fold_of[one.session])
        for one in manifest.utterances
    )
    return dataclasses.replace(manifest, utterances=utterances)


def draw_settings(count: int) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Random settings of the space, the known good one first, and the parameters' distributions."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    study.enqueue_trial({**POINT, "layer_mix": "one"})
    drawn, distributions = [], {}
    for _ in range(count):
        trial = study.ask()
        settings = dict(suggest(trial, _THERE))
        drawn.append({"params": dict(trial.params), "settings": settings})
        distributions |= {
            name: distribution_to_json(one) for name, one in trial.distributions.items()
        }
    return drawn, distributions


_loaded: dict[tuple[int, object], Features] = {}


def train(job: dict[str, Any]) -> dict[str, Any]:
    """One setting on all folds of one partition; its line of the recording."""
    torch.set_num_threads(1)
    config = make_config(
        {**job["settings"], "epochs": EPOCHS, "seed": job["partition"], "input_scaling": "standard"}
    )
    key = job["partition"], config.features_key
    if key not in _loaded:
        manifest = in_folds(read_manifest(job["manifest"], check_audio=False), job["partition"])
        _loaded[key] = load_features(manifest, Path(job["features"]), *config.features_key)
    scores, seconds = [], 0.0
    for fold in range(1, FOLDS + 1):
        results = list(fit(begin(config, _loaded[key], objective=METRIC, fold=fold)))
        scores.append([round(result.metrics["macro_f1"], 5) for result in results])
        seconds += sum(result.cpu_seconds for result in results)
    about = {name: job[name] for name in ("setting", "partition", "params")}
    return {**about, "scores": scores, "seconds": round(seconds, 2)}


def record(out: Path, num_settings: int, num_sessions: int, workers: int) -> None:
    drawn, distributions = draw_settings(num_settings)
    with tempfile.TemporaryDirectory() as scratch:
        source = make_demo_corpus(Path(scratch) / "demo", num_sessions=num_sessions)
        features, manifest = Path(scratch) / "features", read_manifest(source)
        encode(manifest, features, 3.125, 40, 64, 24)
        lines = recorded(out)
        if not lines:
            about = {
                "settings": num_settings,
                "sessions": num_sessions,
                "utterances": len(manifest.utterances),
                "distributions": distributions,
                "torch": torch.__version__,
            }
            append(out, {"about": about})
        done = {(line["setting"], line["partition"]) for line in lines[1:]}
        todo = [
            {
                "setting": number,
                "partition": partition,
                **one,
                "manifest": str(source),
                "features": str(features),
            }
            for number, one in enumerate(drawn)
            for partition in range(PARTITIONS)
            if (number, partition) not in done
        ]
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            for number, line in enumerate(pool.imap_unordered(train, todo), start=1):
                append(out, line)
                print(f"{number}/{len(todo)} {line['seconds']:.1f} s", flush=True)


class Recording:
    """Curves (S, P, K, E) of S settings, P partitions, K folds, E epochs."""

    def __init__(self, path: Path) -> None:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        self.about = lines[0]["about"]
        found: dict[int, dict[int, list[list[float]]]] = {}
        params: dict[int, dict[str, Any]] = {}
        for line in lines[1:]:
            found.setdefault(line["setting"], {})[line["partition"]] = line["scores"]
            params[line["setting"]] = line["params"]
        whole = sorted(number for number, both in found.items() if len(both) == PARTITIONS)
        self.curves = np.array([[found[n][p] for p in range(PARTITIONS)] for n in whole])
        self.params = [params[number] for number in whole]
        self.encoding = Encoding(self.about["distributions"])
        self.features = np.array([self.encoding(one) for one in self.params])

    def noise(self) -> str:
        """How far a setting's score in one partition is from that in the other, of one fold and of
        the mean.
        """
        one = self.curves[:, :, 0, :].max(axis=-1)
        mean = self.curves.mean(axis=2).max(axis=-1)
        sd = [float((part[:, 0] - part[:, 1]).std() / np.sqrt(2)) for part in (one, mean)]
        between = float(mean.mean(axis=1).std())
        return (
            f"noise of a setting's score (other seed, other folds): {sd[0]:.4f} on one fold,"
            f" {sd[1]:.4f} as the mean over {FOLDS}: {sd[0] / sd[1]:.2f} times less; settings"
            f" differ by {between:.4f}"
        )


class Replay:
    """One sweep: the project's controller, answered from the recording."""

    def __init__(
        self, recording: Recording, repeat: int, *, folds: bool = True, rungs: bool = True
    ) -> None:
        self.recording, self.partition = recording, repeat % PARTITIONS
        # Which fold is the first, and the holdout, is another one in each repeat.
        self.order = np.random.default_rng(repeat).permutation(FOLDS)
        root = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self._folder = tempfile.TemporaryDirectory(dir=root)
        self.spec = SweepSpec(
            name="replay",
            space="pooled",
            manifest="",
            features="",
            trials=len(recording.params),
            epochs=EPOCHS,
            workers=1,
            seed=repeat,
            first_rung=5 if rungs else EPOCHS,
            folds=FOLDS if folds else None,
        )
        self.space = Space(lambda trial: suggest(trial, _THERE))

    def run(self, max_epochs: int) -> Array:
        """What would be exported after each epoch: its mean over the other partition's folds, at
        the epoch that was chosen; 0 before there is anything.
        """
        unused = np.ones(len(self.recording.params), dtype=bool)
        rows: dict[int, int] = {}
        found: list[float] = []
        with create_sweep(Path(self._folder.name) / "replay", self.spec) as ledger:
            controller = Controller(ledger, self.spec, self.space, "cpu", lambda: None)
            controller.open_session("replay")
            while len(found) < max_epochs and (orders := controller.next_orders()):
                order = orders[0]
                trial = controller.trials[order.number]
                if order.number not in rows:
                    distance = np.abs(
                        self.recording.features - self.recording.encoding(dict(trial.params))
                    ).sum(axis=1)
                    distance[~unused] += 1000.0
                    rows[order.number] = int(distance.argmin())
                    unused[rows[order.number]] = False
                fold = order.fold or 1
                place = self.order[fold - 1]
                scores = self.recording.curves[rows[order.number], self.partition, place]
                for epoch, score in enumerate(scores, start=1):
                    entry = Epoch(
                        epoch=epoch,
                        train_loss=0.0,
                        metrics={METRIC: float(score)},
                        seconds=1.0,
                        alone_seconds=1.0,
                        ended=float(len(found)),
                        fold=fold,
                    )
                    stops = controller.report(
                        Report(order.number, [entry], is_last=epoch == EPOCHS)
                    )
                    found.append(self._exported(controller, rows))
                    if stops:
                        break
        self._folder.cleanup()
        found += [found[-1]] * (max_epochs - len(found))
        return np.array(found[:max_epochs])

    def _exported(self, controller: Controller, rows: Mapping[int, int]) -> float:
        if (best := controller.ledger.history.best) is None:
            return 0.0
        chosen = controller.trials[best[1]].best(METRIC)
        assert chosen is not None
        other = self.recording.curves[rows[best[1]], 1 - self.partition]
        return float(other[:, chosen[0] - 1].mean())


def wilcoxon(trials: Mapping[int, Trial], number: int, metric: str) -> Decision:
    """In the place of `decide_after_fold`: Optuna's own pruner, its steps the folds."""
    study = optuna.create_study(
        direction="maximize", pruner=optuna.pruners.WilcoxonPruner(p_threshold=0.1)
    )
    for other in trials.values():
        if other.state == "complete" and other.best(metric) is not None:
            scores = _scores(other, metric, FOLDS)
            study.add_trial(
                optuna.trial.create_trial(
                    value=float(np.mean(scores)),
                    intermediate_values=dict(enumerate(scores)),
                )
            )
    asked = study.ask()
    for fold, score in enumerate(_scores(trials[number], metric, trials[number].fold)):
        asked.report(score, fold)
    return Decision(asked.should_prune(), "WilcoxonPruner")


def _scores(trial: Trial, metric: str, num_folds: int) -> list[float]:
    found = trial.fold_scores(metric, num_folds)
    return found[best_mean(found)[0]]


def no_race(trials: Mapping[int, Trial], number: int, metric: str) -> Decision:
    return Decision(False, "no race")


POLICIES: dict[str, tuple[dict[str, bool], Callable[..., Decision]]] = {
    "ours": ({}, verdicts.decide_after_fold),
    "Wilcoxon": ({}, wilcoxon),
    "rungs, then all folds": ({}, no_race),
    "all folds of every trial": ({"rungs": False}, no_race),
    "holdout": ({"folds": False}, no_race),
}


def replay(job: tuple[str, int, Path, int]) -> Array:
    name, repeat, path, max_epochs = job
    torch.set_num_threads(1)
    options, decide = POLICIES[name]
    verdicts.decide_after_fold = decide
    return Replay(Recording(path), repeat, **options).run(max_epochs)


def fewer(ours: Array, other: Array) -> float:
    """The budget over the epochs at which the mean of ours (R, E) is what that of the other is at
    its end; where it does not get there, the other's share of it that does.
    """
    mine, theirs = ours.mean(axis=0), other.mean(axis=0)
    reached = np.flatnonzero(mine >= theirs[-1])
    if len(reached):
        return len(mine) / (int(reached[0]) + 1)
    return (int(np.flatnonzero(theirs >= mine[-1])[0]) + 1) / len(theirs)


def show(results: Mapping[str, Array], budgets: Sequence[int]) -> None:
    header = "".join(f"{budget:>10}" for budget in budgets)
    print(f"\nmean over folds (other partition) of what is exported, after epochs\n{'':26}{header}")
    for name, found in results.items():
        print(f"{name:26}" + "".join(f"{found[:, b - 1].mean():10.4f}" for b in budgets))
    rng = np.random.default_rng(0)
    ours = results["ours"]
    print(f"\nat {ours.shape[1]} epochs ours needs so many times fewer to the other's mean")
    for name, other in results.items():
        if name == "ours":
            continue
        draws = rng.integers(len(ours), size=(1000, len(ours)))
        ratios = [fewer(ours[rows], other[rows]) for rows in draws]
        low, high = np.quantile(ratios, [0.025, 0.975])
        differences = ours[:, -1] - other[:, -1]
        means = [differences[rows].mean() for rows in draws]
        worse, better = np.quantile(means, [0.025, 0.975])
        print(
            f"{name:26} {fewer(ours, other):5.2f} [{low:.2f}, {high:.2f}]   at the end"
            f" {differences.mean():+.4f} [{worse:+.4f}, {better:+.4f}]"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["record", "replay"])
    parser.add_argument("--out", "--data", type=Path, default=DATA)
    parser.add_argument("--settings", type=int, default=160)
    parser.add_argument("--sessions", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=2000)
    parser.add_argument("--policies", nargs="*", default=list(POLICIES))
    given = parser.parse_args()
    if given.what == "record":
        record(given.out, given.settings, given.sessions, given.workers)
        return
    recording = Recording(given.out)
    print(
        f"{len(recording.params)} settings, {FOLDS} folds of {recording.about['utterances']}"
        f" utterances in {recording.about['sessions']} sessions, {EPOCHS} epochs"
    )
    print(recording.noise())
    jobs = [
        (name, repeat, given.out, given.epochs)
        for repeat in range(given.repeats)
        for name in given.policies
    ]
    with multiprocessing.get_context("spawn").Pool(given.workers) as pool:
        found = pool.map(replay, jobs, chunksize=1)
    results = {
        name: np.array([one for one, job in zip(found, jobs, strict=True) if job[0] == name])
        for name in given.policies
    }
    steps = [given.epochs * part // 8 for part in (1, 2, 3, 4, 6, 8)]
    show(results, steps)


if __name__ == "__main__":
    sys.exit(main())
