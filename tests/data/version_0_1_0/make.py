"""What made the files beside it, with version 0.1.0 alone. See README.md: they are never made
again.

PYTHONPATH=CHECKOUT python make.py OUT
"""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile
from mmm.batches import load_features
from mmm.checkpoint import checkpoint_bytes
from mmm.config import make_config
from mmm.run import begin
from mmm.train import fit
from search.history import Trial
from search.registry import example_input

from mmm.bundle import load_bundle
from mmm.manifest import read_manifest
from mmm.predict import Predictor
from search.ledger import read_history
from search.serving import ServedBundle

HERE = Path("/srv/mmm-example")  # the ledger keeps absolute paths
SWEEP = HERE / "runs" / "first"
WORDS = {"neutral": "well then", "happy": "how lovely", "sad": "oh dear"}
COLUMNS = (
    "utterance_id",
    "dialogue_id",
    "turn",
    "session",
    "speaker",
    "text",
    "audio",
    "emotion",
    "split",
)
CONCAT = ("vanilla_concat", "three_way_concat")


def write_corpus() -> None:
    """12 clips that serve 48 utterances of 12 dialogues."""
    (HERE / "audio").mkdir(parents=True)
    draw = np.random.default_rng(1)
    time_s = np.arange(1600) / 8000
    for clip in range(12):
        tone = 0.2 * np.sin(2 * np.pi * (300 + 250 * (clip % 3) + 20 * (clip // 3)) * time_s)
        soundfile.write(
            HERE / "audio" / f"{clip:02}.wav", tone + draw.normal(scale=0.05, size=1600), 8000
        )
    rows = []
    for number in range(48):
        dialogue, turn = divmod(number, 4)
        emotion = draw.integers(3)
        name = list(WORDS)[emotion]
        said = WORDS[name if draw.random() < 0.7 else list(WORDS)[draw.integers(3)]]
        clip = 3 * draw.integers(4) + (emotion if draw.random() < 0.7 else draw.integers(3))
        split = "train" if dialogue < 7 else "dev" if dialogue < 10 else "test"
        rows.append(
            (
                f"u{number:02}",
                f"d{dialogue:02}",
                turn,
                f"s{dialogue}",
                f"speaker{turn % 2}",
                f"{said} {number}",
                f"audio/{clip:02}.wav",
                name,
                split,
            )
        )
    with open(HERE / "manifest.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])


def run(module: str, *arguments: object) -> None:
    print("$", module, *arguments, flush=True)
    subprocess.run([sys.executable, "-m", module, *map(str, arguments)], cwd=HERE, check=True)


def sweeps() -> None:
    """A finished sweep over `quick`, and one over space.py that is stopped in its last trial."""
    data = ("manifest.csv", "--features", "features", "--workers", 2, "--precision", "float32")
    run(
        "search",
        "run",
        "quick",
        *data,
        "--name",
        "quick",
        "--trials",
        26,
        "--epochs",
        3,
        "--first-rung",
        1,
        "--keep",
        1,
    )
    run(
        "search",
        "run",
        "space.py:suggest",
        *data,
        "--name",
        "first",
        "--trials",
        12,
        "--epochs",
        10,
        "--first-rung",
        3,
        "--factor",
        2,
        "--keep",
        8,
    )
    (HERE / "point.json").write_text(
        json.dumps({"architecture": "mlp_mixer", "context": 1, "lr": 0.1})
    )
    more: tuple[object, ...] = ("--trials", 13, "--enqueue", "point.json")
    unfinished: list[Trial] = []
    while (
        not unfinished or unfinished[0].epochs[-1]["epoch"] < 4
    ):  # until there is a checkpoint and one before it
        used_s = read_history(SWEEP / "ledger.sqlite").trained_s
        run("search", "resume", "first", "--compute-budget", f"{used_s + 0.001:.6f}s", *more)
        trials = list(read_history(SWEEP / "ledger.sqlite").trials.values())
        unfinished, more = [trial for trial in trials if trial.state == "running"], ()
        assert [trial.number for trial in unfinished] == [12]


def bundles() -> None:
    trials = [
        trial
        for trial in read_history(SWEEP / "ledger.sqlite").ranked("macro_f1")
        if trial.state != "running"
    ]
    concat = next(trial for trial in trials if trial.settings["architecture"] in CONCAT)
    sequence = next(trial for trial in trials if trial.settings["architecture"] not in CONCAT)
    run(
        "search",
        "export",
        "first",
        "--trial",
        concat.number,
        "-o",
        "bundle-concat",
        "--register",
        "emotion",
    )
    run("search", "export", "first", "--trial", sequence.number, "-o", "bundle-sequence")
    run("mmm", "test", "bundle-sequence", "manifest.csv", "--features", "features")


def checkpoint() -> dict[str, object]:
    """A plain run after 3 of its 6 epochs; its settings, and what each epoch came to."""
    config = make_config(
        {
            "architecture": "mlp_mixer",
            "width": 8,
            "classifier_hidden": 8,
            "batch_size": 8,
            "lr": 0.01,
            "epochs": 6,
        }
    )
    plain = begin(
        config,
        load_features(read_manifest(HERE / "manifest.csv"), HERE / "features", "hidden_state", 1),
    )
    epochs = []
    for result in fit(plain):
        epochs.append(
            {"epoch": result.epoch, "train_loss": result.train_loss, "metrics": result.metrics}
        )
        if result.epoch == 3:
            (HERE / "checkpoint.safetensors").write_bytes(checkpoint_bytes(plain))
    return {"settings": config.params(), "epochs": epochs}


def main() -> None:
    out = Path(sys.argv[1])
    shutil.rmtree(HERE, ignore_errors=True)
    write_corpus()
    shutil.copy(Path(__file__).parent / "space.py", HERE)
    run(
        "mmm",
        "encode",
        "manifest.csv",
        "--features",
        "features",
        "--context",
        "1,2,3",
        "--audio-feature",
        "hidden_state",
        "--frame-rate",
        10,
        "--num-mels",
        8,
        "--text-width",
        16,
    )
    sweeps()
    bundles()
    clip, before = HERE / "audio" / "01.wav", HERE / "audio" / "04.wav"
    expected: dict[str, object] = {"plain": checkpoint()}
    for name in ("concat", "sequence"):
        expected[name] = Predictor(load_bundle(HERE / f"bundle-{name}")).predict(
            clip, "how lovely", [(before, "oh dear")]
        )
    expected["registered"] = (
        ServedBundle(HERE / "bundle-concat").predict(example_input()).to_dict("records")[0]
    )

    for name in ("manifest.csv", "checkpoint.safetensors"):
        shutil.copy(HERE / name, out)
    for name in ("audio", "features", "bundle-concat", "bundle-sequence", "runs/first/trials"):
        shutil.copytree(HERE / name, out / name, ignore=shutil.ignore_patterns(".lock"))
    (model,) = (HERE / "runs").rglob("MLmodel")
    shutil.copytree(model.parent, out / "registered-model")
    for name in ("first", "quick"):
        (out / "runs" / name).mkdir(exist_ok=True)
        shutil.copy(HERE / "runs" / name / "ledger.sqlite", out / "runs" / name)
    # What the same version makes of the rest of the unfinished trial.
    run("search", "resume", "first", "--compute-budget", "1h")
    trial = read_history(SWEEP / "ledger.sqlite").trials[12]
    expected["finished"] = [
        {
            "epoch": entry["epoch"],
            "train_loss": entry["train_loss"],
            "metrics": trial.metrics(entry["epoch"]),
        }
        for entry in trial.epochs
    ]
    (out / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
