"""The feature store against the published way, one padded float32 `.pt` a file: size, reading,
memory of four readers.

    python benchmarks/store.py --utterances 400 --rounds 5

Speech features of KEMDy20's durations at 50 frames a second, width 768. The published way pads
every file to 512 frames and cuts what is longer; a reader here keeps what it read, as its cache or
its batches do. Both are read by turns, with the files in the page cache.
"""

import argparse
import multiprocessing
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

from mmm.features.store import open_store
from mmm.features.writer import PartialStore, Plan

WIDTH, PADDED = 768, 512


def write_both(folder: Path, number: int) -> None:
    rng = np.random.default_rng(0)
    seconds = np.clip(0.6 + rng.gamma(1.3, 4.05, number), 0.67, 35.2)
    lengths = (seconds * 50).astype(np.int64)
    recipe = {"kind": "audio", "encoder": "random", "feature": "hidden_state"}
    keys, stamps = np.arange(number, dtype=np.uint64), np.zeros((number, 2), dtype=np.int64)
    store = PartialStore(folder / "store", Plan(recipe, WIDTH, keys, stamps, lengths))
    (folder / "pt").mkdir()
    for row, length in enumerate(lengths):
        values = rng.normal(size=(length, WIDTH)).astype(np.float32)
        store.put(row, values)
        padded = torch.zeros(PADDED, WIDTH)
        padded[: min(length, PADDED)] = torch.from_numpy(values[:PADDED])
        torch.save(padded, folder / "pt" / f"{row}.pt")
    store.finish()


def size_mb(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def read_store(folder: Path, rows: np.ndarray) -> list[torch.Tensor]:
    store = open_store(folder / "store")
    return [
        torch.from_numpy(store.values[store.offsets[row] : store.offsets[row + 1]]).float()
        for row in rows
    ]


def read_pt(folder: Path, rows: np.ndarray) -> list[torch.Tensor]:
    return [torch.load(folder / "pt" / f"{row}.pt", weights_only=True) for row in rows]


def unshared_mb() -> float:
    """Memory of this process, shared pages divided by those who share them (PSS)."""
    text = Path("/proc/self/smaps_rollup").read_text()
    return (
        int(next(line for line in text.splitlines() if line.startswith("Pss:")).split()[1]) / 1024
    )


def hold_all(folder: Path, way: str, number: int, pipe: Connection) -> None:
    """Read every utterance as a training run does and keep it reachable; tell the memory when all
    others have read too.
    """
    torch.set_num_threads(1)
    before = unshared_mb()
    if way == "store":
        store = open_store(folder / "store")
        held: object = (store, float(store.values.sum(dtype=np.float32)))
    else:
        held = read_pt(folder, np.arange(number))
    pipe.send("read")
    pipe.recv()
    pipe.send(unshared_mb() - before)
    pipe.recv()
    del held


def memory_of_four(folder: Path, way: str, number: int) -> float:
    """MB that four readers take together, beyond their interpreters."""
    spawn = multiprocessing.get_context("spawn")
    pipes, readers = [], []
    for _ in range(4):
        ours, theirs = spawn.Pipe()
        pipes.append(ours)
        readers.append(spawn.Process(target=hold_all, args=(folder, way, number, theirs)))
        readers[-1].start()
    for pipe in pipes:
        pipe.recv()
    for pipe in pipes:
        pipe.send("measure")
    total = sum(pipe.recv() for pipe in pipes)
    for pipe, reader in zip(pipes, readers, strict=True):
        pipe.send("end")
        reader.join()
    return float(total)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--utterances", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_both(folder, options.utterances)
        ways = {"store": read_store, "pt": read_pt}
        took: dict[str, list[float]] = {way: [] for way in ways}
        rng = np.random.default_rng(1)
        for turn in range(options.rounds + 1):
            rows = rng.choice(options.utterances, 64, replace=False)
            for way in list(ways)[:: 1 if turn % 2 else -1]:
                started = time.perf_counter()
                ways[way](folder, rows)
                if turn:  # the first warms up
                    took[way].append(time.perf_counter() - started)
        sizes = {way: size_mb(folder / way) for way in ways}
        memory = {way: memory_of_four(folder, way, options.utterances) for way in ways}
    print(f"{options.utterances} utterances, {options.rounds} rounds by turns")
    print(f"{'':<32} {'store':>10} {'.pt files':>10} {'times':>6}")
    medians = {way: 1e3 * statistics.median(times) for way, times in took.items()}
    for what, found in (
        ("size, MB", sizes),
        ("64 random utterances, ms", medians),
        ("four readers of all, MB (PSS)", memory),
    ):
        print(
            f"{what:<32} {found['store']:>10.1f} {found['pt']:>10.1f}"
            f" {found['pt'] / found['store']:>6.1f}"
        )


if __name__ == "__main__":
    main()
