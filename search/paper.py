"""The published comparison made again: four systems as published, under the published protocol and
under an honest one, beside the published figures (docs/reference-systems.md).

The published protocol trains on all rows but those of test and keeps the best of its checkpoints by
their scores on test. The honest one trains on train, chooses the epoch on validation, and sees test
once, if at all. Every opening of the test split goes through mmm/bundle/sealed_test.py.
"""

import json
import re
import shutil
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.table import Table

from mmm.bundle.read import load_bundle
from mmm.bundle.records import Provenance
from mmm.bundle.sealed_test import OPENINGS, check_has_test, open_test, read_openings
from mmm.bundle.write import save_run_bundle
from mmm.console import plain
from mmm.corpora.sessions import parse_sessions
from mmm.device import resolve_device
from mmm.files import write_json, write_text
from mmm.manifest import Manifest, class_order
from mmm.manifest_csv import manifest_text, read_manifest
from mmm.metrics import Metrics, classification_metrics, value_of
from mmm.training.config import make_config, published_params
from mmm.training.features import load_features
from mmm.training.fit import Diverged, fit
from mmm.training.run import ALL_FOLDS, Run, begin

# Accuracy, weighted precision, weighted F1, in percent (MMM, 2022): of KEMDy20 and AI Hub together.
PUBLISHED = {
    "vanilla_concat": (71.75, 69.59, 70.25),
    "three_way_concat": (73.13, 72.09, 72.14),
    "cross_attention": (77.75, 78.30, 77.34),
    "mlp_mixer": (78.88, 78.45, 78.42),
}
METRICS = ("accuracy", "weighted_precision", "weighted_f1", "macro_f1")
COLUMNS = ("system", "figures", "runs", *(name.replace("_", " ") for name in METRICS))
FIRST_SEED = 1024  # the published one; the others follow
CHECKPOINT_EVERY = 5  # epochs, as published
CHOSEN_BY = "weighted_f1"  # among the published protocol's checkpoints: which metric is not said

Protocol = Literal["published", "honest"]
Split = Literal["validation", "test"]


@dataclass(frozen=True)
class Asked:
    """What to compare, and on what."""

    manifest: Path
    features: Path
    out: Path
    seeds: int = 5
    epochs: int = 30
    open_test: bool = False
    test_sessions: str | None = None  # None: the manifest's own split
    speech: str | None = None  # encoders; None: the only one that is there
    text: str | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Scored:
    """A run on a split, and what the most frequent class of its training rows scores there; each
    `METRICS` by name.
    """

    protocol: Protocol
    system: str
    seed: int
    split: Split
    epoch: int
    scores: Mapping[str, float]
    majority: Mapping[str, float]


@dataclass(frozen=True)
class Comparison:
    """The runs that are done."""

    runs: tuple[Scored, ...]
    published: Mapping[str, Sequence[float]]
    is_opened: bool  # whether test was to be opened
    num_openings: int  # on record in the features folder, each bundle counted
    manifest: str
    features: str

    def as_json(self) -> dict[str, object]:
        return {**asdict(self), "rows": [list(row) for row in rows_of(self)]}


def make_again(asked: Asked, tell: Callable[[str], None]) -> Iterator[Comparison]:
    """Train and score what is not done yet, writing each into `asked.out`/paper.json; yields what
    there is before the first and after each.

    Raises ValueError where splits do not allow it, or `asked.out` is of other data or settings.
    """
    manifest = _dealt(asked)
    if asked.open_test:
        check_has_test(manifest)
    done = _read_done(asked, manifest)

    def comparison() -> Comparison:
        return Comparison(
            tuple(done),
            PUBLISHED,
            asked.open_test,
            len(read_openings(asked.features)),
            str(asked.manifest),
            str(asked.features),
        )

    yield comparison()
    for seed in range(FIRST_SEED, FIRST_SEED + asked.seeds):
        for system in PUBLISHED:
            for protocol, split, score in _PARTS:
                known = {(one.protocol, one.system, one.seed, one.split) for one in done}
                if (protocol, system, seed, split) in known:
                    continue
                if split == "test" and not asked.open_test:
                    continue
                tell(f"{system}, seed {seed}, {protocol} protocol, {split}")
                try:
                    done.append(score(asked, manifest, system, seed))
                except Diverged as error:
                    raise ValueError(f"{system}, seed {seed}: {error}") from None
                _write_done(asked, manifest, done)
                yield comparison()


