"""A trial of a sweep, trained again from what the ledger says of it, and every epoch's metrics held
against those that were recorded.
"""

import math
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from mmm.device import processor_here, resolve_device
from mmm.training.config import TrainConfig, make_config
from mmm.training.features import Features, load_features
from mmm.training.fit import Diverged, EpochResult, fit
from mmm.training.own_system import load_recorded
from mmm.training.run import begin
from search.engine.memory import batch_parts
from search.ledger.data import Changes, describe, with_classes_of
from search.ledger.history import History
from search.ledger.records import DataNote, Epoch, Session
from search.ledger.trial import Trial
from search.space.settings import SettingsCheck, precision_of, sweep_precisions

# Where equality is not expected, as in the check of what is exported: another processor, number of
# threads or a GPU adds in another order, and a validation row on the edge between two classes may
# flip. Losses move smoothly, so their tolerance is relative and smaller.
SCORE_TOLERANCE, LOSS_TOLERANCE = 0.01, 1e-3
_LOSSES = ("train_loss", "loss")


@dataclass(frozen=True)
class Difference:
    """A figure that is another one now; `size` is relative for losses. None where it is missing, as
    when training diverges.
    """

    fold: int
    epoch: int
    metric: str
    recorded: float
    found: float | None
    size: float | None

    @property
    def words(self) -> str:
        fold = f"fold {self.fold}, " if self.fold > 1 else ""
        figures = f"{self.metric} {self.found!r} instead of {self.recorded!r}"
        return f"{fold}epoch {self.epoch}: {figures}"


@dataclass(frozen=True)
class Reproduction:
    """What came of it."""

    sweep: str
    trial: int
    num_epochs: int  # that were compared, of all folds
    is_equal: bool  # every figure of every epoch, tables among them, to the bit
    expects_equal: bool
    expectation: str  # why it is expected, or what tolerance holds instead and why
    holds: bool  # what was expected
    first: Difference | None  # the first figure that is not equal, or is over the tolerance
    largest: Difference | None  # of those that differ
    changed: tuple[str, ...]  # of the data, since the trial was trained
    device: str
    precision: str
    threads: int
    seconds: float

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def reproduce(history: History, number: int, device: str | None = None) -> Iterator[Reproduction]:
    """Train trial `number` again, on the device of the sweep or on `device`; yields what there is
    to say after each epoch, the last time after all that the ledger has.

    Raises ValueError where the ledger has no epoch of it, or settings and features do not fit;
    FileNotFoundError where features are gone.
    """
    spec, trial = history.spec, _trained(history, number)
    load_recorded(trial.settings)
    config = make_config(trial.settings)
    features = _features(history, config)
    changed = tuple(_changed(history, number, config, features))
    where = device or ("cuda" if spec.gpus_per_trial > 0 else "cpu")
    precisions = spec.precisions or sweep_precisions(spec)
    precision = trial.precision or precision_of(precisions, trial.architecture)
    sessions = _sessions_of(history, trial)
    threads = next((one.threads for one in sessions if one.threads), 1)
    reason = _no_equality(history, trial, config, where)
    expectation = (
        f"equal within a tolerance (scores {SCORE_TOLERANCE:g}, losses {LOSS_TOLERANCE:g} of their"
        f" value), because {reason}"
        if reason
        else "equal to the bit, on this kind of processor and with as many threads"
    )
    torch.set_num_threads(threads)
    started = time.monotonic()
    differences: list[Difference] = []
    first: Difference | None = None
    tables_differ = False
    pairs = _side_by_side(history, trial, config, features, where, precision)
    for num_epochs, (recorded, found) in enumerate(pairs, start=1):
        here = list(_differences(recorded, found))
        differences += here
        tables_differ = tables_differ or not _has_all(found, recorded)
        if first is None:
            first = next((one for one in here if not reason or _is_over(one)), None)
        yield Reproduction(
            sweep=spec.name,
            trial=number,
            num_epochs=num_epochs,
            is_equal=not differences and not tables_differ,
            expects_equal=not reason,
            expectation=expectation,
            holds=first is None and (bool(reason) or not tables_differ),
            first=first,
            largest=max(differences, key=_order, default=None),
            changed=changed,
            device=where,
            precision=precision,
            threads=threads,
            seconds=round(time.monotonic() - started, 3),
        )


def _trained(history: History, number: int) -> Trial:
    name = history.spec.name
    if (trial := history.trials.get(number)) is None:
        raise ValueError(
            f"sweep {name!r} has no trial {number}; its trials are 0 to {len(history.trials) - 1}"
        )
    if trial.copied_from is not None:
        raise ValueError(
            f"trial {number} was not trained, its epochs are those of trial {trial.copied_from};"
            f" give --trial {trial.copied_from}"
        )
    if not trial.epochs:
        raise ValueError(
            f"trial {number} of sweep {name!r} has no epoch to compare with"
            f" ({trial.reason or trial.state})"
        )
    return trial


def _features(history: History, config: TrainConfig) -> Features:
    spec = history.spec
    manifest = with_classes_of(history, SettingsCheck(spec).manifest)
    return load_features(manifest, Path(spec.features), *spec.features_key(config))


