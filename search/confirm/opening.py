"""The test split, opened for finalists that are named, once: who, when and what stands in the
ledger of the sweep that trained them and beside the features.
"""

import datetime
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from mmm.bundle.read import load_bundle
from mmm.bundle.sealed_test import check_has_test, open_test, opener, read_openings
from mmm.console import say
from mmm.manifest import Manifest
from mmm.manifest_csv import read_manifest
from mmm.metrics import value_of
from search.ledger.data import with_classes_of
from search.ledger.events import open_sweep
from search.ledger.history import History
from search.ledger.records import OpenedTest, ScoredOnTest
from search.ledger.spec import SweepSpec
from search.results.export import export_trial
from search.session import command_line
from search.space.fixed import CHOICE
from search.storage.openings import on_record
from search.tracking.outbox import Outbox

LEADER, ALL = "leader", "all"  # names for whoever they are
_FOLDER = "opened"  # bundles of the runs, in the folder of the sweep that trained them


@dataclass(frozen=True)
class TestScores:
    """Of a finalist, on the test split, each seed's bundle."""

    __test__ = False  # for pytest

    finalist: str
    trials: tuple[int, ...]  # of the sweep that trained it
    scores: tuple[float, ...]
    mean: float
    deviation: float | None  # over seeds; None of one


@dataclass(frozen=True)
class Opening:
    """What is known of the test split."""

    when: str  # ISO 8601, UTC
    who: str
    num_utterances: int
    finalists: tuple[TestScores, ...]
    num_on_record: int  # openings of this test split beside the features, for whatever bundle


def check_may_open(history: History) -> None:
    """Raise ValueError where a sweep's manifest has no test split."""
    check_has_test(_manifest(history))


def named(asked: Sequence[str], finalists: Sequence[str]) -> list[str]:
    """Finalists, best first as given, that `--open-test` names: `12` for `trial 12`, `default 1`,
    `leader` or `all`. Raises ValueError where one is none.
    """
    by_name = {LEADER: finalists[0]}
    by_name |= {name.removeprefix("trial "): name for name in finalists}
    by_name |= {name: name for name in finalists}
    if unknown := [one for one in asked if one not in by_name and one != ALL]:
        raise ValueError(
            f"--open-test {shlex.quote(unknown[0])}: no finalist with a run is called so; expected"
            f" {', '.join(name.removeprefix('trial ') for name in finalists)}, {LEADER} or {ALL}"
        )
    wanted = finalists if ALL in asked else [by_name[one] for one in asked]
    return [name for name in finalists if name in wanted]


def open_for(
    runs: Path, folder: Path, history: History, wanted: Sequence[str], console: Console
) -> None:
    """Open the test split for every run of these finalists, unless that was done; `folder` and
    `history` are those of the sweep that trained them, whose data are on this machine.

    Raises ValueError where it was opened for others: who chooses by test scores has none any more.
    """
    spec = history.spec
    if history.opened_test:
        when, earlier = history.opened_test[0]
        if set(earlier.finalists) != set(wanted):
            raise ValueError(
                f"the test split was opened for {', '.join(earlier.finalists)} by {earlier.who} on"
                f" {_day(when)}; opened for others as well it would be one more split to choose"
                " on, so that it is opened once: leave out --open-test, or confirm under another"
                " name with --as, whose opening is counted beside this one"
            )
        numbers = list(earlier.trials)
    else:
        numbers = [
            trial.number
            for trial in history.trials.values()
            if trial.state == "complete" and trial.params.get(CHOICE) in wanted
        ]
    if all(number in history.test_scores for number in numbers):
        return
    manifest, cpu = _manifest(history), torch.device("cpu")
    say(console, f"opening the test split for {len(numbers)} runs of {', '.join(wanted)}")
    # All that may go wrong does so before anything is opened.
    bundles = {}
    for number in numbers:
        if not (out := folder / _FOLDER / f"trial-{number:05}").is_dir():
            out.parent.mkdir(exist_ok=True)
            export_trial(history, folder, number, out)
        bundles[number] = load_bundle(out)
    with (
        on_record(spec.features_url, Path(spec.features)),
        Outbox() as outbox,
        open_sweep(folder) as ledger,
    ):
        outbox.follow(runs, spec.name)
        if not history.opened_test:
            ledger.append(
                OpenedTest(
                    opener(),
                    command_line(),
                    tuple(wanted),
                    tuple(numbers),
                    manifest.sha256,
                    len(manifest.sealed_test_rows()),
                )
            )
        for number, bundle in bundles.items():
            if number in ledger.history.test_scores:
                continue
            (metrics,) = open_test([bundle], manifest, Path(spec.features), cpu)
            scalars = {name: value for name, value in metrics.items() if isinstance(value, float)}
            ledger.append(ScoredOnTest(number, bundle.sha256, scalars))
        trouble = outbox.close()
    if trouble:
        say(
            console,
            f"MLflow has not got the test scores yet ({trouble}); send them with: mmm-search"
            f" mlflow-sync {spec.name} --runs {shlex.quote(str(runs))}",
        )


def opening_of(history: History) -> Opening | None:
    """What the ledger `history` and the record beside the features tell; None where it is sealed,
    or was opened and then no score was written down.
    """
    if not history.opened_test or not history.test_scores:
        return None
    when, opened = history.opened_test[0]
    scores: Mapping[int, float] = {
        number: value_of(metrics, history.spec.metric)  # type: ignore[arg-type]
        for number, metrics in history.test_scores.items()
    }
    found = []
    for name in opened.finalists:
        of_name = [
            number
            for number in opened.trials
            if number in scores and history.trials[number].params.get(CHOICE) == name
        ]
        values = np.array([scores[number] for number in of_name])
        if len(values):
            spread = float(values.std(ddof=1)) if len(values) > 1 else None
            found.append(
                TestScores(
                    name, tuple(of_name), tuple(values.tolist()), float(values.mean()), spread
                )
            )
    return Opening(
        datetime.datetime.fromtimestamp(when, datetime.UTC).isoformat(timespec="seconds"),
        opened.who,
        opened.utterances,
        tuple(found),
        num_openings(history.spec, opened.manifest_sha256),
    )


def num_openings(spec: SweepSpec, manifest_sha256: str) -> int:
    """On record beside the features, of the test split of one manifest."""
    return sum(
        row["manifest_sha256"] == manifest_sha256 for row in read_openings(Path(spec.features))
    )


def _manifest(history: History) -> Manifest:
    return with_classes_of(history, read_manifest(history.spec.manifest, check_audio=False))


def _day(when: float) -> str:
    return datetime.datetime.fromtimestamp(when, datetime.UTC).date().isoformat()
