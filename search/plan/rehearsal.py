"""Trials rehearsed on a GPU in processes of their own, as workers would share it: each trains a few
steps of the same settings at the same time.

In processes, because whoever has used a GPU holds some of its memory to the end; and several at a
time, because only they show what they gain together.
"""

import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Self, TypeVar

from mmm.training.config import FeaturesKey, Params

_TIMED_S = 0.4  # of a case's training, alone
_MOST_PASSES = 50
_LIMIT_S = 300.0  # for all cases, after which whoever hangs is given up


@dataclass(frozen=True)
class Case:
    """A trial to rehearse."""

    settings: Params  # complete, as a worker gets them
    key: FeaturesKey  # its features, encoders by their recipes
    precision: str
    pack: int = 1  # so many trials of its shape trained as one
    largest_pack: int = 1  # over 1: measured how many, up to so many, are worth it
    num_passes: int = 0  # over a few steps that are timed; 0: as many as take a while


@dataclass(frozen=True)
class Job:
    """What a process has to know to rehearse."""

    manifest: str  # which may be on another machine
    manifest_text: str  # what is read in its place, without the test split
    manifest_sha256: str
    classes: tuple[str, ...]
    features: str
    cases: tuple[Case, ...]
    fold: int | None = None
    device: str = "cuda"

    def as_json(self) -> str:
        """In one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        found = json.loads(text)
        cases = tuple(
            Case(**{**case, "key": FeaturesKey(*case["key"])}) for case in found.pop("cases")
        )
        return cls(**{**found, "classes": tuple(found.pop("classes")), "cases": cases})


@dataclass(frozen=True)
class Taken:
    """What a case took where `together` processes trained it at a time."""

    case: Case  # with as large packs and as many passes as were trained
    together: int
    epoch_s: float  # that an epoch of one trial takes of the device: by the clock, shared out
    peak_bytes: int  # of one process, without features


@dataclass(frozen=True)
class Device:
    """What was rehearsed on."""

    name: str
    total_bytes: int | None  # None: it is a CPU


@dataclass(frozen=True)
class _Ready:
    """A process has begun with a case."""

    pack: int
    pass_s: float  # seconds of a pass over its few steps
    peak_bytes: int


@dataclass(frozen=True)
class _Done:
    """It has trained as many passes as it was told."""

    epoch_s: float


_Answer = TypeVar("_Answer", Device, _Ready, _Done)
_DOES_NOT_FIT, _FAILS = "does not fit: ", "fails: "


@dataclass(frozen=True)
class Rehearsed:
    """All cases, so many at a time."""

    device: Device
    taken: tuple[Taken, ...]

    @property
    def seconds(self) -> float:
        """That an epoch of each case takes of the device."""
        return sum(one.epoch_s for one in self.taken)


class DoesNotFit(Exception):
    """So many at a time have not got the memory."""


def rehearse(job: Job, together: int) -> Rehearsed:
    """Rehearse all cases, `together` processes at a time.

    Raises DoesNotFit, or ValueError where a process fails in another way.
    """
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as folder:
        manifest = Path(folder) / "manifest.csv"
        manifest.write_text(job.manifest_text, encoding="utf-8")
        with _processes(job, manifest, together) as actors:
            device = [actor.hear(Device) for actor in actors][-1]
            taken = tuple(_rehearse_case(case, actors) for case in job.cases)
    return Rehearsed(device, taken)


def _rehearse_case(case: Case, actors: Sequence["_Actor"]) -> Taken:
    ready = [actor.hear(_Ready) for actor in actors]
    passes = case.num_passes or max(
        1, min(_MOST_PASSES, int(_TIMED_S / max(ready[0].pass_s, 1e-6)))
    )
    for actor in actors:
        actor.say(passes)
    slowest = max(actor.hear(_Done).epoch_s for actor in actors)
    return Taken(
        replace(case, pack=ready[0].pack, largest_pack=1, num_passes=passes),
        len(actors),
        slowest / len(actors),
        max(one.peak_bytes for one in ready),
    )


class _Actor:
    """A process that rehearses, seen from outside."""

    def __init__(self, job: Job, manifest: Path, together: int, errors: IO[bytes]) -> None:
        self._errors = errors
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "search.plan.rehearsal", str(manifest), str(together)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        self.say(replace(job, manifest_text="").as_json())

    def say(self, line: object) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # then it has said why, or says nothing any more
            print(line, file=self.process.stdin, flush=True)

    def hear(self, kind: type[_Answer]) -> _Answer:
        """The next answer, which is of this kind."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line.startswith(_DOES_NOT_FIT):
            raise DoesNotFit(line.removeprefix(_DOES_NOT_FIT).strip())
        if line.startswith(_FAILS):
            raise ValueError(line.removeprefix(_FAILS).strip())
        if not line:
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace").strip().splitlines()
            why = said[-1] if said else f"killed, or slower than {_LIMIT_S:g} s"
            raise ValueError(f"a process that measured ended ({why})")
        return kind(**json.loads(line))


