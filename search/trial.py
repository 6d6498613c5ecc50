"""Trials in a Ray worker: mmm's training generator, reported in slices of about a second.

A worker trains one trial, or several of one shape as one batched model (mmm/pack.py).
"""

import contextlib
import json
import os
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from ray import tune

from mmm.batches import Features, load_features
from mmm.checkpoint import load_checkpoint, save_checkpoint
from mmm.config import make_config
from mmm.files import write_bytes
from mmm.manifest import Manifest, read_manifest
from mmm.memory import forget_peak, give_back, keep_freed_memory, peak_kb
from mmm.pack_size import measure_pack_sizes
from mmm.precision import training_precision
from mmm.residence import resident_bytes
from mmm.run import Run, begin, resolve_device
from mmm.tensors import tensor_bytes
from mmm.train import Diverged, EpochResult, fit_pack
from search.trial_files import best_file, checkpoint_file, trial_folder

SLICE_S = 1.0  # short epochs are reported together: between two reports a worker waits for the driver
CHECKPOINT_SHARE = 0.01  # of a trial's time at most: where one costs less than 10 ms, each report has its checkpoint

_cache: dict[tuple[str, str, str, int], Features] = {}  # one worker process serves many trials
# Seconds of the last checkpoint of a model with so many weights: what a trial's first one will cost is known before.
_save_costs: dict[int, float] = {}
_manifests: dict[str, Manifest] = {}


def _features(manifest: str, features: str, audio_feature: str, context: int) -> Features:
    if manifest not in _manifests:
        _manifests[manifest] = read_manifest(manifest, check_audio=False)
    key = (manifest, features, audio_feature, context)
    if key not in _cache:
        _cache[key] = load_features(_manifests[manifest], Path(features), audio_feature, context)
    return _cache[key]


