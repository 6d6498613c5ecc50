"""A manifest, a features folder, a sweep's ledger and its MLflow store."""

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

from mmm.features.encode_command import MANIFEST
from mmm.features.named import encoders_in, num_bytes
from mmm.features.store import open_store
from mmm.manifest import Manifest
from mmm.manifest_csv import read_manifest
from search.doctor.finding import Finding, fault_of
from search.ledger.events import read_history
from search.ledger.files import best_weights, command_for
from search.ledger.history import History
from search.ledger.lock import is_held
from search.ledger.spec import without_password
from search.results.leaderboard import counts
from search.tracking.store import count_runs


def brought(
    subject: str,
    given: str | None,
    here: Callable[[str, Path | None], Path],
    cache: Path | None,
) -> tuple[Path | None, list[Finding]]:
    """Where a manifest or features are on this disk, a path or a URL being given, and what kept
    them from it.
    """
    try:
        return (None if given is None else here(given, cache)), []
    except (ValueError, OSError) as error:
        return None, [fault_of(subject, error)]


def manifest(path: Path) -> Iterator[Finding]:
    try:
        found = read_manifest(path, check_audio=False)
    except (ValueError, OSError) as error:
        yield fault_of("manifest", error)
        return
    splits = ", ".join(
        f"{sum(one.split == split for one in found.utterances)} {split}"
        for split in ("train", "dev", "test")
    )
    num_classes = len(found.classes)
    text = f"{path}: {len(found.utterances)} utterances ({splits}), {num_classes} classes"
    yield Finding("ok", "manifest", text)
    if (missing := _missing_audio(found)) is not None:
        yield missing


def _missing_audio(found: Manifest) -> Finding | None:
    clips = {one.audio: found.audio_path(one) for one in found.utterances}
    missing = [name for name, path in clips.items() if not path.is_file()]
    if not missing:
        return None
    return Finding(
        "note",
        "manifest",
        f"{len(missing)} of {len(clips)} audio files are not on this machine, the first: "
        f"{missing[0]}; features are enough to search, encoding needs them",
    )


def features(folder: Path, manifest_path: Path | None) -> Iterator[Finding]:
    named = manifest_path or MANIFEST
    try:
        encoders = encoders_in(folder, named)
    except (ValueError, OSError) as error:
        yield fault_of("features", error)
        return
    for one in encoders:
        try:
            for path in one.stores:
                store = open_store(path, named)
                store.check("values")
                store.check("pooled")
        except (ValueError, OSError) as error:
            yield fault_of("features", error)
            continue
        kind = "speech" if one.kind == "audio" else "text"
        held = ", ".join([*one.audio_features, *(f"context {n}" for n in one.contexts)])
        megabytes = sum(map(num_bytes, one.stores)) / 1e6
        yield Finding(
            "ok", "features", f"{kind} {one.name}: {held or 'layers'}, {megabytes:.0f} MB"
        )
    for kind, what in (("audio", "speech"), ("text", "text")):
        if not any(one.kind == kind for one in encoders):
            yield Finding(
                "fault",
                "features",
                f"{folder} has no {what} features",
                f"run: {shlex.join(['mmm', 'encode', str(named), '--features', str(folder)])}",
            )


def sweep(folder: Path) -> Iterator[Finding]:
    """Its ledger, who runs it, what is left of its best trial."""
    try:
        history = read_history(folder / "ledger.sqlite")
    except (ValueError, OSError) as error:
        yield fault_of("ledger", error)
        return
    states = ", ".join(f"{number} {state}" for state, number in counts(history).items() if number)
    yield Finding("ok", "ledger", f"{folder.name}: {states or 'no trials'}, every event checked")
    yield from _session(folder, history)
    best = history.best
    if best is not None and not history.spec.folds:  # over folds an export trains them
        trial = history.trials[best[1]]
        try:
            kept = best_weights(
                folder, best[1], trial.checkpoints, is_unfinished=trial.state == "running"
            )
        except ValueError as error:
            yield fault_of("weights", error)
        else:
            if kept is None:
                yield Finding(
                    "note", "weights", f"of the best trial, {best[1]}, none are on this machine"
                )


def _session(folder: Path, history: History) -> Iterator[Finding]:
    running = is_held(folder / "lock")
    if running:
        yield Finding("ok", "session", "a process runs it")
    elif history.last_close is None:
        yield Finding(
            "note",
            "session",
            "the last one was killed; nothing that was reported is lost",
            f"run: {command_for('resume', folder)}",
        )
    else:
        yield Finding("ok", "session", f"ended: {history.last_close.why}")


def tracking(runs: Path, uri: str | None) -> Iterator[Finding]:
    shown = without_password(uri) if uri else f"{runs / 'mlflow.db'}"
    try:
        number = count_runs(runs, uri)
    except Exception as error:  # MLflow's and SQLAlchemy's own, of many kinds
        yield Finding(
            "fault",
            "tracking",
            f"{shown}: {' '.join(str(error).split())[:300]}",
            "the ledger has everything: once it answers again, run:"
            f" {command_for('mlflow-sync', runs / 'NAME')}",
        )
        return
    what = "none yet; the first sweep makes it" if number is None else f"{number} runs of ours"
    yield Finding("ok", "tracking", f"{shown}: {what}")
