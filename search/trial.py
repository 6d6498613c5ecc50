"""A trial in a Ray worker: mmm's training generator, reported in slices of about a second."""

import contextlib
import json
import os
import resource
import time
import traceback
from pathlib import Path
from typing import Any

import torch
from ray import tune
from safetensors.torch import save

from mmm.batches import Features, load_features
from mmm.config import make_config
from mmm.files import write_bytes
from mmm.manifest import Manifest, read_manifest
from mmm.train import Diverged, Run, begin, fit, load_checkpoint, resolve_device, save_checkpoint
from search.trial_files import best_file, checkpoint_file, trial_folder

SLICE_S = 1.0  # short epochs are reported together: between two reports a worker waits for the driver
CHECKPOINT_SHARE = 0.03  # of a trial's time at most: where one costs less than 30 ms, each report has its checkpoint


class Slices:
    """One trial's training, cut into reports that never pass a rung. Knows nothing of Ray.

    `order` is what the driver wants done: sweep (folder), number, settings, manifest, features, metric, device, rungs,
    and checkpoint (path and sha256, or None).
    """

    _cache: dict[tuple[str, str, str, int], Features] = {}  # noqa: RUF012 (one worker process serves many trials)
    _manifests: dict[str, Manifest] = {}  # noqa: RUF012

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        self.sweep, self.number = Path(order["sweep"]), order["number"]
        self.checkpoint_path: Path | None = None
        config = make_config(order["settings"])
        device = resolve_device(order["device"])
        self.run: Run = begin(
            config, self._features(config.audio_feature, config.context), objective=order["metric"], device=device
        )
        if order["checkpoint"] is not None:
            self.checkpoint_path = checkpoint_file(self.sweep, self.number, order["checkpoint"]["epoch"])
            load_checkpoint(self.run, self.checkpoint_path, order["checkpoint"]["sha256"])
        self._epochs = fit(self.run)
        self._fault: Exception | None = None
        self._saved, self._save_s = time.monotonic(), 0.0
        self._has_written_best = False
        self._forget_memory()
        # On the CPU with one thread, the process's own CPU time is what the epoch would take with the core to itself.
        self._is_cpu_time = device.type == "cpu" and torch.get_num_threads() == 1

    def _features(self, audio_feature: str, context: int) -> Features:
        manifest, features = self.order["manifest"], self.order["features"]
        if manifest not in self._manifests:
            self._manifests[manifest] = read_manifest(manifest, check_audio=False)
        key = (manifest, features, audio_feature, context)
        if key not in self._cache:
            self._cache[key] = load_features(self._manifests[manifest], Path(features), audio_feature, context)
        return self._cache[key]

    def next(self) -> dict[str, Any]:
        """Train for about a second, at least one epoch, at most to the next rung; the report of it."""
        started = time.monotonic()
        epochs: list[dict[str, Any]] = []
        if self._fault is not None:
            raise self._fault
        try:
            for result in self._epochs:
                epochs.append({
                    "epoch": result.epoch, "train_loss": result.train_loss, "metrics": result.metrics, "seconds": result.seconds,
                    "alone_seconds": min(result.seconds, result.cpu_seconds) if self._is_cpu_time else result.seconds,
                    "started": (ended := time.time()) - result.seconds, "ended": ended, "memory_mb": self._memory_mb(),
                    "ms_per_utterance": result.eval_seconds / len(self.run.dev) * 1000,
                })  # fmt: skip
                if result.epoch in self.order["rungs"] or time.monotonic() - started >= SLICE_S:
                    break
        except Exception as error:
            if not epochs:
                raise
            self._fault = error  # the epochs before it are reported first: the sampler learns from them
        is_last = self.is_finished
        checkpoint = None
        # At the end or at a rung the driver may close the trial: what it would export must be on the disk before it is told.
        if is_last:
            self._write_best()
        elif self.run.epoch in self.order["rungs"] or time.monotonic() - self._saved >= self._save_s / CHECKPOINT_SHARE:
            started_cpu = time.process_time()  # by the clock it depends on what else runs
            path = checkpoint_file(self.sweep, self.number, self.run.epoch)
            checkpoint = {"epoch": self.run.epoch, "sha256": save_checkpoint(self.run, path), "path": str(path)}
            # The driver may die before it records this one: the one that it has recorded stays until the next.
            self._remove_checkpoints(but=(path, self.checkpoint_path))
            self.checkpoint_path = path
            self._saved = time.monotonic()
            self._save_s = time.process_time() - started_cpu
        return {"epochs": epochs, "checkpoint": checkpoint, "is_last": is_last}

    @property
    def is_finished(self) -> bool:
        """Whether the last epoch is trained."""
        return self.run.epoch >= self.run.config.epochs

    def _forget_memory(self) -> None:
        """Start counting the peak anew: this process has trained other trials before."""
        if self.run.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.run.device)
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")

    def _memory_mb(self) -> float:
        """The most that this process (on a GPU: its tensors there) has held in this trial, in MB."""
        if self.run.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.run.device) / 1e6
        with contextlib.suppress(OSError, StopIteration):
            lines = Path("/proc/self/status").read_text().splitlines()
            return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1e3
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3  # of the whole process; Linux counts in kB

    def slim(self) -> None:
        """After the trial's end: keep the best weights, drop optimizer and last weights (a quarter of the size stays)."""
        # Where the checkpoint is gone the driver has dropped this trial's weights.
        if not self._has_written_best and self.checkpoint_path is not None and self.checkpoint_path.is_file():
            self._write_best()
        if self._has_written_best:
            self._remove_checkpoints(but=())

    def _write_best(self) -> None:
        write_bytes(best_file(self.sweep, self.number), save(self.run.best_weights))
        self._has_written_best = True

    def _remove_checkpoints(self, but: tuple[Path | None, ...]) -> None:
        for path in trial_folder(self.sweep, self.number).glob("checkpoint-*.safetensors"):
            if path not in but:
                path.unlink(missing_ok=True)  # the driver may just be dropping this trial's weights