def _changed(history: History, number: int, config: TrainConfig, features: Features) -> list[str]:
    """What of the data is not as it was when the trial was trained, as far as the ledger tells."""
    then = _data_of(history, number)
    if then is None:
        return []
    now = describe(features.manifest, Path(history.spec.features), [features])
    used = {("audio", config.audio_feature), ("text", config.context)}
    # Of the other stores nothing is known now, and nothing is wanted.
    there = {store.digest for store in now.stores if store.content is not None}
    kept = [one for one in then.stores if one.digest in there or one.content is None]
    mine = DataNote(then.manifest, tuple(kept))
    return Changes(mine, now, used, has_folds=history.spec.folds is not None).what


def _data_of(history: History, number: int) -> DataNote | None:
    """The note about data that a trial was trained under; None where the ledger has none."""
    found = None
    for before, note in history.data:
        if found is None or number >= before or number in note.restarted:
            found = note
    return found


def _sessions_of(history: History, trial: Trial) -> list[Session]:
    """Those that it may have been trained in."""
    starts = [when for when, _ in history.sessions]
    ends = [*starts[1:], math.inf]
    ended = math.inf if trial.ended is None else trial.ended
    return [
        session
        for (start, session), end in zip(history.sessions, ends, strict=True)
        if start <= ended and end >= trial.suggested
    ]


def _no_equality(history: History, trial: Trial, config: TrainConfig, device: str) -> str:
    """Why figures are not expected to be equal to the bit; empty where they are."""
    spec = history.spec
    sessions = _sessions_of(history, trial)
    if device != ("cuda" if spec.gpus_per_trial > 0 else "cpu"):
        return f"the device is another one, {device}"
    if spec.address is not None:
        return "the ledger does not say on which machine of the cluster it was trained"
    if any(not one.processor or one.threads is None for one in sessions) or not sessions:
        return "the ledger does not say on what kind of processor, or with how many threads"
    if others := {one.processor for one in sessions} - {processor_here()}:
        return f"it was trained on another kind of processor, {', '.join(sorted(others))}"
    if device == "cuda" and {one.host for one in sessions} != {socket.gethostname()}:
        return "it was trained on another machine's GPU"
    if len({one.threads for one in sessions}) > 1:
        return "it was trained in sessions with different numbers of threads"
    # Pooled systems round in a pack as they do alone, in one thread.
    is_alike = config.is_pooled and sessions[0].threads == 1
    if not is_alike and any((one.together or 1) > 1 for one in trial.all_epochs):
        return "it was trained in a pack with others"
    return ""


def _side_by_side(
    history: History,
    trial: Trial,
    config: TrainConfig,
    features: Features,
    device: str,
    precision: str,
) -> Iterator[tuple[Epoch, EpochResult | None]]:
    """Each recorded epoch of each fold with what it comes to now; None: training diverged."""
    for fold, recorded in enumerate(trial.folds, start=1):
        run = begin(
            config,
            features,
            objective=history.spec.metric,
            device=resolve_device(device),
            precision=precision,
            fold=fold if history.spec.folds else None,
            batch_parts=batch_parts(trial.memory_attempt),
        )
        results = fit(run)
        for entry in recorded:
            try:
                found = next(result for result in results if result.epoch == entry.epoch)
            except Diverged:
                yield entry, None
                return
            yield entry, found


def _differences(recorded: Epoch, found: EpochResult | None) -> Iterator[Difference]:
    """Of the figures of an epoch that are one number."""
    now = {} if found is None else {"train_loss": found.train_loss, **found.metrics}
    then = {"train_loss": recorded.train_loss, **recorded.metrics}
    for name, value in then.items():
        other = now.get(name)
        if other == value:
            continue
        here = float(other) if isinstance(other, int | float) else None
        size = None if here is None else abs(here - value)
        if size is not None and name in _LOSSES:
            size /= max(abs(value), 1e-12)
        yield Difference(recorded.fold, recorded.epoch, name, value, here, size)


def _has_all(found: EpochResult | None, recorded: Epoch) -> bool:
    """Whether all recorded metrics, tables among them, are the same now; a later version may have
    more.
    """
    now: dict[str, object] = {} if found is None else dict(found.metrics)
    return all(now.get(name) == value for name, value in recorded.all_metrics.items())


def _is_over(one: Difference) -> bool:
    """Whether it is more than the tolerance."""
    tolerance = LOSS_TOLERANCE if one.metric in _LOSSES else SCORE_TOLERANCE
    return one.size is None or one.size > tolerance


def _order(one: Difference) -> float:
    return math.inf if one.size is None else one.size


def sentences(found: Reproduction) -> Iterator[str]:
    """The outcome in words, the verdict first."""
    what = f"trial {found.trial} of sweep {found.sweep}"
    if found.is_equal:
        yield f"Reproduced: {what}, {found.num_epochs} epochs, every metric equal to the bit."
    elif found.holds and found.largest is not None:
        yield (
            f"Reproduced to the tolerance: {what}, {found.num_epochs} epochs; the largest"
            f" difference is of {found.largest.words}."
        )
    elif found.holds:
        yield f"Reproduced to the tolerance: {what}, but for tables of single classes."
    elif found.first is not None:
        yield f"Not reproduced: {what}; the first that differs is of {found.first.words}."
    else:
        yield f"Not reproduced: {what}; its metrics are equal, its tables of classes are not."
    yield f"Expected: {found.expectation}."
    for change in found.changed:
        yield f"The data were changed since it was trained: {change}."
    if not found.holds and not found.changed:
        yield (
            "The data are as they were, as far as the ledger tells; another version of the code or"
            " of a library is what remains."
        )
