"""One trial in a worker's hands: its run, what it was seen to do, and what of it is on the disk."""

import hashlib
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from mmm.device import resolve_device
from mmm.files import write_bytes
from mmm.manifest import Manifest
from mmm.manifest_csv import read_manifest
from mmm.training.checkpoint import checkpoint_bytes, load_checkpoint
from mmm.training.config import FeaturesKey, TrainConfig, make_config
from mmm.training.features import Features, load_features
from mmm.training.fit import EpochResult
from mmm.training.run import Run, begin
from mmm.training.tensor_file import checked_bytes, load_checked
from search.ledger.files import answers_file, best_file, checkpoint_file, trial_folder
from search.ledger.records import Checkpoint, Epoch, split_tables
from search.messages import Cut, Failure, Order, Report, Weights
from search.storage.stage import Features as StagedFeatures
from search.worker.own_code import load_here

# of a trial's time at most: where one costs less than 10 ms, each report has its checkpoint
CHECKPOINT_SHARE = 0.01

# One worker process serves many trials; another session may find other data.
_cache: dict[tuple[str, str, FeaturesKey], Features] = {}
_manifests: dict[str, Manifest] = {}
_staged_features: dict[str, StagedFeatures] = {}
# Seconds of the last checkpoint of a model with so many weights: what a trial's first one will cost
# is known before.
_save_costs: dict[int, float] = {}


def forget_data() -> None:
    """Before a session: manifest and features are read anew."""
    _manifests.clear()
    _staged_features.clear()
    _cache.clear()


def _features(order: Order, config: TrainConfig) -> Features:
    if order.manifest not in _manifests:
        _manifests[order.manifest] = _manifest(order)
    wanted = config.features_key._replace(speech=order.speech, text=order.text)
    key = order.manifest, order.features, wanted
    if key not in _cache:
        folder = Path(order.features)
        if order.features_url is not None:
            folder = _staged(order.features_url, order.cache).bring_for(wanted)
        _cache[key] = load_features(_manifests[order.manifest], folder, *wanted)
    return _cache[key]


def _staged(url: str, cache: str | None) -> StagedFeatures:
    if url not in _staged_features:
        _staged_features[url] = StagedFeatures(url, None if cache is None else Path(cache))
    return _staged_features[url]


def _manifest(order: Order) -> Manifest:
    """What a trial may know of the corpus: nothing of the test split."""
    if order.sealed is None:
        return read_manifest(order.manifest, check_audio=False).without_test()
    return replace(
        read_manifest(order.sealed, check_audio=False),
        path=Path(order.manifest),
        sha256=order.manifest_sha256,
        classes=tuple(order.classes),
    )