class TrialActor(tune.Trainable):
    """Ray Tune's wrapper around `Slices`. One actor runs many trials, so torch is imported once.

    What goes wrong inside a trial is a result, not an exception: Tune would throw the actor away, and a new one takes
    seconds to start.
    """

    def setup(self, config: dict[str, Any]) -> None:
        threads = config["threads"]
        torch.set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)
        self._start(config)

    def take(self, order: dict[str, Any]) -> None:
        """The trial in hand has ended; train this one next."""
        if self.slices is not None:
            self.slices.slim()
        self._start(order)

    def cleanup(self) -> None:
        # Also called where a budget or a person stopped the sweep: what has not ended goes on from its checkpoint.
        if self.slices is not None and self.slices.is_finished:
            self.slices.slim()

    def _start(self, order: dict[str, Any]) -> None:
        self.slices: Slices | None = None
        self.failure: dict[str, str] | None = None
        try:
            self.slices = Slices(order)
        except Exception as error:
            self.failure = _failure(error)

    def step(self) -> dict[str, Any]:
        report: dict[str, Any] = {"epochs": [], "checkpoint": None, "is_last": False}
        if self.failure is None:
            assert self.slices is not None
            try:
                report = self.slices.next()
            except Exception as error:
                self.failure = _failure(error)
        # Never `done`: Tune would end the trial without showing the result to the scheduler. As JSON, because Tune
        # flattens nested dictionaries.
        return {"report": json.dumps({**report, "failure": self.failure})}


def _failure(error: Exception) -> dict[str, str]:
    reason = str(error) if isinstance(error, Diverged) else f"{type(error).__name__}: {error}"
    return {"reason": reason, "traceback": traceback.format_exc()}
