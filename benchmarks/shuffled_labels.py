"""Whether a sweep and its confirmation find what is there, and nothing where nothing is: on the
demo corpus, where speech, text and the two turns before are needed by construction, and on the same
corpus with its labels shuffled.

    OMP_NUM_THREADS=1 nice -n 10 python -m benchmarks.shuffled_labels
    OMP_NUM_THREADS=1 nice -n 10 python -m benchmarks.shuffled_labels --sweeps 3 --skip-true

With shuffled labels the verdict has to be that nothing beats the baselines, in at least 18 of 20
sweeps: each beats one by luck in less than a twentieth of the repeats, where all is as it says.
"""

import argparse
import csv
import random
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmm.console import PlainConsole, console
from mmm.corpora.generated.demo import make_demo_corpus
from mmm.encoders.extract import encode_speech, encode_text
from mmm.encoders.make import make_speech_encoder, make_text_encoder
from mmm.manifest_csv import read_manifest
from search.confirm.result import Confirmation
from search.confirm.run import Asked, confirm
from search.confirm.words import sentences
from search.ledger.events import read_history
from search.ledger.spec import SweepSpec
from search.session import start

CONTEXTS = (1, 2, 3, 4)
NOTHING = "Nothing beats the baselines"
_SPACE = """
def suggest(trial):
    return {
        "architecture": trial.suggest_categorical(
            "architecture", ["vanilla_concat", "mlp_mixer", "gated_fusion"]
        ),
        "inputs": trial.suggest_categorical("inputs", ["both", "speech", "text"]),
        "context": trial.suggest_int("context", 1, 4),
        "lr": trial.suggest_float("lr", 3e-4, 3e-3, log=True),
        "dropout": trial.suggest_float("dropout", 0.0, 0.5),
        "width": 64,
        "batch_size": 32,
    }
"""


@dataclass(frozen=True)
class Corpus:
    manifest: Path
    features: Path


def make_corpus(folder: Path, contexts: Sequence[int] = CONTEXTS) -> Corpus:
    """The demo corpus and small features of it."""
    corpus = Corpus(make_demo_corpus(folder / "demo"), folder / "features")
    manifest = read_manifest(corpus.manifest)
    speech = make_speech_encoder("fbank", frame_rate=10.0, num_mels=32)
    text = make_text_encoder("char-ngram", width=64)
    for _ in encode_speech(manifest, corpus.features, speech, ["hidden_state"]):
        pass
    for _ in encode_text(manifest, corpus.features, text, [*contexts]):
        pass
    return corpus


def shuffled(corpus: Corpus, seed: int) -> Corpus:
    """The same with the labels of each split dealt anew to its utterances."""
    with open(corpus.manifest, newline="", encoding="utf-8") as file:
        rows = [*csv.DictReader(file)]
    rng = random.Random(seed)
    for split in {row["split"] for row in rows}:
        places = [place for place, row in enumerate(rows) if row["split"] == split]
        labels = [rows[place]["emotion"] for place in places]
        rng.shuffle(labels)
        for place, label in zip(places, labels, strict=True):
            rows[place]["emotion"] = label
    path = corpus.manifest.with_name(f"shuffled-{seed}.csv")
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return Corpus(path, corpus.features)


def confirmed(
    corpus: Corpus, runs: Path, name: str, *, trials: int, epochs: int, top: int, seeds: int
) -> Confirmation:
    """A serial sweep and its confirmation."""
    runs.mkdir(exist_ok=True)
    (space := runs / "space.py").write_text(_SPACE, encoding="utf-8")
    spec = SweepSpec(
        name=name,
        space=f"{space}:suggest",
        manifest=str(corpus.manifest.resolve()),
        features=str(corpus.features.resolve()),
        trials=trials,
        epochs=epochs,
        workers=1,
        first_rung=min(3, epochs),
        input_scaling="standard",
        system_metrics=False,
    )
    quiet = PlainConsole(quiet=True)
    start(spec, runs, quiet, serial=True)
    found = confirm(runs, name, Asked(top, seeds), quiet, {}, serial=True)
    assert found is not None
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sweeps", type=int, default=20, help="With shuffled labels.")
    parser.add_argument("--trials", type=int, default=40, help="Of the sweep with true labels.")
    parser.add_argument("--skip-true", action="store_true", help="Shuffled labels alone.")
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        corpus, runs = make_corpus(Path(folder)), Path(folder) / "runs"
        if not options.skip_true:
            found = confirmed(corpus, runs, "true", trials=options.trials, epochs=9, top=3, seeds=5)
            console.say(" ".join(sentences(found)))
            history = read_history(runs / "true-confirm" / "ledger.sqlite")
            leader = next(
                trial
                for trial in history.trials.values()
                if trial.params["finalist"] == found.leader.name
            )
            of = leader.settings
            console.say(
                f"the confirmed winner uses inputs {of['inputs']} and K = {of['context']}"
                f" ({time.monotonic() - started:.0f} s)"
            )
        nothing = 0
        for number in range(options.sweeps):
            name = f"shuffled-{number}"
            found = confirmed(
                shuffled(corpus, number), runs, name, trials=6, epochs=4, top=2, seeds=3
            )
            told = " ".join(sentences(found))
            nothing += NOTHING in told
            verdict = next(one for one in sentences(found) if "aselines" in one)
            console.say(f"{name}: {verdict} ({time.monotonic() - started:.0f} s)")
            for path in (runs / name, runs / f"{name}-confirm"):
                shutil.rmtree(path)
        console.say(
            f"{NOTHING.lower()} in {nothing} of {options.sweeps} sweeps with shuffled labels"
        )


if __name__ == "__main__":
    main()
