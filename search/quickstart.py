"""The main job on an embedded default: a demo corpus, its features, a sweep over all systems, a
bundle, a prediction.
"""

import os
import shlex
import shutil
import sys
from pathlib import Path

from rich.progress import track

from mmm.bundle.read import load_bundle
from mmm.console import PlainConsole, progress_of
from mmm.corpora.generated.demo import make_demo_corpus
from mmm.encoders.extract import encode_speech, encode_text
from mmm.encoders.make import make_speech_encoder, make_text_encoder
from mmm.manifest_csv import read_manifest
from mmm.predict.predictor import Predictor
from search.ledger.spec import SweepSpec
from search.plan.checks import default_workers
from search.session import command_line, start

NAME = "quickstart"
TRIALS, EPOCHS = 24, 9
# Small enough for two cores, large enough that speech, text and context each matter.
FRAME_RATE_HZ, NUM_MELS, TEXT_WIDTH = 10.0, 32, 64


def free_name(runs: Path) -> str:
    """`quickstart`, or the first of quickstart-2, quickstart-3, ... that no sweep has."""
    number = 1
    while (
        runs / (name := NAME if number == 1 else f"{NAME}-{number}") / "ledger.sqlite"
    ).is_file():
        number += 1
    return name


def quickstart(runs: Path, console: PlainConsole, workers: int | None = None) -> None:
    """Run the whole way and say what to type next."""
    corpus = runs / "demo-corpus"
    features = runs / "demo-features"
    manifest_path = corpus / "manifest.csv"
    # The corpus of an earlier quickstart is the same, and its features need not be made again.
    if not (corpus / "demo.json").is_file():
        with console.status("generating a demo corpus"):
            make_demo_corpus(corpus)
    manifest = read_manifest(manifest_path)
    console.say(f"demo corpus: {len(manifest.utterances)} utterances in {corpus}")
    total = len(manifest.utterances)
    speech = make_speech_encoder("fbank", frame_rate=FRAME_RATE_HZ, num_mels=NUM_MELS)
    text = make_text_encoder("char-ngram", width=TEXT_WIDTH)
    num_clips = len({utterance.audio for utterance in manifest.utterances})
    tasks = (
        ("speech", encode_speech(manifest, features, speech, ["hidden_state"]), num_clips),
        ("text", encode_text(manifest, features, text, [1, 2, 3]), 3 * total),
    )
    for what, steps, count in tasks:
        for _ in track(steps, f"encoding {what}", total=count, console=progress_of(console)):
            pass
    spec = SweepSpec(
        name=free_name(runs),
        space="quick",
        manifest=str(manifest_path.resolve()),
        features=str(features.resolve()),
        trials=TRIALS,
        epochs=EPOCHS,
        workers=workers or default_workers(0.0),
        command=command_line(),
        input_scaling="standard",
    )
    start(spec, runs, console)
    bundle = load_bundle(runs / spec.name / "bundle")
    chosen = next(
        u
        for u in (manifest.utterances[row] for row in manifest.rows("dev"))
        if u.turn >= 2 and u.emotions != ("neutral",)
    )
    row = manifest.utterances.index(chosen)
    earlier = [manifest.utterances[index] for index in manifest.history(row, 3)[:0:-1]]
    found = Predictor(bundle).predict(
        manifest.audio_path(chosen),
        chosen.text,
        [(manifest.audio_path(u), u.text) for u in earlier],
    )
    ranked = sorted(found.items(), key=lambda pair: -pair[1])[:3]
    console.say(
        f"\npredicting {chosen.utterance_id} (said with: {chosen.emotions[0]}): {chosen.text!r}"
    )
    console.say(
        "  " + ", ".join(f"{name} {probability:.3f}" for name, probability in ranked) + "\n"
    )
    # After `make sweep` nothing has put our commands on the PATH.
    home = "" if shutil.which("mmm-search") else f"{os.path.relpath(Path(sys.executable).parent)}/"
    option = "" if runs == Path("runs") else f" --runs {shlex.quote(str(runs))}"
    predict = [
        f"{home}mmm",
        "predict",
        str(runs / spec.name / "bundle"),
        "--audio",
        str(manifest.audio_path(chosen)),
        "--text",
        chosen.text,
    ]
    for turn in earlier:
        predict += ["--history", turn.text, "--history-audio", str(manifest.audio_path(turn))]
    for title, command in (
        ("compare the trials in MLflow's pages", f"{home}mmm-search ui{option}"),
        ("the same prediction again", shlex.join(predict)),
        ("your own corpus", f"{home}mmm prepare csv your.csv -o manifest.csv"),
        ("", f"{home}mmm encode manifest.csv --features features"),
        (
            "",
            (
                f"{home}mmm-search run full manifest.csv --features features --name first --trials"
                f" 60 --epochs 27{option}"
            ),
        ),
    ):
        console.print(f"{title}:" if title else "", end="\n" if title else "", highlight=False)
        console.say(f"  {command}")