class Member:
    """One trial in a worker's hands: its run, and what of it is on the disk.

    `order` is what the driver wants done: sweep (folder), number, settings, manifest, features, metric, device, rungs,
    precision, and checkpoints (path, epoch and sha256 of the last two, the newer first).
    """

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        self.sweep, self.number = Path(order["sweep"]), order["number"]
        config = make_config(order["settings"])
        device = resolve_device(order["device"])
        features = _features(order["manifest"], order["features"], config.audio_feature, config.context)
        self.run: Run = begin(
            config,
            features,
            objective=order["metric"],
            device=device,
            precision=training_precision(order["precision"], order["device"]),
        )
        self.warnings: list[str] = []
        self._kept = self._go_on()  # checkpoints that the driver knows, the newer first
        self.epochs: list[dict[str, Any]] = []  # since the last report
        self._num_weights = sum(weight.numel() for weight in self.run.model.parameters())
        self._saved, self._save_s = time.monotonic(), _save_costs.get(self._num_weights, 0.0)
        self._has_written_best = False

    def _go_on(self) -> list[Path]:
        """Bring the run to its last checkpoint, or where that is damaged to the one before; returns those that are good."""
        known = self.order["checkpoints"]
        paths = [checkpoint_file(self.sweep, self.number, checkpoint["epoch"]) for checkpoint in known]
        for place, checkpoint in enumerate(known):
            try:
                load_checkpoint(self.run, paths[place], checkpoint["sha256"])
            except (FileNotFoundError, ValueError) as error:
                if place == len(known) - 1:
                    raise
                self.warnings.append(f"{error}; went on from the checkpoint before it")
            else:
                return paths[place:]
        return []

    def add(self, result: EpochResult, is_cpu_time: bool, memory_mb: float, elapsed_s: float, together: int) -> None:
        """Take note of an epoch that took `elapsed_s` by the clock for all `together` that were trained in it."""
        self.epochs.append({
            "epoch": result.epoch, "train_loss": result.train_loss, "metrics": result.metrics, "seconds": result.seconds,
            "alone_seconds": min(result.seconds, result.cpu_seconds) if is_cpu_time else result.seconds,
            "started": (ended := time.time()) - elapsed_s, "ended": ended, "memory_mb": memory_mb,
            "together": together, "ms_per_utterance": result.eval_seconds / len(self.run.dev) * 1000,
        })  # fmt: skip

    @property
    def is_at_rung(self) -> bool:
        return self.run.epoch in self.order["rungs"]

    def report(self, num_members: int, *, may_save: bool = True) -> dict[str, Any]:
        """The epochs since the last report, with a checkpoint where one is due. All members wait for each other's."""
        checkpoint = None
        # At the end or at a rung the driver may close the trial: what it would export must be on the disk before it is told.
        if not may_save:
            pass
        elif self.run.is_finished:
            self._write_best()
        elif self.epochs and (
            self.is_at_rung or time.monotonic() - self._saved >= num_members * self._save_s / CHECKPOINT_SHARE
        ):
            started, started_cpu = time.perf_counter(), time.process_time()
            path = checkpoint_file(self.sweep, self.number, self.run.epoch)
            checkpoint = {"epoch": self.run.epoch, "sha256": save_checkpoint(self.run, path), "path": str(path)}
            # The driver may die before it records this one, and the last that it has recorded may turn out damaged.
            self._remove_checkpoints(but=(path, *self._kept))
            self._kept = [path, *self._kept[:1]]
            self._saved = time.monotonic()
            # Alone by the CPU, because the clock depends on what else runs; the disk's time counts where many wait for it.
            self._save_s = time.process_time() - started_cpu if num_members == 1 else time.perf_counter() - started
            _save_costs[self._num_weights] = self._save_s
        told = {"epochs": self.epochs, "checkpoint": checkpoint, "is_last": self.run.is_finished, "warnings": self.warnings}
        self.epochs, self.warnings = [], []
        return told

    def slim(self) -> None:
        """After the trial's end: keep the best weights, drop optimizer and last weights (a quarter of the size stays)."""
        # Where the checkpoint is gone the driver has dropped this trial's weights.
        if not self._has_written_best and self._kept and self._kept[0].is_file():
            self._write_best()
        if self._has_written_best:
            self._remove_checkpoints(but=())

    def _write_best(self) -> None:
        write_bytes(best_file(self.sweep, self.number), tensor_bytes(self.run.best_weights))
        self._has_written_best = True

    def _remove_checkpoints(self, but: tuple[Path | None, ...]) -> None:
        for path in trial_folder(self.sweep, self.number).glob("checkpoint-*.safetensors"):
            if path not in but:
                path.unlink(missing_ok=True)  # the driver may just be dropping this trial's weights


