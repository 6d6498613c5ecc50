"""What speech, text and context are each worth on the demo corpus: validation macro F1 with and
without them.

    OMP_NUM_THREADS=1 python benchmarks/demo_ablation.py
    OMP_NUM_THREADS=1 python benchmarks/demo_ablation.py --scripts 6 --architectures vanilla_concat
    (KEMDy20's shape and size)

Makes the corpus in a temporary folder, encodes it with the built-in encoders and trains each system
with the same settings but for what is left out; the mean over the seeds of the best epoch's score.
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path

from mmm.corpora.generated.demo import make_demo_corpus
from mmm.corpora.generated.kemdy20 import make_kemdy20_demo
from mmm.corpora.kemdy20 import prepare_kemdy20
from mmm.corpora.write import write_prepared
from mmm.encoders.extract import encode_speech, encode_text
from mmm.encoders.make import make_speech_encoder, make_text_encoder
from mmm.manifest import Manifest
from mmm.manifest_csv import read_manifest
from mmm.training.config import TrainConfig, make_config
from mmm.training.features import load_features
from mmm.training.fit import fit
from mmm.training.run import begin

FRAME_RATE_HZ = 10.0
SETTINGS = {
    "epochs": 9,
    "batch_size": 32,
    "lr": 1e-3,
    "width": 128,
    "classifier_hidden": 128,
    "dropout": 0.2,
}
ABLATIONS = {
    "full": {},
    "no speech": {"inputs": "text"},
    "no text": {"inputs": "speech"},
    "no context": {"context": 1},
}


def make_corpus(folder: Path, num_scripts: int, seed: int) -> Manifest:
    """The small demo corpus, or with scripts the one in KEMDy20's layout, with its 40 sessions."""
    if not num_scripts:
        return read_manifest(make_demo_corpus(folder, seed=seed))
    for _ in make_kemdy20_demo(folder, num_scripts=num_scripts, seed=seed):
        pass
    write_prepared(prepare_kemdy20(folder), folder / "manifest.csv")
    return read_manifest(folder / "manifest.csv")


def encode(manifest: Manifest, features: Path) -> None:
    for _ in encode_speech(
        manifest, features, make_speech_encoder("fbank", frame_rate=FRAME_RATE_HZ), ["hidden_state"]
    ):
        pass
    for _ in encode_text(manifest, features, make_text_encoder("char-ngram"), [1, 3]):
        pass


def best_score(manifest: Manifest, features: Path, config: TrainConfig) -> float:
    run = begin(config, load_features(manifest, features, *config.features_key))
    return max(result.metrics["macro_f1"] for result in fit(run))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--architectures", nargs="+", default=["vanilla_concat", "mlp_mixer"])
    parser.add_argument("--num-seeds", type=int, default=3)
    parser.add_argument("--corpus-seed", type=int, default=1)
    parser.add_argument(
        "--scripts",
        type=int,
        default=0,
        help="1 to 6: a corpus in KEMDy20's layout instead, 6 are 2.5 GB",
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        manifest = make_corpus(Path(folder) / "demo", arguments.scripts, arguments.corpus_seed)
        features = Path(folder) / "features"
        encode(manifest, features)
        print(f"{'system':<16}  {'left out':<10}  {'macro F1':>8}  {'drop':>6}")
        for architecture in arguments.architectures:
            full = 0.0
            for name, changes in ABLATIONS.items():
                config = make_config(
                    {"architecture": architecture, "context": 3, **SETTINGS, **changes}
                )
                scores = [
                    best_score(manifest, features, dataclasses.replace(config, seed=seed))
                    for seed in range(1, arguments.num_seeds + 1)
                ]
                score = sum(scores) / len(scores)
                full = full or score
                drop = f"{full - score:6.3f}" if changes else f"{'':>6}"
                print(
                    f"{architecture:<16}  {name.removeprefix('no ') if changes else 'nothing':<10} "
                    f" {score:8.3f}  {drop}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