def _dealt(asked: Asked) -> Manifest:
    """The manifest, with the sessions asked for in its test split; then a file of its own, so that
    what is written down of an opening names what was opened.
    """
    manifest = read_manifest(asked.manifest, check_audio=False)
    if asked.test_sessions is None:
        return manifest
    wanted = set(parse_sessions(asked.test_sessions, "--test-sessions"))
    numbers = {one.session: _number(one.session) for one in manifest.utterances}
    if missing := wanted - set(numbers.values()):
        raise ValueError(
            f"--test-sessions {asked.test_sessions}: no session"
            f" {', '.join(map(str, sorted(missing)))} in {asked.manifest}"
        )
    sealed = {one.session for one in manifest.utterances if one.split == "test"}
    if outside := sorted(name for name in sealed if numbers[name] not in wanted):
        raise ValueError(
            f"--test-sessions {asked.test_sessions}: {', '.join(outside)} of the sealed test split"
            " would be trained on; name these sessions too, or prepare the corpus anew with mmm"
            f" prepare kemdy20 DIR --test-sessions {asked.test_sessions} -o other.csv"
        )
    utterances = tuple(
        replace(one, split="test", fold=None) if numbers[one.session] in wanted else one
        for one in manifest.utterances
    )
    for split in ("train", "dev"):
        if not any(one.split == split and one.emotions for one in utterances):
            raise ValueError(
                f"--test-sessions {asked.test_sessions}: no labelled row is left in {split}, and"
                " the honest protocol needs both train and dev; name fewer sessions"
            )
    path = asked.out / "manifest.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, manifest_text(replace(manifest, utterances=utterances)))
    return read_manifest(path, check_audio=False)


def _number(session: str) -> int | None:
    """33 of `Sess33`."""
    found = re.search(r"(\d+)$", session)
    return int(found[1]) if found else None


def _begun(asked: Asked, manifest: Manifest, system: str, seed: int, protocol: Protocol) -> Run:
    """A run that knows nothing of test."""
    params = {**published_params(system), "seed": seed, "epochs": asked.epochs}
    params |= {"speech": asked.speech, "text": asked.text}
    seen = manifest.without_test()
    fold = None
    if protocol == "published":
        seen, fold = _all_in_one_fold(seen), ALL_FOLDS
    else:
        params["label_policy"] = "expand"  # every label of a row counts, not the last alone
    config = make_config({name: value for name, value in params.items() if value is not None})
    features = load_features(seen, asked.features, *config.features_key)
    return begin(config, features, device=resolve_device(asked.device), fold=fold)


def _all_in_one_fold(manifest: Manifest) -> Manifest:
    """Train and dev together, to be trained on: there is no validation split."""
    utterances = tuple(replace(one, fold=1) for one in manifest.utterances)
    classes = class_order({name for one in utterances for name in one.emotions})
    return replace(manifest, utterances=utterances, classes=classes)


def _honest(asked: Asked, manifest: Manifest, system: str, seed: int) -> Scored:
    """Trained on train, its epoch chosen by macro F1 on validation, and scored there."""
    run = _begun(asked, manifest, system, seed, "honest")
    for _ in fit(run):
        pass
    save_run_bundle(run, _honest_bundle(asked, system, seed), name=f"{system}, honest protocol")
    return _scored(manifest, "honest", system, seed, "validation", run.best_epoch, run.best_metrics)


def _honest_on_test(asked: Asked, manifest: Manifest, system: str, seed: int) -> Scored:
    """The bundle of the same run on test, opened once."""
    bundle = load_bundle(_honest_bundle(asked, system, seed))
    (metrics,) = open_test([bundle], manifest, asked.features, resolve_device(asked.device))
    epoch = bundle.provenance.epoch or 0
    return _scored(manifest, "honest", system, seed, "test", epoch, metrics)


def _honest_bundle(asked: Asked, system: str, seed: int) -> Path:
    return asked.out / "honest" / f"{system}-{seed}"


def _as_published(asked: Asked, manifest: Manifest, system: str, seed: int) -> Scored:
    """Trained on all rows but those of test, with a checkpoint every five epochs and after the
    last, of which the one is kept that scores best on test.
    """
    run = _begun(asked, manifest, system, seed, "published")
    folder = asked.out / "published" / f"{system}-{seed}"
    saved = {}
    for result in fit(run):
        if result.epoch % CHECKPOINT_EVERY == 0 or result.epoch == asked.epochs:
            path = folder / f"epoch-{result.epoch:03d}"
            path.parent.mkdir(parents=True, exist_ok=True)
            name = f"{system}, published protocol, epoch {result.epoch}"
            save_run_bundle(run, path, name=name, provenance=Provenance(), last=True)
            saved[result.epoch] = path
    bundles = [load_bundle(path) for path in saved.values()]
    device = resolve_device(asked.device)
    found = dict(zip(saved, open_test(bundles, manifest, asked.features, device), strict=True))
    epoch = max(found, key=lambda epoch: (value_of(found[epoch], CHOSEN_BY), -epoch))
    for other, path in saved.items():
        if other != epoch:
            shutil.rmtree(path)
    return _scored(manifest, "published", system, seed, "test", epoch, found[epoch])


_Score = Callable[[Asked, Manifest, str, int], Scored]
_PARTS: tuple[tuple[Protocol, Split, _Score], ...] = (
    ("honest", "validation", _honest),
    ("honest", "test", _honest_on_test),
    ("published", "test", _as_published),
)