class Slices:
    """The trials of one worker, trained together and cut into reports that never pass a rung. Knows nothing of Ray.

    What goes wrong with a trial is in its report, and does not touch the others.
    """

    def __init__(self, orders: Sequence[dict[str, Any]]) -> None:
        self.members: dict[int, Member] = {}
        self._failures: dict[int, dict[str, Any]] = {}  # not reported yet
        self._sizes: dict[str, Any] | None = None  # what was measured of packs, not reported yet
        self._runs: list[Run] = []  # fit_pack's, which drops those that end
        self._epochs: Iterator[Any] = iter(())
        self.join(orders)

    def join(self, orders: Sequence[dict[str, Any]]) -> None:
        """Trials that are trained with the others from the next epoch on."""
        self._forget_memory()
        for order in orders:
            try:
                self.members[order["number"]] = member = Member(order)
                if order.get("largest_pack", 1) > 1:
                    self._sizes = measure_pack_sizes(member.run, order["largest_pack"])
                self._runs.append(member.run)
            except Exception as error:
                self._fail(order["number"], error)
        if self._runs:
            self._epochs = fit_pack(self._runs)

    def leave(self, numbers: Sequence[int]) -> None:
        """Trials that the driver has ended, or that failed."""
        leaving = [self.members.pop(number) for number in numbers if number in self.members]
        gone = {id(member.run) for member in leaving}
        self._runs[:] = [run for run in self._runs if id(run) not in gone]
        for member in leaving:
            with contextlib.suppress(OSError):  # a full disk, or the driver just drops its weights
                member.slim()

    def next(self) -> list[dict[str, Any]]:
        """Train for about a second, at least one epoch, at most to the next rung or end of one; a report for each trial."""
        started = time.monotonic()
        try:
            while self._runs and not self._failures:
                epoch_started = time.perf_counter()
                outcomes = next(self._epochs, None)
                if outcomes is None:
                    break
                elapsed_s, memory_mb = time.perf_counter() - epoch_started, self._memory_mb()
                by_run = {id(member.run): member for member in self.members.values()}
                trained = [by_run[id(run)] for run, _ in outcomes]
                for member, (_, outcome) in zip(trained, outcomes, strict=True):
                    if isinstance(outcome, Diverged):
                        self._fail(member.number, outcome)
                    else:
                        member.add(outcome, self._is_cpu_time, memory_mb, elapsed_s, len(outcomes))
                if (
                    any(member.is_at_rung or member.run.is_finished for member in trained)
                    or time.monotonic() - started >= SLICE_S
                ):
                    break
        except Exception as error:  # of the batched model: nobody can tell whose it is
            for number in self.members:
                self._fail(number, error)
                self._failures[number]["together"] = len(self.members) > 1
            self._runs.clear()
        return self._report()

    def _report(self) -> list[dict[str, Any]]:
        reports = []
        for number, member in self.members.items():
            try:
                # What failed in the middle of an epoch has weights of no epoch.
                told = member.report(len(self.members), may_save=number not in self._failures)
                report = {"number": number, **told, "failure": self._failures.pop(number, None)}
            except Exception as error:  # a full disk
                report = {"number": number, "epochs": [], "checkpoint": None, "is_last": False, "warnings": [],
                          "failure": _failure(error)}  # fmt: skip
            reports.append(report)
        for number, failure in self._failures.items():  # what could not even begin
            reports.append(
                {"number": number, "epochs": [], "checkpoint": None, "is_last": False, "warnings": [], "failure": failure}
            )
        self._failures = {}
        for report in reports:
            # They go on elsewhere, each alone, from their checkpoints.
            if report["failure"] is not None and report["failure"].get("together"):
                del self.members[report["number"]]
        if reports and self._sizes is not None:
            reports[0]["packs"], self._sizes = self._sizes, None
        return reports

    def _fail(self, number: int, error: Exception) -> None:
        self._failures[number] = _failure(error)

    @property
    def _is_cpu_time(self) -> bool:
        """On the CPU with one thread, the process's own CPU time is what the epoch would take with the core to itself."""
        return self._runs[0].device.type == "cpu" and torch.get_num_threads() == 1 if self._runs else False

    def _forget_memory(self) -> None:
        """Start counting the peak anew: this process has trained other trials before."""
        give_back()
        if torch.cuda.is_initialized():
            torch.cuda.reset_peak_memory_stats()
        forget_peak()

    def _memory_mb(self) -> float:
        """The most that this process (on a GPU: its tensors there, features aside) has held in these trials, in MB."""
        if self._runs and self._runs[0].device.type == "cuda":
            device = self._runs[0].device
            return (torch.cuda.max_memory_allocated(device) - resident_bytes(device)) / 1e6
        return peak_kb() / 1e3


class TrialActor(tune.Trainable):
    """Ray Tune's wrapper around `Slices`. One actor runs many trials, so torch is imported once.

    What goes wrong inside a trial is a result, not an exception: Tune would throw the actor away, and a new one takes
    seconds to start.
    """

    def setup(self, config: dict[str, Any]) -> None:
        threads = config["threads"]
        torch.set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)
        keep_freed_memory()
        self.slices = Slices(config["orders"])

    def change(self, ended: Sequence[int], orders: Sequence[dict[str, Any]]) -> None:
        """The trials `ended` are over; train these too from now on."""
        self.slices.leave(ended)
        if orders:
            self.slices.join(orders)

    def step(self) -> dict[str, Any]:
        # Never `done`: Tune would end the trial without showing the result to the scheduler. As JSON, because Tune
        # flattens nested dictionaries.
        return {"reports": json.dumps(self.slices.next())}


def _failure(error: Exception) -> dict[str, Any]:
    reason = str(error) if isinstance(error, Diverged) else f"{type(error).__name__}: {error}"
    return {"reason": reason, "traceback": "".join(traceback.format_exception(error))}
