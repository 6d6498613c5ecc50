"""From a sweep to its confirmation: finalists are the trials of a second sweep, which has no
searcher and no rungs, so that workers, ledger, MLflow and going on after a crash are those of any.
"""

import json
import shlex
from collections.abc import Sequence
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
    queue_of,
    read_finalists,
    write_finalists,
)
from search.confirm.page import page_of
from search.confirm.result import Confirmation, confirmation_of
from search.ledger.data import data_changes
from search.ledger.events import read_history
from search.ledger.files import existing_sweep, sweep_dir
from search.ledger.history import History
from search.ledger.lock import is_held
from search.results.baseline import FOLDER, baseline_of
from search.session import command_line, resume, start
from search.space.fixed import CHOICE
from search.space.settings import SettingsCheck

_FILE = "finalists.json"  # in the folder of the sweep that trains them
_ALL = 100_000  # as many weights as there are stay


@dataclass(frozen=True)
class Asked:
    """What `mmm-search confirm` was asked for."""

    top: int
    seeds: int
    per_system: bool = False
    include_default: bool = False
    budget_s: float | None = None  # of all sessions together; None: as it was, or without end
    confirm_as: str | None = None  # the name of the second sweep


def confirm(
    runs: Path,
    name: str,
    asked: Asked,
    console: Console,
    changes: Params,
    *,
    serial: bool = False,
) -> Confirmation | None:
    """Train the finalists of sweep `name` again, as far as that is not done, and compare them; None
    where training was interrupted. `changes`: workers and address where not the sweep's own.

    Writes `confirm.json` and `confirm.html` into the sweep's folder. Raises ValueError or
    FileNotFoundError where that cannot be.
    """
    folder = existing_sweep(runs, name)
    history = read_history(folder / "ledger.sqlite")
    if history.spec.folds:
        raise ValueError(
            f"sweep {name!r} is over folds, and confirming such sweeps is not there yet: its scores"
            f" are means over folds, see: mmm-search status {name}"
        )
    if is_held(folder / "lock"):
        raise ValueError(f"sweep {name!r} is running; confirm it when it has ended")
    second = asked.confirm_as or f"{name}-confirm"
    wanted = choose_finalists(
        history, asked.top, per_system=asked.per_system, include_default=asked.include_default
    )
    if (sweep_dir(runs, second) / "ledger.sqlite").is_file():
        finalists = _go_on(runs, second, wanted, asked, console, changes, serial=serial)
    else:
        finalists = wanted
        _begin(runs, second, history, wanted, asked, console, changes, serial=serial)
    confirmed = read_history(sweep_dir(runs, second) / "ledger.sqlite")
    why = confirmed.last_close.why if confirmed.last_close else "running"
    if why == "interrupted" or why.startswith("broken off"):
        say(
            console,
            f"not confirmed yet ({why}); go on with: mmm-search confirm {name} --runs"
            f" {shlex.quote(str(runs))} and the options of this time",
        )
        return None
    with console.status("comparing the finalists"):
        found = _compare(history, folder, confirmed, sweep_dir(runs, second), finalists)
        write_json(folder / "confirm.json", found.as_json())
        write_text(folder / "confirm.html", page_of(found, history.spec.command, command_line()))
    return found


def _begin(
    runs: Path,
    second: str,
    history: History,
    finalists: Sequence[Finalist],
    asked: Asked,
    console: Console,
    changes: Params,
    *,
    serial: bool,
) -> None:
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
    path = sweep_dir(runs, second) / _FILE
    write_finalists(path, finalists)
    queue = queue_of(finalists, asked.seeds, CHOICE)
    given = replace(
        spec,
        name=second,
        space=str(path.resolve()),
        command=command_line(),
        trials=len(queue),
        enqueue=queue,
        first_rung=spec.epochs,  # no trial is stopped early
        keep=_ALL,
        repeats="new-seed",
        time_budget_s=asked.budget_s,
        compute_budget_s=None,
        gpu_hours=None,
        target=None,
        patience=None,
        max_parameters=None,
        max_ms_per_utterance=None,
        max_memory_mb=None,
        max_equal_failures=0,  # one finalist may fail with every seed, and is told
    )
    start(replace(given, **dict[str, Any](changes)), runs, console, serial=serial)


def _go_on(
    runs: Path,
    second: str,
    wanted: Sequence[Finalist],
    asked: Asked,
    console: Console,
    changes: Params,
    *,
    serial: bool,
) -> list[Finalist]:
    """Train what is left, or more seeds; returns the finalists, which are those of the first
    time.
    """
    finalists = read_finalists(sweep_dir(runs, second) / _FILE)
    if {_settings(one) for one in finalists} != {_settings(one) for one in wanted}:
        raise ValueError(
            f"sweep {second!r} was begun with the finalists"
            f" {', '.join(one.name for one in finalists)}, and these options ask for"
            f" {', '.join(one.name for one in wanted)}; give the options of that time (--top,"
            " --per-system, --include-default), or confirm the others beside it: --as"
            f" {second}-2"
        )
    history = read_history(sweep_dir(runs, second) / "ledger.sqlite")
    queue = queue_of(finalists, asked.seeds, CHOICE)
    more: dict[str, object] = dict(changes)
    if asked.budget_s is not None:
        more["time_budget_s"] = asked.budget_s
    if len(queue) > len(history.spec.enqueue):
        more |= {"enqueue": queue, "trials": len(queue)}
    num_trials = max(len(queue), history.spec.trials)
    is_done = len(history.trials) >= num_trials and all(
        trial.state != "running" for trial in history.trials.values()
    )
    if not is_done:
        resume(runs, second, more, console, serial=serial)
    return finalists


def _settings(finalist: Finalist) -> str:
    return json.dumps({**finalist.settings, "seed": None}, sort_keys=True)


def _compare(
    history: History,
    folder: Path,
    confirmed: History,
    confirmed_in: Path,
    finalists: Sequence[Finalist],
) -> Confirmation:
    validation = Validation(confirmed, confirmed_in)
    has_baseline = baseline_of(history) is not None and (folder / FOLDER).is_dir()
    num_trials = sum(
        trial.best(history.spec.metric) is not None for trial in history.trials.values()
    )
    return confirmation_of(
        history.spec.name,
        confirmed,
        validation,
        finalists,
        validation.of_bundle(folder / FOLDER) if has_baseline else None,
        num_trials,
    )