def _scored(
    manifest: Manifest,
    protocol: Protocol,
    system: str,
    seed: int,
    split: Split,
    epoch: int,
    metrics: Metrics,
) -> Scored:
    rows = manifest.rows("train") + (manifest.rows("dev") if protocol == "published" else [])
    labels = Counter(name for row in rows for name in manifest.utterances[row].emotions)
    most = max(class_order(labels), key=lambda name: labels[name])
    # Of the rows that were scored the confusion says all that is needed: test is not read again.
    names = list(metrics["per_class"])
    true = np.repeat(np.arange(len(names)), np.sum(metrics["confusion_matrix"], axis=1))
    majority = classification_metrics(true, np.full(len(true), names.index(most)), names)
    return Scored(protocol, system, seed, split, epoch, _numbers(metrics), _numbers(majority))


def _numbers(metrics: Metrics) -> dict[str, float]:
    return {name: value_of(metrics, name) for name in METRICS}


def _about(asked: Asked, manifest: Manifest) -> dict[str, object]:
    """What runs that stand in one table have in common."""
    return {
        "manifest_sha256": manifest.sha256,
        "features": str(asked.features.resolve()),
        "epochs": asked.epochs,
        "speech": asked.speech,
        "text": asked.text,
    }


def _read_done(asked: Asked, manifest: Manifest) -> list[Scored]:
    path = asked.out / "paper.json"
    if not path.is_file():
        return []
    try:
        found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        about, runs = found["about"], [Scored(**one) for one in found["runs"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); choose another --out") from None
    now = _about(asked, manifest)
    if differing := [name for name in now if about.get(name) != now[name]]:
        shown = ", ".join(f"{name} {about.get(name)} instead of {now[name]}" for name in differing)
        raise ValueError(f"{path}: is of other data or settings ({shown}); choose another --out")
    return runs


def _write_done(asked: Asked, manifest: Manifest, done: Sequence[Scored]) -> None:
    asked.out.mkdir(parents=True, exist_ok=True)
    write_json(
        asked.out / "paper.json",
        {"about": _about(asked, manifest), "runs": [asdict(one) for one in done]},
    )


def rows_of(found: Comparison) -> Iterator[tuple[str, ...]]:
    """The table under `COLUMNS`, in percent: means over seeds, and their standard deviations."""
    for system, figures in found.published.items():
        yield system, "published, 2022", "", *(f"{value:.2f}" for value in figures), ""
        for protocol, split, _ in reversed(_PARTS):
            runs = [
                one
                for one in found.runs
                if (one.system, one.protocol, one.split) == (system, protocol, split)
            ]
            if runs:
                means = (_mean([one.scores[name] for one in runs]) for name in METRICS)
                yield system, f"{protocol} protocol, {split}", str(len(runs)), *means
    for protocol, split, _ in reversed(_PARTS):
        one = next((r for r in found.runs if (r.protocol, r.split) == (protocol, split)), None)
        if one is not None:
            figures = [100 * one.majority[name] for name in METRICS]
            name = f"{protocol} protocol, {split}"
            yield "majority class", name, "", *(f"{value:.2f}" for value in figures)


def _mean(values: Sequence[float]) -> str:
    """`70.25 ± 0.31`."""
    mean = f"{100 * statistics.mean(values):.2f}"
    return f"{mean} ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else mean


def sentences(found: Comparison, command: str) -> Iterator[str]:
    """What the table means; `command` is the one that made it."""
    yield (
        "In percent; of runs the mean and standard deviation over seeds. The published figures are"
        " of KEMDy20 with AI Hub's clips dealt to every session, tested on as well: they stand"
        " beside the others and are not compared with them."
    )
    yield (
        "Honest protocol: trained on train, each label of a row counts, the epoch chosen by macro"
        " F1 on validation."
    )
    if found.is_opened:
        yield (
            f"Published protocol: trained on train and validation, the best of every"
            f" {CHECKPOINT_EVERY} epochs chosen by {CHOSEN_BY.replace('_', ' ')} on test itself, a"
            " row with several labels counted by its last: its figures promise more than new data"
            " will keep."
        )
        yield (
            f"On record the test split has been opened {found.num_openings} times, each bundle"
            f" counted: {Path(found.features) / OPENINGS}."
        )
    else:
        yield (
            "The published protocol was not run: it chooses its checkpoint on the test split, which"
            " is sealed. To open it, which is written down beside the features:"
            f" {command} --open-test"
        )


def table_of(found: Comparison) -> Table:
    """For the terminal."""
    table = Table()
    for place, name in enumerate(COLUMNS):
        table.add_column(plain(name), justify="left" if place < 2 else "right")
    for row in rows_of(found):
        table.add_row(*map(plain, row))
    return table


def markdown_of(found: Comparison, command: str) -> str:
    """The same as Markdown: paper.md."""
    lines = [COLUMNS, ("---", "---", *["---:"] * (len(COLUMNS) - 2)), *rows_of(found)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in lines)
    return f"{table}\n\n{' '.join(sentences(found, command))}\n"
