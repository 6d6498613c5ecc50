"""What an epoch costs as the corpus grows, and what memory a training process takes.

    python -m benchmarks.training_growth [--architecture mlp_mixer] [--utterances 500] [--rounds 5]

Time of an epoch, validation included, at 1, 2, 4 and 8 times the utterances, by turns in one
process a size; memory of each process apart from the pages of the feature store, which all
processes of a machine share; and the memory of each of 1, 2 and 4 processes at once on the largest
store.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from benchmarks.training_data import features_of, write_corpus
from mmm.manifest_csv import read_manifest
from mmm.training.config import make_config
from mmm.training.fit import fit
from mmm.training.malloc import keep_freed_memory, reusing_holes
from mmm.training.run import begin

SIZES = {"speech_width": 256, "text_width": 256, "frames_per_s": 12.5}


def memory_mb() -> tuple[float, float]:
    """Resident memory of this process that is its own, and that of mapped files."""
    found = dict.fromkeys(("RssAnon", "RssFile"), 0.0)
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in found:
            found[name] = int(value.split()[0]) / 1024
    return found["RssAnon"], found["RssFile"]


def trainer(manifest: Path, architecture: str, line: Connection) -> None:
    """Trains an epoch each time it is asked to, and answers with its seconds and memory."""
    torch.set_num_threads(1)
    keep_freed_memory()
    started = memory_mb()[0]
    features = features_of(read_manifest(manifest, check_audio=False))
    config = make_config(
        {"architecture": architecture, "epochs": 10_000, "num_blocks": 1}
        if architecture == "mlp_mixer"
        else {"architecture": architecture, "epochs": 10_000}
    )
    run = begin(config, features)
    weights_mb = (
        sum(parameter.numel() for parameter in run.model.parameters()) * 4 * 4 / 1e6
    )  # with gradients and AdamW's moments
    epochs = fit(run)
    line.send((started, weights_mb))
    while line.recv():
        seconds = next(epochs).seconds
        line.send((seconds, *memory_mb()))


class Trainer:
    def __init__(self, manifest: Path, architecture: str) -> None:
        self.line, other = multiprocessing.Pipe()
        self.process = multiprocessing.get_context("spawn").Process(
            target=trainer, args=(manifest, architecture, other)
        )
        self.process.start()
        self.started_mb, self.weights_mb = self.line.recv()

    def ask(self) -> None:
        self.line.send(True)

    def answer(self) -> tuple[float, float, float]:
        seconds, own_mb, file_mb = self.line.recv()
        return seconds, own_mb, file_mb

    def end(self) -> None:
        self.line.send(False)
        self.process.join()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--architecture", default="mlp_mixer")
    parser.add_argument("--utterances", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    os.environ.update(
        reusing_holes(os.environ)
    )  # as `mmm train` and a sweep do for the processes below
    with tempfile.TemporaryDirectory() as name:
        manifests = {}
        for times in (1, 2, 4, 8):
            manifests[times] = write_corpus(
                Path(name) / str(times), options.utterances * times, **SIZES
            ).path
        trainers = {times: Trainer(path, options.architecture) for times, path in manifests.items()}
        seconds: dict[int, list[float]] = {times: [] for times in trainers}
        memory: dict[int, tuple[float, float]] = {}
        for round_ in range(options.rounds + 1):
            for times, trainer_ in trainers.items():
                trainer_.ask()
                took, *found = trainer_.answer()
                memory[times] = found[0], found[1]
                if round_:
                    seconds[times].append(took)
        print(f"{options.architecture}, one thread, {options.rounds} rounds by turns; memory in MB")
        for times, trainer_ in trainers.items():
            ratio = statistics.median(
                one / base / times for one, base in zip(seconds[times], seconds[1], strict=True)
            )
            print(
                f"  {options.utterances * times:6,} utterances:"
                f" {statistics.median(seconds[times]):7.2f} s an epoch, {ratio:.2f} times what is"
                f" linear; own memory {memory[times][0]:5.0f}, of mapped files"
                f" {memory[times][1]:5.0f}",
                flush=True,
            )
            trainer_.end()
        for number in (1, 2, 4):
            together = [Trainer(manifests[8], options.architecture) for _ in range(number)]
            for one in together:
                one.ask()
            own = [one.answer()[1] for one in together]
            grown = [
                mb - one.started_mb - one.weights_mb for mb, one in zip(own, together, strict=True)
            ]
            print(
                f"  {number} at once: own memory {', '.join(f'{mb:.0f}' for mb in own)}; above"
                " Python and the weights, gradients and moments:"
                f" {', '.join(f'{mb:.0f}' for mb in grown)}",
                flush=True,
            )
            for one in together:
                one.end()


if __name__ == "__main__":
    sys.exit(main())
