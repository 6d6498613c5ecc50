"""`mmm encode` against one file at a time in float32, on speech of KEMDy20's durations; a random
Wav2Vec2.

    python benchmarks/encode.py --model base --seconds 60 --rounds 3
    python benchmarks/encode.py --model tiny --seconds 300 --rounds 3
    python benchmarks/encode.py --reencode 20000          # the second run of `mmm encode`, which
                                                          finds everything there
    python benchmarks/encode.py --memory 500,2000         # peak memory of `mmm encode` at two sizes
                                                          of corpus

All ways run in one process by turns, and the medians are compared with the first one's:
  one file at a time   float32, all cores for each file: what a plain loop over a corpus does
  side by side         float32, a file on each core: what `mmm encode` does on a CPU by default
  batches              float32, padded batches under a budget of seconds, a batch on each core
  bf16                 side by side under autocast; slower where the CPU has no bf16 instructions
"""

import argparse
import itertools
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from mmm.device import cpus_here, resolve_precision
from mmm.encoders import Running
from mmm.encoders.huggingface_speech import HuggingFaceSpeech
from mmm.encoders.jobs import SpeechJob, plan_batches, run_here
from mmm.encoders.make import make_speech_encoder

RATE_HZ = 16_000
FEATURES = ("hidden_state", "extract_feature")
MODELS = {
    "tiny": Wav2Vec2Config(
        hidden_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=192,
        conv_dim=(64,) * 7,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
    ),
    "base": Wav2Vec2Config(
        feat_extract_norm="layer", do_stable_layer_norm=True
    ),  # layer norm: may be padded
}


def durations(rng: np.random.Generator, number: int) -> np.ndarray:
    return np.clip(0.6 + rng.gamma(1.3, 4.05, number), 0.67, 35.2)


def write_wavs(folder: Path, seconds: np.ndarray, rng: np.random.Generator) -> list[Path]:
    paths = []
    for number, length in enumerate(seconds):
        paths.append(folder / f"{number:06}.wav")
        soundfile.write(
            paths[-1], rng.normal(0, 0.1, int(length * RATE_HZ)), RATE_HZ, subtype="PCM_16"
        )
    return paths


def padding_waste(lengths: Sequence[float], batches: Sequence[Sequence[int]]) -> float:
    """The share of what is computed that is padding."""
    padded = sum(max(lengths[index] for index in batch) * len(batch) for batch in batches)
    return 1 - sum(lengths[index] for batch in batches for index in batch) / padded


def compare(model: str, total_s: float, rounds: int, budget_s: float) -> None:
    rng = np.random.default_rng(1)
    seconds: list[float] = []
    while sum(seconds) < total_s:
        seconds += durations(rng, 1).tolist()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_wavs(folder, np.asarray(seconds), rng)
        torch.manual_seed(0)
        Wav2Vec2Model(MODELS[model]).save_pretrained(folder / "model")
        Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder / "model")
        encoders = {
            precision: make_speech_encoder(
                str(folder / "model"), running=Running(precision=precision)
            )
            for precision in ("float32", "bf16")
        }

        def loop() -> None:
            job = [SpeechJob((path,), (path.name,), FEATURES) for path in paths]
            for one in job:
                one.run(encoders["float32"])

        def ours(precision: str, budget: float) -> Callable[[], None]:
            batches = plan_batches(seconds, budget, "masked")
            jobs = [
                SpeechJob(
                    tuple(paths[i] for i in batch), tuple(paths[i].name for i in batch), FEATURES
                )
                for batch in batches
            ]

            def run() -> None:
                for _ in run_here(cpus_here())(encoders[precision], iter(enumerate(jobs))):
                    pass

            return run

        ways = {
            "one file at a time": loop,
            "side by side": ours("float32", 0.0),
            f"batches of {budget_s:g} s": ours("float32", budget_s),
            "bf16": ours("bf16", 0.0),
        }
        torch.set_num_threads(cpus_here())
        took: dict[str, list[float]] = {way: [] for way in ways}
        for encoder in encoders.values():
            encoder.encode(np.zeros(RATE_HZ, dtype=np.float32), FEATURES)
        for turn in range(rounds):
            order = list(ways) if turn % 2 == 0 else list(ways)[::-1]
            for way in order:
                started = time.perf_counter()
                ways[way]()
                took[way].append(time.perf_counter() - started)
    whole = sum(seconds)
    print(
        f"{model} Wav2Vec2, {len(seconds)} files, {whole:.0f} s of speech, {cpus_here()}"
        f" cores, {rounds} rounds by turns; --precision auto is {resolve_precision('auto', 'cpu')}"
        " here"
    )
    first = statistics.median(took["one file at a time"])
    for way, times in took.items():
        median = statistics.median(times)
        print(
            f"  {way:<20} {median:8.2f} s  {whole / median:8.1f} audio hours/h "
            f" {first / median:5.2f} times  ({min(times):.2f} to {max(times):.2f})"
        )
    many = durations(rng, 13_462).tolist()
    print("padding, of what is computed, at 13,462 utterances of these durations:")
    for budget in (0.0, 30.0, budget_s, 120.0, 300.0):
        batches = plan_batches(many, budget, "masked")
        print(
            f"  batches of {budget:>5g} s: {100 * padding_waste(many, batches):5.2f} % in"
            f" {len(batches)} batches"
        )
    encoder = encoders["float32"]
    assert isinstance(encoder, HuggingFaceSpeech)
    print("disk (by arithmetic on these durations: frames x width x 2 bytes, hidden_state):")
    for number in (13_462, 100_000):
        frames = (
            sum(encoder.num_frames(int(s * RATE_HZ), "hidden_state") for s in many)
            * number
            / len(many)
        )
        print(
            f"  {number:>7,} utterances: {frames * encoder.width('hidden_state') * 2 / 1e9:.2f} GB"
        )