class Member:
    """A trial that this worker trains, from its last checkpoint on."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.sweep, self.number = Path(order.sweep), order.number
        load_here(order.settings)
        config = make_config(order.settings)
        device = resolve_device(order.device)
        features = _features(order, config)
        self.run: Run = begin(
            config,
            features,
            objective=order.metric,
            device=device,
            precision=order.precision,
            fold=order.fold,
            batch_parts=order.batch_parts,
        )
        self.fold = order.fold or 1
        self.warnings: list[str] = []
        self._kept = self._go_on()  # checkpoints that the driver knows, the newer first
        self._answers = self._answers_so_far()  # (N,) of each epoch, where it trains a fold
        self.epochs: list[Epoch] = []  # since the last cut
        self._num_weights = sum(weight.numel() for weight in self.run.model.parameters())
        self._saved, self._save_s = time.monotonic(), _save_costs.get(self._num_weights, 0.0)
        self._told = 0  # the last epoch that was reported
        self._has_written_best = False

    def _go_on(self) -> list[Path]:
        """Bring the run to its last checkpoint, or where that is damaged to the one before; returns
        those that are good.
        """
        known = self.order.checkpoints
        paths = [self._checkpoint_file(found.epoch) for found in known]
        for place, checkpoint in enumerate(known):
            try:
                load_checkpoint(self.run, paths[place], checkpoint.sha256)
            except (FileNotFoundError, ValueError) as error:
                if place == len(known) - 1:
                    raise
                self.warnings.append(f"{error}; went on from the checkpoint before it")
            else:
                return paths[place:]
        return []

    def _answers_so_far(self) -> list[Tensor]:
        """Nothing where they were not kept, as by an earlier version."""
        if self.order.fold is None or self.run.epoch == 0:
            return []
        try:
            content = answers_file(self.sweep, self.number, self.fold).read_bytes()
            kept = load_checked(content)[0]["answers"]
        except (FileNotFoundError, ValueError, KeyError):
            return []
        return [*kept[: self.run.epoch]] if len(kept) >= self.run.epoch else []

    def add(
        self,
        result: EpochResult,
        is_cpu_time: bool,
        memory_mb: float,
        elapsed_s: float,
        together: int,
    ) -> None:
        """Take note of an epoch that took `elapsed_s` by the clock for all `together` that were
        trained in it.
        """
        if self.order.fold is not None and len(self._answers) == result.epoch - 1:
            self._answers.append(result.answers.to(torch.int16))
        ended = time.time()
        metrics, tables = split_tables(result.metrics)
        alone_s = min(result.seconds, result.cpu_seconds) if is_cpu_time else result.seconds
        self.epochs.append(
            Epoch(
                epoch=result.epoch,
                train_loss=result.train_loss,
                metrics=metrics,
                tables=tables,
                seconds=result.seconds,
                alone_seconds=alone_s,
                started=ended - elapsed_s,
                ended=ended,
                memory_mb=memory_mb,
                together=together,
                ms_per_utterance=result.eval_seconds / len(self.run.dev) * 1000,
                fold=self.fold,
            )
        )

    @property
    def is_at_rung(self) -> bool:
        return self.run.epoch in self.order.rungs

    @property
    def has_to_wait(self) -> bool:
        """Whether the driver has to decide before anything more is trained."""
        return self.is_at_rung or self.run.is_finished

    def cut(self, num_members: int, failure: Failure | None) -> Cut:
        """The epochs since the last cut, with a checkpoint where one is due. All members wait for
        each other's.

        What failed in the middle of an epoch has weights of no epoch: of that none is made.
        """
        run = self.run
        epochs, warnings = tuple(self.epochs), tuple(self.warnings)
        cut = Cut(self.number, run.epoch, epochs, warnings, failure, run.is_finished)
        self.epochs, self.warnings = [], []
        if failure is not None or (not cut.epochs and not cut.is_last):
            return cut
        # At the end or at a rung the driver may close the trial: what it would export has to be on
        # the disk before it is told.
        is_due = time.monotonic() - self._saved >= num_members * self._save_s / CHECKPOINT_SHARE
        if not (cut.is_last or self.is_at_rung or is_due):
            return cut
        if self.order.fold is not None and len(self._answers) == run.epoch:
            cut = replace(cut, answers=checked_bytes({"answers": torch.stack(self._answers)}))
        if cut.is_last and self.order.fold is not None:
            return cut  # its answers are what is wanted; what ships is trained on all folds
        started_cpu = time.thread_time()  # the clock would depend on what else runs
        if cut.is_last:
            content = checked_bytes(run.best_weights)
        else:
            content = checkpoint_bytes(run)
            self._saved = time.monotonic()
        weights = Weights(run.epoch, content, time.thread_time() - started_cpu)
        return replace(cut, weights=weights)

    def write(self, cut: Cut) -> Report:
        """What the driver is told of a cut, its checkpoint or best weights written. Raises OSError
        where they cannot be.
        """
        self._told = max(self._told, cut.epoch)
        if cut.answers is not None:
            write_bytes(answers_file(self.sweep, self.number, self.fold), cut.answers)
        if cut.weights is None:
            return cut.report()
        if cut.is_last:
            self._write_best(cut.weights.content)
            return cut.report()
        started_cpu = time.thread_time()
        path = self._checkpoint_file(cut.weights.epoch)
        write_bytes(path, cut.weights.content)
        sha256 = hashlib.sha256(cut.weights.content).hexdigest()
        # The driver may die before it records this one, and the last that it has recorded may turn
        # out damaged.
        self._remove_checkpoints(but=(path, *self._kept))
        self._kept = [path, *self._kept[:1]]
        self._save_s = cut.weights.seconds + time.thread_time() - started_cpu
        _save_costs[self._num_weights] = self._save_s
        return cut.report(Checkpoint(cut.weights.epoch, sha256, str(path), self.fold))

    def slim(self) -> None:
        """After the trial's end: keep the best weights, drop optimizer and last weights (a quarter
        of the size stays). Of a fold its answers stay alone.
        """
        if self.order.fold is not None:
            self._remove_checkpoints(but=())
            return
        # Where the checkpoint is gone the driver has dropped this trial's weights; where it was
        # trained on since it was last reported, the best weights may be of an epoch that nobody
        # knows.
        is_as_told = self.run.epoch == self._told
        if not self._has_written_best and is_as_told and self._kept and self._kept[0].is_file():
            self._write_best(checked_bytes(self.run.best_weights))
        if self._has_written_best:
            self._remove_checkpoints(but=())

    def _write_best(self, content: bytes) -> None:
        write_bytes(best_file(self.sweep, self.number), content)
        self._has_written_best = True

    def _checkpoint_file(self, epoch: int) -> Path:
        return checkpoint_file(self.sweep, self.number, epoch, self.fold)

    def _remove_checkpoints(self, but: tuple[Path | None, ...]) -> None:
        # Of this fold: another worker may be in the next one.
        pattern = self._checkpoint_file(0).name.replace("00000", "[0-9]*")
        for path in trial_folder(self.sweep, self.number).glob(pattern):
            if path not in but:
                path.unlink(missing_ok=True)  # the driver may just be dropping this trial's weights
