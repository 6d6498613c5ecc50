"""What a shorter window of Whisper changes: frames, pooled vectors, a linear system on them, time.

    python -m benchmarks.whisper_padding manifest.csv --encoder FOLDER --layer 4

Whisper was trained on 30 s, so every clip is padded to that with silence; `--whisper-padding`
leaves so many seconds of it. A row a padding, against the 30 s: the median and the largest over
utterances of |x - y| / |x|, where x is all frames of an utterance (as a store keeps them, float16),
or its pooled vector, as it is and with columns scaled to mean 0 and deviation 1; validation macro
F1 of logistic regression on the pooled vectors of speech, tuned as `mmm baselines` does; hours of
speech an hour of one core, by the processor's clock: other work on the machine does not count.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from mmm.encoders import Running
from mmm.encoders.extract import encode_speech, encode_text
from mmm.encoders.jobs import run_here
from mmm.encoders.make import make_speech_encoder, make_text_encoder
from mmm.features.named import find_store
from mmm.features.store import FeatureStore
from mmm.manifest_csv import read_manifest
from mmm.training.baselines import fitted, tuned


def differences(one: FeatureStore, other: FeatureStore) -> tuple[np.ndarray, ...]:
    """Of frames, of pooled vectors, of those with columns scaled: relative, of every utterance."""
    ends = list(zip(one.offsets[:-1], one.offsets[1:], strict=True))
    assert np.array_equal(one.keys, other.keys) and np.array_equal(one.offsets, other.offsets)

    def relative(x: np.ndarray, y: np.ndarray) -> float:
        x, y = x.astype(np.float32), y.astype(np.float32)
        return float(np.linalg.norm(x - y) / np.linalg.norm(x))

    frames = [relative(one.values[start:end], other.values[start:end]) for start, end in ends]
    pooled = [relative(x, y) for x, y in zip(one.pooled, other.pooled, strict=True)]
    before, after = one.pooled.astype(np.float32), other.pooled.astype(np.float32)
    mean, deviation = before.mean(axis=0), before.std(axis=0)
    scaled = zip((before - mean) / deviation, (after - mean) / deviation, strict=True)
    return np.array(frames), np.array(pooled), np.array([relative(x, y) for x, y in scaled])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--layer", default="last")
    parser.add_argument("--padding", nargs="+", type=float, default=[10, 5, 2, 1, 0])
    given = parser.parse_args()
    manifest = read_manifest(given.manifest)
    with tempfile.TemporaryDirectory() as place:
        stores: dict[float, FeatureStore] = {}
        print("| padding | frames | pooled | pooled, scaled | macro F1 | hours an hour |")
        print("| ---: | ---: | ---: | ---: | ---: | ---: |")
        for padding in [30.0, *given.padding]:
            folder = Path(place, f"{padding:g}")
            encoder = make_speech_encoder(
                given.encoder, layer=given.layer, running=Running(padding_s=padding)
            )
            start = time.process_time()
            steps = encode_speech(manifest, folder, encoder, ["hidden_state"], run=run_here(1))
            *_, last = steps
            seconds = time.process_time() - start
            text = make_text_encoder("char-ngram", width=16)
            list(encode_text(manifest, folder, text, [1]))  # a run needs some
            stores[padding] = find_store(folder, "audio", feature="hidden_state")
            *_, (_, _, best) = tuned(manifest, folder, "macro_f1", {"inputs": "speech"})
            score = fitted(best, manifest, folder, "macro_f1").best_metrics["macro_f1"]
            told = []
            for found in differences(stores[30.0], stores[padding]):
                told.append(f"{np.median(found):.2g} ({found.max():.2g})" if found.any() else "0")
            row = [f"{padding:g} s", *told, f"{score:.4f}", f"{last.seconds / seconds:.1f}"]
            print(f"| {' | '.join(row)} |", flush=True)
            if padding != 30.0:
                shutil.rmtree(folder)


if __name__ == "__main__":
    main()
