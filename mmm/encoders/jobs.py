"""Batches for an encoder: what is encoded together, and by how many threads; the same batches
wherever they run.
"""

import collections
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mmm.audio.speech import read_speech
from mmm.encoders import Batching, SpeechEncoder, TextEncoder
from mmm.features.store import Encoded, encoded

_LOOP_BUDGET = 60.0  # seconds of speech a job of an encoder that takes one utterance after another
_MOST = 256  # utterances a batch


@dataclass(frozen=True)
class SpeechJob:
    """One batch of clips, complete enough for another process. Clip i is named `names[i]` in
    errors.
    """

    clips: tuple[Path, ...]
    names: tuple[str, ...]
    features: tuple[str, ...]

    def run(self, encoder: SpeechEncoder) -> list[dict[str, Encoded]]:
        """Features of each clip as a store keeps them. Raises AudioError, FileNotFoundError or
        ValueError naming the clip.
        """
        waves = []
        for clip, name in zip(self.clips, self.names, strict=True):
            try:
                waves.append(read_speech(clip))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
        try:
            return [
                {
                    name: encoded(frames, "audio", encoder.frames_per_mean(name))
                    for name, frames in found.items()
                }
                for found in encoder.encode_batch(waves, self.features)
            ]
        except ValueError as error:
            raise ValueError(f"{self.names[0]}: {error}") from error


@dataclass(frozen=True)
class TextJob:
    """One batch of utterances with their history, of up to `context` turns."""

    turns: tuple[tuple[str, ...], ...]
    context: int

    def run(self, encoder: TextEncoder) -> list[dict[str, Encoded]]:
        found = encoder.for_context(self.context).encode_batch(self.turns)
        return [{"text": encoded(tokens, "text")} for tokens in found]


Result = list[dict[str, Encoded]]
Job = SpeechJob | TextJob
# Runs jobs, in any order, and gives each with its result; an encoder's `load` is called where it
# runs.
Runner = Callable[
    [SpeechEncoder | TextEncoder, Iterator[tuple[int, Job]]], Iterator[tuple[int, Result]]
]


def plan_batches(lengths: Sequence[float], budget: float, batching: Batching) -> list[list[int]]:
    """Indices of `lengths` (seconds or tokens) in batches, the longest first: what is too large
    fails at once, not at the end.

    A batch holds up to `budget` after padding, or one utterance. Padding is little, because
    neighbours in length go together.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    budget = max(budget, _LOOP_BUDGET) if batching == "loop" else budget
    found: list[list[int]] = []
    for index in order:
        batch = found[-1] if found else []
        longest = lengths[batch[0]] if batch else 0.0
        fits = batch and longest * (len(batch) + 1) <= budget and len(batch) < _MOST
        if fits and (batching != "equal" or lengths[index] == longest):
            batch.append(index)
        else:
            found.append([index])
    return found


def run_here(threads: int = 1) -> Runner:
    """A runner in this process: `threads` jobs at a time, each on one core.

    Several files side by side, one core each, are faster than one file on several cores, and
    features then do not depend on the number of cores in their last bits.
    """

    def run(
        encoder: SpeechEncoder | TextEncoder, jobs: Iterator[tuple[int, Job]]
    ) -> Iterator[tuple[int, Result]]:
        import torch

        encoder.load()
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        pool = ThreadPoolExecutor(threads, initializer=lambda: torch.set_num_threads(1))
        try:
            waiting: collections.deque[tuple[int, Future[Result]]] = collections.deque()
            for number, job in itertools.islice(jobs, threads * 2):
                waiting.append((number, pool.submit(job.run, encoder)))  # type: ignore[arg-type]
            while waiting:
                number, future = waiting.popleft()
                result = future.result()
                for more, job in itertools.islice(jobs, 1):
                    waiting.append((more, pool.submit(job.run, encoder)))  # type: ignore[arg-type]
                yield number, result
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(before)

    return run
