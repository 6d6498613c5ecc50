"""Pooling and layers of the pooled systems: mean, mean and deviation, attention; one layer or a
learned mix.

    python -m benchmarks.pooling manifest.csv --features DIR --speech NAME... --text NAME

A row a system, speech encoder, pooling and mix: the mean of validation macro F1's best epoch over
seeds, the seeds, and CPU seconds of a training, with the defaults of `mmm train`, K = 1. The best
epoch is chosen on the split that is shown, alike for every row.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch

from mmm.features.named import encoders_in
from mmm.manifest_csv import read_manifest
from mmm.training.config import make_config, new_params
from mmm.training.features import load_features
from mmm.training.fit import fit
from mmm.training.run import begin

VARIANTS = (
    ("mean", "one"),
    ("mean_std", "one"),
    ("attentive", "one"),
    ("mean", "learned"),
    ("mean_std", "learned"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--speech", nargs="+", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--architectures", nargs="+", default=["three_way_concat", "gated_fusion"])
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    manifest = read_manifest(given.manifest, check_audio=False)
    layered = {one.name for one in encoders_in(given.features) if one.layers is not None}
    print("| system | speech | pooling | layers | macro F1 | seeds | s |")
    print("| --- | --- | --- | --- | ---: | --- | ---: |")
    for architecture in given.architectures:
        for speech in given.speech:
            for pooling, mix in VARIANTS:
                if mix != "one" and speech not in layered:
                    continue
                scores, started = [], time.process_time()
                for seed in range(1, given.seeds + 1):
                    chosen = {"speech": speech, "text": given.text, "context": 1, "epochs": 20}
                    varied = {"pooling": pooling, "layer_mix": mix, "seed": seed}
                    config = make_config({**new_params(architecture), **chosen, **varied})
                    features = load_features(manifest, given.features, *config.features_key)
                    run = begin(config, features)
                    for _ in fit(run):
                        pass
                    scores.append(float(run.best_metrics["macro_f1"]))
                seconds = (time.process_time() - started) / given.seeds
                seeds = ", ".join(f"{score:.3f}" for score in scores)
                print(
                    f"| {architecture} | {speech} | {pooling} | {mix} |"
                    f" {statistics.mean(scores):.3f} | {seeds} | {seconds:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
