"""Record full learning curves of random settings of a space, for benchmarks/search_quality.py to
replay.

    python benchmarks/record_curves.py MANIFEST --features features --out benchmarks/data/meld.jsonl
    \
        --settings 270 --train-dialogues 100
    python benchmarks/record_curves.py --demo --out benchmarks/data/demo.jsonl --settings 160
    --seeded 24

One line a run in the order they ended, appended and synced: interrupted, the same command goes on
with what is missing. The first `--seeded` settings are trained with three seeds. Each worker trains
on one thread; `seconds` is its CPU time, which other work on the machine changes little.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import optuna
import torch
from optuna.distributions import distribution_to_json

from mmm.corpora.generated.demo import make_demo_corpus
from mmm.device import cpus_here
from mmm.encoders.extract import encode_speech, encode_text
from mmm.encoders.make import make_speech_encoder, make_text_encoder
from mmm.manifest import Manifest
from mmm.manifest_csv import read_manifest
from mmm.training.config import make_config
from mmm.training.features import Features, load_features
from mmm.training.fit import Diverged, fit
from mmm.training.run import begin
from spaces import SPACES

optuna.logging.set_verbosity(optuna.logging.ERROR)
METRICS = ("macro_f1", "unweighted_recall", "loss")
NUM_SEEDS = 3


def draw_settings(space: str, count: int) -> list[dict[str, Any]]:
    """Random settings of a space, then its known good points: parameters and the settings that the
    space makes of them.
    """
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    drawn = []
    for number in range(count + len(SPACES[space].known_good)):
        if number >= count:
            study.enqueue_trial(dict(SPACES[space].known_good[number - count]))
        trial = study.ask()
        settings = dict(SPACES[space].suggest(trial))
        drawn.append(
            {"params": dict(trial.params), "settings": settings, "is_known_good": number >= count}
        )
    return drawn


def smaller(manifest: Manifest, train_dialogues: int | None) -> Manifest:
    """The manifest with the first so many training dialogues; the others are sealed away with the
    test split.
    """
    names = list(
        dict.fromkeys(one.dialogue_id for one in manifest.utterances if one.split == "train")
    )[:train_dialogues]
    wanted = set(names)
    return dataclasses.replace(
        manifest,
        utterances=tuple(
            (
                dataclasses.replace(one, split="test")
                if one.split == "train" and one.dialogue_id not in wanted
                else one
            )
            for one in manifest.utterances
        ),
    )


_loaded: dict[tuple[str, int], Features] = {}


def record(job: dict[str, Any]) -> dict[str, Any]:
    """Train one setting with one seed to the end; its line of the recording."""
    torch.set_num_threads(1)
    settings = job["settings"]
    config = make_config({**settings, "epochs": job["epochs"], "seed": job["seed"]})
    key = config.features_key
    if key not in _loaded:
        manifest = smaller(
            read_manifest(job["manifest"], check_audio=False), job["train_dialogues"]
        )
        _loaded[key] = load_features(manifest, Path(job["features"]), *key)
    run = begin(config, _loaded[key], objective="macro_f1")
    line: dict[str, Any] = {
        "setting": job["setting"],
        "seed": job["seed"],
        "params": job["params"],
        "is_known_good": job["is_known_good"],
    }
    line["num_parameters"] = sum(parameter.numel() for parameter in run.model.parameters())
    line |= {name: [] for name in (*METRICS, "train_loss", "seconds")}
    try:
        for result in fit(run):
            for name in METRICS:
                line[name].append(round(result.metrics[name], 5))
            line["train_loss"].append(round(result.train_loss, 4))
            line["seconds"].append(round(result.cpu_seconds, 4))
    except Diverged as error:
        line["failure"] = str(error)
    return line


def recorded(path: Path) -> list[dict[str, Any]]:
    """The lines there are; a line torn by a crash is cut off."""
    if not path.is_file():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        path.write_bytes(whole)
    return [json.loads(line) for line in whole.splitlines()]


def encode(
    manifest: Manifest,
    features: Path,
    frame_rate: float,
    num_mels: int,
    width: int,
    max_tokens: int,
) -> None:
    speech = make_speech_encoder("fbank", frame_rate=frame_rate, num_mels=num_mels)
    text = make_text_encoder("char-ngram", width=width, max_tokens=max_tokens)
    for _ in encode_speech(manifest, features, speech, ["hidden_state", "extract_feature"]):
        pass
    for _ in encode_text(manifest, features, text, [1, 2, 3, 4, 5]):
        pass


def jobs(
    arguments: argparse.Namespace, manifest: Path, features: Path, done: set[tuple[int, int]]
) -> Iterator[dict[str, Any]]:
    for number, drawn in enumerate(draw_settings(arguments.space, arguments.settings)):
        for seed in range(
            1, (NUM_SEEDS if number < arguments.seeded or drawn["is_known_good"] else 1) + 1
        ):
            if (number, seed) not in done:
                yield {
                    "setting": number,
                    "seed": seed,
                    **drawn,
                    "epochs": arguments.epochs,
                    "manifest": str(manifest),
                    "features": str(features),
                    "train_dialogues": arguments.train_dialogues,
                }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("manifest", type=Path, nargs="?")
    parser.add_argument(
        "--demo", action="store_true", help="a generated corpus instead of a manifest"
    )
    parser.add_argument("--demo-sessions", type=int, default=12)
    parser.add_argument("--features", type=Path, help="folder to encode into [a temporary one]")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--space", default="full", choices=sorted(SPACES))
    parser.add_argument("--settings", type=int, default=270)
    parser.add_argument(
        "--seeded", type=int, default=42, help="settings that are trained with three seeds"
    )
    parser.add_argument("--epochs", type=int, default=27)
    parser.add_argument("--train-dialogues", type=int, help="training dialogues to use [all]")
    parser.add_argument("--frame-rate", type=float, default=3.125)
    parser.add_argument("--num-mels", type=int, default=40)
    parser.add_argument("--text-width", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=24)
    parser.add_argument("--workers", type=int, default=cpus_here())
    arguments = parser.parse_args()
    if arguments.demo == (arguments.manifest is not None):
        parser.error("expected a manifest, or --demo")
    with tempfile.TemporaryDirectory() as scratch:
        source = (
            make_demo_corpus(Path(scratch) / "demo", num_sessions=arguments.demo_sessions)
            if arguments.demo
            else arguments.manifest
        )
        features = arguments.features or Path(scratch) / "features"
        manifest = read_manifest(source)
        encode(
            manifest,
            features,
            arguments.frame_rate,
            arguments.num_mels,
            arguments.text_width,
            arguments.max_tokens,
        )
        lines = recorded(arguments.out)
        done = {(line["setting"], line["seed"]) for line in lines if "setting" in line}
        if not lines:
            options = {
                name: value
                for name, value in vars(arguments).items()
                if isinstance(value, (int, float, str, bool))
            }
            small = smaller(manifest, arguments.train_dialogues)
            count = {
                split: sum(one.split == split for one in small.utterances)
                for split in ("train", "dev")
            }
            about = {
                "about": {
                    **options,
                    "utterances": count,
                    "machine": platform.machine(),
                    "torch": torch.__version__,
                    "distributions": all_distributions(arguments.space),
                }
            }
            append(arguments.out, about)
        todo = list(jobs(arguments, source, features, done))
        print(f"{len(done)} runs recorded, {len(todo)} to go", flush=True)
        with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
            for number, line in enumerate(pool.imap_unordered(record, todo), start=1):
                append(arguments.out, line)
                best = max(line["macro_f1"], default=float("nan"))
                print(
                    f"{number}/{len(todo)} setting {line['setting']} seed {line['seed']}"
                    f" {line['params']['architecture']} {best:.4f} {sum(line['seconds']):.1f} s",
                    flush=True,
                )


def append(path: Path, line: dict[str, Any]) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def all_distributions(space: str) -> dict[str, str]:
    """Every parameter that a space's random settings have, with its distribution as Optuna's
    JSON.
    """
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    found: dict[str, str] = {}
    for _ in range(200):
        trial = study.ask()
        SPACES[space].suggest(trial)
        found |= {name: distribution_to_json(value) for name, value in trial.distributions.items()}
    return found


if __name__ == "__main__":
    sys.exit(main())
