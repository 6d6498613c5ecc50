"""Tables of the report: systems, failures by cause, what a sweep was made of."""

import platform
import re
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from mmm.version import VERSION
from search.ledger.durations import duration
from search.ledger.history import History
from search.ledger.trial import Trial
from search.results.page.cost import ms_per_utterance
from search.results.page.paths import command_without_folders, last_part, without_folders

SYSTEM_COLUMNS = (
    *("system", "trials", "complete", "stopped", "failed", "best score", "median score"),
    *("parameters of the best", "ms per utterance", "training"),
)
_MOST = 12  # trials by number


def system_rows(history: History) -> list[tuple[str, ...]]:
    """How each system fared, the best first."""
    names = {trial.architecture for trial in history.trials.values() if trial.architecture}
    found = [_system_row(history, name) for name in names]
    return [row for _, row in sorted(found, key=lambda pair: (-pair[0], pair[1][0]))]


def _system_row(history: History, name: str) -> tuple[float, tuple[str, ...]]:
    metric = history.spec.metric
    trials = [trial for trial in history.trials.values() if trial.architecture == name]
    scored = [(best[1], trial) for trial in trials if (best := trial.best(metric))]
    states = Counter(trial.state for trial in trials)
    first = max(scored, key=lambda pair: (pair[1].state != "failed", pair[0]), default=None)
    num_parameters = first[1].num_parameters if first else None
    ms = ms_per_utterance(first[1]) if first else None
    seconds = sum(trial.alone_seconds for trial in trials)
    return first[0] if first else -1.0, (
        name,
        str(len(trials)),
        *(str(states[state]) for state in ("complete", "pruned", "failed")),
        f"{first[0]:.4f}" if first else "",
        f"{statistics.median(score for score, _ in scored):.4f}" if scored else "",
        f"{num_parameters:,}" if num_parameters else "",
        f"{ms:.3f}" if ms is not None else "",
        duration(seconds) if seconds >= 1 else "",
    )


@dataclass(frozen=True)
class Cause:
    """A reason for which trials failed, numbers aside."""

    reason: str  # of the first of them
    trials: tuple[int, ...]


def failures(history: History) -> list[Cause]:
    """Of all failed trials, the most frequent first."""
    found: dict[str, list[Trial]] = {}
    for trial in history.trials.values():
        if trial.state == "failed":
            # As `diverged at epoch 3` and `at epoch 7` are one cause.
            kind = re.sub(r"\d[\d.,]*(?:e[+-]?\d+)?", "0", trial.reason)
            found.setdefault(kind, []).append(trial)
    causes = [
        Cause(without_folders(trials[0].reason), tuple(trial.number for trial in trials))
        for trials in found.values()
    ]
    return sorted(causes, key=lambda cause: -len(cause.trials))


def some(numbers: tuple[int, ...]) -> str:
    """`3, 8, 12`, cut where there are many."""
    return ", ".join(map(str, numbers[:_MOST])) + (", ..." if len(numbers) > _MOST else "")


_LIBRARIES = ("torch", "numpy", "scikit-learn", "ray", "optuna", "mlflow")


def versions() -> dict[str, str]:
    """Of what is installed where the report is written."""
    found = {"mmm-search": VERSION, "Python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commands(history: History) -> list[str]:
    """Of every session, without folders; the same twice is told once."""
    told = [session.command for _, session in history.sessions if session.command]
    return list(map(command_without_folders, dict.fromkeys(told or [history.spec.command])))


def data_facts(history: History) -> Iterator[tuple[str, str]]:
    """What the sweep was made of, by name."""
    spec = history.spec
    yield "space", last_part(spec.space)
    yield "manifest", last_part(spec.manifest)
    yield "features", last_part(spec.features)
    if history.data:
        note = history.data[-1][1]
        yield "SHA-256 of the manifest", note.manifest.sha256
        for split in note.manifest.splits or {}:
            digest = (note.manifest.splits or {})[split]
            yield f"utterances in {split}", f"{digest.utterances:,}"
        if stores := sorted(
            {last_part(str(store.encoder)) for store in note.stores if store.encoder}
        ):
            yield "encoders", ", ".join(stores)
    if spec.folds:
        yield "folds", str(spec.folds)
    yield "epochs", str(spec.epochs)
    yield "rungs", ", ".join(map(str, spec.rungs)) or "none"
    yield "seed", str(spec.seed)
    yield "workers", str(spec.workers)
    if spec.gpus_per_trial:
        yield "GPUs of a trial", f"{spec.gpus_per_trial:g}"
