"""`mmm-search encode`: the batches of `mmm encode` on the actors of a Ray cluster, one store as the
result.

Plain Ray actors, not Ray Data: the batches are planned, resumed and written by mmm, so a dataset
would add its blocks, its own batching and pyarrow between a path and a row, and would hold the
finished rows in its object store before any of them is safe.
"""

import itertools
from collections.abc import Iterator
from typing import Any, Literal

import ray

from mmm.encoders import SpeechEncoder, TextEncoder
from mmm.encoders.jobs import Job, Result, Runner
from mmm.encoders.options import EncodeOptions, recipe_of
from mmm.features.recipe import Recipe

_AHEAD = 2  # batches an actor has: one that it encodes, one that waits, so that it never does


class _Encoder:
    """An actor: one encoder, loaded once."""

    def __init__(
        self, options: EncodeOptions, kind: Literal["speech", "text"], recipe: Recipe
    ) -> None:
        import torch

        # As in mmm encode: features must not depend on the number of cores.
        torch.set_num_threads(1)
        self.encoder: Any = options.make_speech() if kind == "speech" else options.make_text()
        if (found := recipe_of(self.encoder, kind)) != recipe:
            raise ValueError(
                f"encoder {recipe['encoder']!r} is another one on {ray.util.get_node_ip_address()}:"
                f" {found} instead of {recipe}"
            )
        self.encoder.load()

    def run(self, job: Job) -> Result:
        return job.run(self.encoder)


def run_on_ray(
    options: EncodeOptions, kind: Literal["speech", "text"], workers: int, gpus: float
) -> Runner:
    """A runner with `workers` actors on the cluster that is connected, each with a share of
    `gpus`.
    """

    def run(
        encoder: SpeechEncoder | TextEncoder, jobs: Iterator[tuple[int, Job]]
    ) -> Iterator[tuple[int, Result]]:
        # An actor that dies is started again and its batch repeated; what is written is in the
        # store already.
        make = ray.remote(num_cpus=1, num_gpus=gpus / workers, max_restarts=3, max_task_retries=3)(
            _Encoder
        )
        actors = [make.remote(options, kind, recipe_of(encoder, kind)) for _ in range(workers)]
        running: dict[Any, tuple[int, Any]] = {}

        def start(actor: Any) -> None:
            for number, job in itertools.islice(jobs, 1):
                running[actor.run.remote(job)] = (number, actor)

        try:
            for _ in range(_AHEAD):
                for actor in actors:
                    start(actor)
            while running:
                (ready,), _ = ray.wait(list(running), num_returns=1)
                number, actor = running.pop(ready)
                try:
                    result: Result = ray.get(ready)
                except ray.exceptions.RayTaskError as error:
                    raise (
                        error.cause
                        if isinstance(error.cause, ValueError | FileNotFoundError)
                        else error
                    ) from None
                except ray.exceptions.RayActorError as error:
                    cause = str(error).strip().splitlines()
                    raise ValueError(
                        f"an actor that encodes died: {cause[-1] if cause else error}"
                    ) from None
                start(actor)
                yield number, result
        finally:
            for actor in actors:
                ray.kill(actor)

    return run
