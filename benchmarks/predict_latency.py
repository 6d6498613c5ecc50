"""How long `mmm predict` takes: its first answer from the start of the process, and later turns of
a dialogue.

    python benchmarks/predict_latency.py [--repeats 5] [--dialogues 6]

Bundles of two systems (context 3, built-in encoders with their default sizes) are trained for one
epoch on a demo corpus in a temporary folder; weights do not change the time. The systems take
turns, so that a busy moment meets both. The first answer is that of `mmm predict BUNDLE --audio
--text`, to its exit, files in the system's cache; a later one is from writing a line to `mmm
predict BUNDLE --jsonl` to reading its answer, speech from a wav file, the turns before in memory.
On the CPU.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mmm.audio.speech import SAMPLE_RATE_HZ, read_speech
from mmm.bundle.write import save_run_bundle
from mmm.corpora.generated.demo import make_demo_corpus
from mmm.encoders.extract import encode_speech, encode_text
from mmm.encoders.make import make_speech_encoder, make_text_encoder
from mmm.features.recipe import AUDIO_FEATURES
from mmm.manifest import Manifest, Utterance
from mmm.manifest_csv import read_manifest
from mmm.training.config import make_config
from mmm.training.features import load_features
from mmm.training.fit import fit
from mmm.training.run import begin

CONTEXT = 3
SYSTEMS = ("vanilla_concat", "mlp_mixer")
FIRST_S, LATER_MS = 5.0, 50.0  # what is promised


def make_bundles(folder: Path) -> tuple[Manifest, dict[str, Path]]:
    manifest = read_manifest(make_demo_corpus(folder / "corpus", num_sessions=6))
    features = folder / "features"
    for steps in (
        encode_speech(manifest, features, make_speech_encoder("fbank"), AUDIO_FEATURES),
        encode_text(manifest, features, make_text_encoder("char-ngram"), [CONTEXT]),
    ):
        for _ in steps:
            pass
    bundles = {}
    for name in SYSTEMS:
        config = make_config({"architecture": name, "context": CONTEXT, "epochs": 1})
        run = begin(config, load_features(manifest, features, config.audio_feature, CONTEXT))
        for _ in fit(run):
            pass
        bundles[name] = folder / name
        save_run_bundle(run, bundles[name], name=name)
    return manifest, bundles


def first_answer_s(bundle: Path, audio: Path, text: str) -> tuple[float, float]:
    """Seconds by the clock, and of CPU: on a busy machine only the second says something."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    command = [
        sys.executable,
        "-m",
        "mmm",
        "predict",
        str(bundle),
        "--audio",
        str(audio),
        "--text",
        text,
        "--json",
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def later_answers_ms(
    bundle: Path, manifest: Manifest, dialogues: list[list[Utterance]]
) -> list[float]:
    """Milliseconds from each line to its answer, the first of the process left out."""
    found = []
    command = [sys.executable, "-m", "mmm", "predict", str(bundle), "--jsonl"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for turns in dialogues:
            for turn in turns:
                line = {
                    "audio": str(manifest.audio_path(turn)),
                    "text": turn.text,
                    "dialogue": turn.dialogue_id,
                }
                started = time.perf_counter()
                process.stdin.write(json.dumps(line) + "\n")
                process.stdin.flush()
                answer = json.loads(process.stdout.readline())
                found.append((time.perf_counter() - started) * 1000)
                assert "error" not in answer, answer
        process.stdin.close()
    return found[1:]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dialogues", type=int, default=6)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        manifest, bundles = make_bundles(Path(temporary))
        by_dialogue: dict[str, list[Utterance]] = {}
        for utterance in sorted(manifest.utterances, key=lambda u: (u.dialogue_id, u.turn)):
            by_dialogue.setdefault(utterance.dialogue_id, []).append(utterance)
        dialogues = list(by_dialogue.values())[: options.dialogues]
        audio, text = manifest.audio_path(dialogues[0][0]), dialogues[0][0].text
        first: dict[str, list[tuple[float, float]]] = {name: [] for name in SYSTEMS}
        later: dict[str, list[float]] = {name: [] for name in SYSTEMS}
        for _ in range(options.repeats):
            for name, bundle in bundles.items():
                first[name].append(first_answer_s(bundle, audio, text))
                later[name] += later_answers_ms(bundle, manifest, dialogues)
        seconds = statistics.median(
            len(read_speech(manifest.audio_path(u))) / SAMPLE_RATE_HZ for u in manifest.utterances
        )
    print(f"median utterance {seconds:.1f} s of speech, {options.repeats} starts a system")
    print(
        f"{'system':<16} {'first answer':>13} {'of CPU':>8} {'slowest':>8} {'later turn':>12}"
        f" {'95 %':>9} {'turns':>6}"
    )
    kept = True
    for name in SYSTEMS:
        clock, cpu = zip(*first[name], strict=True)
        worst = statistics.quantiles(later[name], n=20)[-1]
        print(
            f"{name:<16} {statistics.median(clock):>11.2f} s {statistics.median(cpu):>6.2f} s"
            f" {max(clock):>6.2f} s {statistics.median(later[name]):>9.1f} ms {worst:>6.1f} ms"
            f" {len(later[name]):>6}"
        )
        kept = (
            kept
            and statistics.median(clock) < FIRST_S
            and statistics.median(later[name]) < LATER_MS
        )
    print(
        f"first answer under {FIRST_S:g} s and later turns under {LATER_MS:g} ms (medians):"
        f" {'yes' if kept else 'no'}"
    )


if __name__ == "__main__":
    main()
