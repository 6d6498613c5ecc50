"""An epoch of the mixer the published way against ours: what computing features once, and never
padding through lists, is worth.

    python -m benchmarks.training_published [--batches 3] [--rounds 5]

The published way, written plainly: every training step runs the frozen text encoder (ELECTRA at
KcELECTRA-base's size with random weights, 128 tokens) and reads one padded float32 `.pt` file an
utterance, whose features go through Python lists into a batch of 512 positions. Ours reads the
feature store. Both train the same mixer at published sizes on batches of 64 utterances with
KEMDy20's durations, by turns; a step costs the same all through an epoch, so a few of them stand
for it. Ours is measured with the published settings too (padding takes part), so that the models
compute the same. Making the features is shown apart: the text encoder's pass over the corpus, once.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import ElectraConfig, ElectraModel

from benchmarks.training_data import features_of, write_corpus
from mmm.training.config import make_config, published_params
from mmm.training.features import Features
from mmm.training.fit import train_epoch
from mmm.training.malloc import keep_freed_memory
from mmm.training.pack import Pack
from mmm.training.run import Run, begin

BATCH, SPEECH, TEXT = 64, 512, 128


def write_padded(features: Features, folder: Path) -> None:
    store = features.speech
    for index, row in enumerate(features.speech_rows.tolist()):
        values = torch.from_numpy(
            store.values[store.offsets[row] : store.offsets[row + 1]][:SPEECH].astype(np.float32)
        )
        torch.save(functional.pad(values, (0, 0, 0, SPEECH - len(values))), folder / f"{index}.pt")


def published_step(run: Run, encoder: ElectraModel, folder: Path) -> Callable[[torch.Tensor], None]:
    """A step as the published scripts have it, on rows of the training split."""
    model, optimizer = run.model, run.optimizer
    tokens = torch.randint(
        5, 50_000, (len(run.train), TEXT), generator=torch.Generator().manual_seed(0)
    )

    def step(rows: torch.Tensor) -> None:
        speech = [
            torch.load(folder / f"{int(run.train.indices[row])}.pt", weights_only=True).tolist()
            for row in rows
        ]
        speech_BAF = torch.tensor(speech)
        with torch.no_grad():
            text_BTE = encoder(input_ids=tokens[rows]).last_hidden_state
        masks = [torch.ones(len(rows), size, dtype=torch.bool) for size in (SPEECH, TEXT)]
        loss = nn.functional.cross_entropy(
            model(speech_BAF, masks[0], text_BTE, masks[1]), run.train.labels[rows].argmax(dim=1)
        )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, default=1, help="a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--utterances", type=int, default=10_000, help="of the epoch that is spoken of"
    )
    options = parser.parse_args()
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        features = features_of(write_corpus(folder / "corpus", BATCH * options.batches))
        (folder / "pt").mkdir()
        write_padded(features, folder / "pt")
        encoder = ElectraModel(
            ElectraConfig(
                vocab_size=54_343,
                embedding_size=768,
                hidden_size=768,
                num_hidden_layers=12,
                num_attention_heads=12,
                intermediate_size=3072,
            )
        ).eval()
        base = {
            **published_params("mlp_mixer"),
            "accumulate": 1,
            "accumulation": "exact",
            "label_policy": "first",
        }
        runs = {
            "published settings": begin(make_config(base), features),
            "defaults": begin(make_config({"architecture": "mlp_mixer"}), features),
        }
        step = published_step(begin(make_config(base), features), encoder, folder / "pt")
        packs = {kind: Pack([run]) for kind, run in runs.items()}
        rows = torch.arange(BATCH * options.batches).split(BATCH)
        tokens = torch.randint(5, 50_000, (BATCH, TEXT))
        seconds: dict[str, list[float]] = {
            "published way": [],
            **{f"ours, {kind}": [] for kind in packs},
            "text encoder once": [],
        }
        for round_ in range(options.rounds + 1):
            found = {"published way": timed(lambda: [step(some) for some in rows])}
            found |= {
                f"ours, {kind}": timed(lambda pack=pack: train_epoch(pack))
                for kind, pack in packs.items()
            }
            with torch.no_grad():
                found["text encoder once"] = timed(
                    lambda: [encoder(input_ids=tokens) for _ in rows]
                )
            if round_:  # the first warms up
                for kind, value in found.items():
                    seconds[kind].append(value / options.batches)
    steps = options.utterances / BATCH
    print(
        f"mixer, published sizes, batch {BATCH}, {torch.get_num_threads()} threads,"
        f" {options.rounds} rounds by turns"
    )
    medians = {kind: statistics.median(values) for kind, values in seconds.items()}
    for kind, value in medians.items():
        print(
            f"  {kind:<25} {value:7.2f} s a step of 64 utterances, {value * steps / 60:6.1f}"
            f" minutes an epoch of {options.utterances:,}"
        )
    for kind in packs:
        ours = f"ours, {kind}"
        ratio = statistics.median(
            one / other for one, other in zip(seconds["published way"], seconds[ours], strict=True)
        )
        saved = medians["published way"] - medians[ours]
        print(
            f"{ours}: {ratio:.1f} times faster; text features, made once, have paid for themselves"
            f" after {medians['text encoder once'] / saved:.2f} epochs"
        )


if __name__ == "__main__":
    sys.exit(main())