def write_corpus(folder: Path, number: int, *, empty_audio: bool) -> Path:
    """A manifest of `number` utterances in dialogues of ten."""
    rng = np.random.default_rng(2)
    (folder / "wav").mkdir(parents=True)
    seconds = np.full(number, 0.1) if empty_audio else durations(rng, number)
    write_wavs(folder / "wav", seconds, rng)
    rows = ["utterance_id,dialogue_id,turn,session,speaker,text,audio,emotion,split"]
    for i in range(number):
        split, label = ("train", "dev")[i // 10 % 10 == 0], ("neutral", "happy")[i % 3 == 0]
        rows.append(
            f"u{i},d{i // 10},{i % 10},s{i // 1000},p{i % 2},turn number"
            f" {i},wav/{i:06}.wav,{label},{split}"
        )
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder / "manifest.csv"


def encode(manifest: Path) -> tuple[float, float]:
    """Seconds and peak memory in MB of `mmm encode` in a process of its own."""
    started = time.perf_counter()
    words = [
        sys.executable,
        "-c",
        (
            "import resource, sys, mmm.cli.app\nsys.argv[0] = 'mmm'\ntry:\n   "
            " mmm.cli.app.main()\nfinally:\n    print('peak',"
            " resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        ),
    ]
    done = subprocess.run(
        [*words, "encode", str(manifest), "--features", str(manifest.parent / "features")],
        capture_output=True,
        text=True,
        check=True,
    )
    return time.perf_counter() - started, int(done.stdout.split()[-1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, default="base")
    parser.add_argument("--seconds", type=float, default=60.0, help="speech to encode")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-seconds", type=float, default=60.0)
    parser.add_argument("--reencode", type=int, help="utterances")
    parser.add_argument("--memory", help="sizes of corpus, divided by commas")
    options = parser.parse_args()
    if options.reencode:
        with tempfile.TemporaryDirectory() as name:
            manifest = write_corpus(Path(name) / "corpus", options.reencode, empty_audio=True)
            first, _ = encode(manifest)
            again = [encode(manifest)[0] for _ in range(3)]
        print(
            f"{options.reencode:,} utterances, built-in encoders, five contexts: {first:.1f} s,"
            f" again {statistics.median(again):.2f} s ({min(again):.2f} to {max(again):.2f}),"
            " starting Python included"
        )
    elif options.memory:
        found = []
        for number in map(int, options.memory.split(",")):
            with tempfile.TemporaryDirectory() as name:
                found.append(
                    (
                        number,
                        *encode(write_corpus(Path(name) / "corpus", number, empty_audio=False)),
                    )
                )
            print(
                f"{number:>7,} utterances: {found[-1][1]:6.1f} s, peak memory"
                f" {found[-1][2]:6.0f} MB"
            )
        for (n, _, one), (m, _, other) in itertools.pairwise(found):
            each = (other - one) / (m - n)
            print(
                f"{1e3 * each:.1f} kB an utterance; by extrapolation"
                f" {other + each * (100_000 - m):.0f} MB at 100,000"
            )
    else:
        compare(options.model, options.seconds, options.rounds, options.batch_seconds)
    print(f"(this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB)")


if __name__ == "__main__":
    main()