@contextlib.contextmanager
def _processes(job: Job, manifest: Path, together: int) -> Iterator[list[_Actor]]:
    """Processes that rehearse, gone afterwards."""
    actors: list[_Actor] = []
    with contextlib.ExitStack() as files:

        def kill() -> None:
            for actor in actors:
                actor.process.kill()

        watchdog = threading.Timer(_LIMIT_S, kill)
        watchdog.start()
        try:
            for _ in range(together):
                errors = files.enter_context(tempfile.TemporaryFile())
                actors.append(_Actor(job, manifest, together, errors))
            yield actors
        finally:
            watchdog.cancel()
            kill()
            for actor in actors:
                actor.process.communicate()


# What follows runs in the process that rehearses.


def _rehearse_here(job: Job, manifest: Path, together: int, said: IO[str]) -> None:
    import torch

    from mmm.device import resolve_device
    from mmm.manifest_csv import read_manifest
    from mmm.training.config import make_config
    from mmm.training.features import load_features
    from mmm.training.gpu_features import share_memory
    from mmm.training.pack_size import measure_pack_sizes
    from mmm.training.run import begin
    from mmm.training.step_cost import Steps
    from search.worker.own_code import load_here

    def say(answer: Device | _Ready | _Done) -> None:
        print(json.dumps(asdict(answer)), file=said, flush=True)

    # However many there are at a time, lest numbers of threads are what is compared: on a busy CPU
    # a step in two threads took 60 times as long as in one.
    torch.set_num_threads(1)
    if job.device == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"PyTorch sees no GPU on {platform.node()}")
    device = resolve_device(job.device)
    on_gpu = device.type == "cuda"
    if on_gpu and together > 1:
        share_memory(1 / together)
    if on_gpu:
        found = torch.cuda.get_device_properties(device)
        say(Device(found.name, found.total_memory))
    else:
        say(Device("the CPU", None))
    seen = replace(
        read_manifest(manifest, check_audio=False),
        path=Path(job.manifest),
        sha256=job.manifest_sha256,
        classes=job.classes,
    )
    for case in job.cases:
        load_here(case.settings)
        try:
            run = begin(
                make_config(case.settings),
                load_features(seen, Path(job.features), *case.key),
                device=device,
                precision=case.precision,
                fold=job.fold,
            )
            pack = case.pack
            if case.largest_pack > 1:
                pack = measure_pack_sizes(run, case.largest_pack)["size"]
            steps = Steps(run, pack)
            say(_Ready(pack, steps.pass_s, steps.peak_bytes))
            if not (line := sys.stdin.readline()):
                return  # nobody asks any more
            say(_Done(steps.epoch_seconds(int(line))))
        except torch.OutOfMemoryError as error:
            raise DoesNotFit(" ".join(str(error).split()).partition(". GPU ")[0]) from error
        del run, steps


def main() -> None:
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    job = Job.from_json(sys.stdin.readline())
    try:
        _rehearse_here(job, Path(sys.argv[1]), int(sys.argv[2]), said)
    except DoesNotFit as error:
        print(f"{_DOES_NOT_FIT}{error}", file=said, flush=True)
    except (ValueError, FileNotFoundError) as error:
        print(f"{_FAILS}{' '.join(str(error).split())}", file=said, flush=True)


if __name__ == "__main__":
    main()
