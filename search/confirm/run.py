"""From a sweep to its confirmation: finalists are the trials of a second sweep, which has no
searcher and no rungs, so that workers, ledger, MLflow and going on after a crash are those of any.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from mmm.console import say
from mmm.files import write_json, write_text
from mmm.training.config import Params
from mmm.training.own_system import load_recorded
from search.confirm.answers import Validation
from search.confirm.finalists import (
    Finalist,
    choose_finalists,
    read_finalists,
    with_more,
    write_finalists,
)
from search.confirm.opening import check_may_open, named, open_for, opening_of
from search.confirm.page import page_of
from search.confirm.result import Confirmation, confirmation_of
from search.confirm.words import as_json
from search.ledger.data import data_changes
from search.ledger.events import read_history
from search.ledger.files import existing_sweep, sweep_dir
from search.ledger.history import History
from search.ledger.lock import is_held
from search.ledger.spec import ANY_FOLDS, SweepSpec
from search.results.baseline import FOLDER, baseline_of
from search.results.report import read_confirmed, read_winner, write_report
from search.session import command_line, resume, start
from search.space.settings import SettingsCheck
from search.storage.copies import Copies, Index
from search.storage.door import StorageError, Store
from search.storage.fetch import bring, with_copied_manifest
from search.storage.here import data_here

_FILE = "finalists.json"  # in the folder of the sweep that trains them
_ALL = 100_000  # as many weights as there are stay
_PLACES = ("manifest", "manifest_url", "features", "features_url", "cache")  # of a specification
_BEFORE_RACE = 3  # seeds of each finalist before any is dropped


@dataclass(frozen=True)
class Asked:
    """What `mmm-search confirm` was asked for."""

    top: int
    seeds: int
    per_system: bool = False
    include_default: bool = False
    budget_s: float | None = None  # of all sessions together; None: as it was, or without end
    confirm_as: str | None = None  # the name of the second sweep
    is_race: bool = False  # who is worse than the leader gets no more seeds
    over_folds: bool = False  # the manifest's, though the sweep was not
    open_test: tuple[str, ...] = ()  # finalists for whom the test split is opened; none: sealed


def confirm(
    runs: Path,
    name: str,
    asked: Asked,
    console: Console,
    changes: Mapping[str, Any],
    *,
    serial: bool = False,
) -> Confirmation | None:
    """Train the finalists of sweep `name` again, as far as that is not done, and compare them; None
    where training was interrupted. `changes`: workers, address, storage and where the data are,
    where not the sweep's own.

    Writes `confirm.json` and `confirm.html` into the sweep's folder. Raises ValueError or
    FileNotFoundError where that cannot be.
    """
    second = asked.confirm_as or f"{name}-confirm"
    if (storage := changes.get("storage")) is not None:
        with console.status("looking at the storage"):
            _bring_both(storage, name, second, runs, console)
    folder = existing_sweep(runs, name)
    history = read_history(folder / "ledger.sqlite")
    if is_held(folder / "lock"):
        raise ValueError(f"sweep {name!r} is running; confirm it when it has ended")
    places = {name: changes[name] for name in _PLACES if name in changes}
    changes = {name: value for name, value in changes.items() if name not in places}
    spec = with_copied_manifest(replace(history.spec, **places), folder, places)
    with console.status("bringing features"):
        history = data_here(replace(history, spec=spec))
    if asked.open_test:
        check_may_open(history)
    wanted = choose_finalists(
        history, asked.top, per_system=asked.per_system, include_default=asked.include_default
    )
    confirmed_in = sweep_dir(runs, second)
    if (confirmed_in / "ledger.sqlite").is_file():
        finalists, why = _begun_with(confirmed_in, wanted), "done"
    else:
        finalists = wanted
        spec = replace(_spec(history, confirmed_in, wanted, asked), **changes)
        why = _why(start(spec, runs, console, serial=serial))
    sweeps = _Sweeps(history, folder, confirmed_in, finalists)
    # It may have been begun on another machine.
    here = {name: getattr(history.spec, name) for name in _PLACES}
    more: dict[str, object] = {
        **changes,
        **here,
        "space": str((confirmed_in / _FILE).resolve()),
    }
    if asked.budget_s is not None:
        more["time_budget_s"] = asked.budget_s
    while why == "done" and (queue := _queue(sweeps, asked)) is not None:
        more |= {"enqueue": queue, "trials": len(queue)}
        why = _why(resume(runs, second, more, console, serial=serial))
    if why == "interrupted" or why.startswith("broken off"):
        say(console, f"not confirmed yet ({why}); go on with the same command: {command_line()}")
        return None
    with console.status("comparing the finalists"):
        found = sweeps.compared()
    if asked.open_test:
        names = named(asked.open_test, [one.name for one in found.finalists])
        open_for(runs, confirmed_in, sweeps.trained(), names, console)
        found = replace(found, opening=opening_of(sweeps.trained()))
    with console.status("writing it down"):
        write_json(folder / "confirm.json", as_json(found))
        write_text(folder / "confirm.html", page_of(found, history.spec.command, command_line()))
        write_report(
            folder / "report.html", history, read_confirmed(folder), read_winner(history, folder)
        )
    for trained in (history, sweeps.trained()):
        _copy(trained.spec, runs / trained.spec.name, storage, console)
    return found


def _bring_both(storage: str, name: str, second: str, runs: Path, console: Console) -> None:
    """A sweep and its confirmation, as far as there are copies. Raises as `bring`."""
    for one in (name, second):
        if one == second and Index.of(Store(storage).below(one)) is None:
            continue
        if (brought := bring(storage, one, runs)) is not None:
            say(console, f"sweep {one} {brought}")


def _copy(spec: SweepSpec, folder: Path, storage: str | None, console: Console) -> None:
    """What was written after the session that trained."""
    if (url := storage or spec.storage) is None:
        return
    try:
        with console.status(f"copying to {url}"):
            Copies(folder, Path(spec.manifest), url, spec.storage_interval_s, console.print).copy(
                True
            )
    except (StorageError, OSError) as error:
        say(console, f"warning: {folder.name} as it is now is not in {url} ({error})")


def _why(history: History) -> str:
    return history.last_close.why if history.last_close else "running"


def _spec(history: History, folder: Path, finalists: Sequence[Finalist], asked: Asked) -> SweepSpec:
    """The sweep that trains the finalists, whose file is written. Raises ValueError where the data
    are not those of the first.
    """
    spec = history.spec
    check = SettingsCheck(spec)
    for finalist in finalists:
        load_recorded(finalist.settings)
        check(finalist.settings)
    if changed := data_changes(history, check.data()).what:
        raise ValueError(
            f"sweep {spec.name!r}: the data are not those that its trials were trained on"
            f" ({'; '.join(changed)}), so that its scores and new ones would not compare; run a new"
            " sweep on them under another --name"
        )
    write_finalists(folder / _FILE, finalists)
    seeds = min(asked.seeds, _BEFORE_RACE) if asked.is_race else asked.seeds
    queue = with_more([], [one.name for one in finalists], seeds)
    return replace(
        spec,
        name=folder.name,
        space=str((folder / _FILE).resolve()),
        command=command_line(),
        trials=len(queue),
        enqueue=queue,
        first_rung=spec.epochs,  # no trial is stopped early
        keep=_ALL,
        repeats="new-seed",
        folds=ANY_FOLDS if asked.over_folds and spec.folds is None else spec.folds,
        races_folds=False,
        time_budget_s=asked.budget_s,
        compute_budget_s=None,
        gpu_hours=None,
        target=None,
        patience=None,
        until_noise=False,
        min_per_system=None,
        max_parameters=None,
        max_ms_per_utterance=None,
        max_memory_mb=None,
        max_equal_failures=0,  # one finalist may fail with every seed, and is told
    )


def _begun_with(folder: Path, wanted: Sequence[Finalist]) -> list[Finalist]:
    """The finalists of the first time. Raises ValueError where these are others."""
    finalists = read_finalists(folder / _FILE)
    if {_settings(one) for one in finalists} != {_settings(one) for one in wanted}:
        raise ValueError(
            f"sweep {folder.name!r} was begun with the finalists"
            f" {', '.join(one.name for one in finalists)}, and these options ask for"
            f" {', '.join(one.name for one in wanted)}; give the options of that time (--top,"
            " --per-system, --include-default), or confirm the others beside it: --as"
            f" {folder.name}-2"
        )
    return finalists


def _settings(finalist: Finalist) -> str:
    return json.dumps({**finalist.settings, "seed": None}, sort_keys=True)


@dataclass(frozen=True)
class _Sweeps:
    """A sweep and the one that trains its finalists."""

    history: History
    folder: Path
    confirmed_in: Path
    finalists: Sequence[Finalist]

    def trained(self) -> History:
        """The second as it is now, on the data that the first has on this machine."""
        found, spec = read_history(self.confirmed_in / "ledger.sqlite"), self.history.spec
        return replace(
            found, spec=replace(found.spec, manifest=spec.manifest, features=spec.features)
        )

    def compared(self) -> Confirmation:
        """What the second tells by now."""
        trained = self.trained()
        validation = Validation(trained, self.confirmed_in)
        baseline = None
        if (linear := baseline_of(self.history)) is not None:
            if trained.spec.folds:  # its bundle was trained on all of them
                baseline = validation.of_linear(linear.settings)
            elif (self.folder / FOLDER).is_dir():
                baseline = validation.of_bundle(self.folder / FOLDER)
        return confirmation_of(self.history, trained, validation, self.finalists, baseline)


def _queue(sweeps: _Sweeps, asked: Asked) -> list[Params] | None:
    """What another session is to train, all that was before included; None where nothing is left.

    Of a race, whose rounds are told by the ledger alone, the next one: without who is worse than
    the leader.
    """
    history = sweeps.trained()
    queue = history.spec.enqueue
    is_done = len(history.trials) >= len(queue) and all(
        trial.state != "running" for trial in history.trials.values()
    )
    if asked.is_race and not is_done:
        return list(queue)
    names = [one.name for one in sweeps.finalists]
    if asked.is_race:
        found = sweeps.compared()
        names = [found.leader.name]
        names += [one.first for one in found.to_leader if one.verdict != "worse"]
        if len(names) == 1:
            return None
    more = with_more(queue, names, asked.seeds, one_round=asked.is_race)
    return None if is_done and len(more) == len(queue) else more
