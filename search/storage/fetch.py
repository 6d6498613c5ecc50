"""Bringing a sweep from its copy in a store to this machine."""

import os
import shlex
import shutil
import socket
import time
from collections.abc import Container, Mapping
from dataclasses import replace
from pathlib import Path

from mmm.files import new_directory, write_text
from search.ledger.files import check_name
from search.ledger.history import History
from search.ledger.spec import SweepSpec
from search.storage.copies import INDEX, LEDGER, MANIFEST, Index, state_of
from search.storage.door import StorageError, Store

_SILENT_INTERVALS = 2  # after which a driver elsewhere is taken for dead
_SLACK_S = 30.0  # by which clocks may differ, and a copy may take longer


def check_storage(url: str, name: str) -> None:
    """Raise StorageError where a new sweep could not be copied to a store: it cannot be written to,
    or has one of this name.
    """
    store = Store(url).below(check_name(name))
    if (index := Index.of(store)) is not None:
        raise StorageError(
            f"{store.url}: holds sweep {name!r} of {index.host}; choose another --name, or go on"
            f" with it: mmm-search resume {name} --storage {shlex.quote(url)}"
        )
    store.write(".written", b"")
    store.remove(".written")


def bring(url: str, name: str, runs: Path) -> str | None:
    """A sweep's folder in `runs` as its copy has it; says so in a sentence, None where it is there
    already and as new. Raises FileNotFoundError where there is no copy, StorageError where another
    driver is at it or the folder has another state.
    """
    store, folder = Store(url).below(check_name(name)), runs / name
    index = Index.of(store)
    here = state_of(folder / LEDGER) if (folder / LEDGER).is_file() else None
    if index is None:
        if here is not None:
            return None  # from now on it is copied there
        there = sorted({found.partition("/")[0] for found in Store(url).files() if INDEX in found})
        raise FileNotFoundError(
            f"no copy of a sweep {name!r} in {url} (found: {', '.join(there) or 'none'}); one is"
            " made by mmm-search run with --storage"
        )
    if here is not None:
        events, began = here
        if began == index.began and events >= index.events:
            return None
        what = f"event {events}, the copy {index.events}"
        raise StorageError(
            f"{folder}: another state of the sweep than its copy in {store.url} ({what}); to go on"
            f" with the copy, move the folder away: mv {folder} {folder}.before"
        )
    _check_silent(index, store)
    files = store.files()
    files.pop(INDEX, None)
    wanted = sum(one.size for one in files.values())
    runs.mkdir(parents=True, exist_ok=True)
    if wanted > (free := shutil.disk_usage(runs).free):
        raise StorageError(
            f"{runs}: the copy in {store.url} has {wanted / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB"
            " are free there; free some, or choose another folder with --runs"
        )
    with new_directory(folder) as scratch:
        for file, stored in files.items():
            if not file.rpartition("/")[2].startswith("."):
                store.get(file, scratch / file, stored)
                if file in index.files:
                    os.utime(scratch / file, ns=(time.time_ns(), index.files[file][1]))
    age_s = max(0.0, time.time() - index.written)
    return f"brought from {store.url}, where {index.host} copied it {age_s:.0f} s ago"


def found_here(
    spec: SweepSpec, folder: Path, history: History, given: Mapping[str, object], command: str
) -> SweepSpec:
    """The specification of a sweep that another machine may have begun, with the paths of this one.
    `given` are those that the command names; `command` is that.

    Raises FileNotFoundError, saying with which option to name what is not here.
    """
    spec = with_copied_manifest(spec, folder, given)
    if not Path(spec.features).is_dir():
        raise FileNotFoundError(
            f"{spec.features}: the sweep's features are not on this machine; say where they are:"
            f" {command} --features DIR"
        )
    path, _, function = spec.space.rpartition(":")
    if path.endswith(".py") and not Path(path).is_file():
        said = f"{path}: the sweep's space is not on this machine"
        if history.spaces:
            text = folder / Path(path).name
            write_text(text, history.spaces[-1][1].text)
            said += f"; its text is in {text}, to be read before it is run"
            path = str(text)
        raise FileNotFoundError(f"{said}; say where it is: {command} --space {path}:{function}")
    return spec


def with_copied_manifest(spec: SweepSpec, folder: Path, given: Container[str]) -> SweepSpec:
    """The specification with the manifest that a copy brought along, where the sweep's own is not
    on this machine and none is `given`.
    """
    copied = folder.resolve() / MANIFEST
    is_needed = spec.manifest_url is None and not Path(spec.manifest).is_file()
    if "manifest" not in given and is_needed and copied.is_file():
        return replace(spec, manifest=str(copied))
    return spec


def _check_silent(index: Index, store: Store) -> None:
    """Raise StorageError where the driver that made a copy may still be at it."""
    if index.ended:
        return
    if index.host == socket.gethostname():
        try:
            os.kill(index.process, 0)
        except ProcessLookupError:
            return
        except PermissionError:
            pass
        raise StorageError(
            f"{store.url}: process {index.process} on this machine runs the sweep; wait for it"
        )
    age_s = time.time() - index.written
    left_s = _SILENT_INTERVALS * index.interval_s + _SLACK_S - age_s
    if left_s > 0:
        raise StorageError(
            f"{store.url}: process {index.process} on {index.host} runs the sweep, or did"
            f" {age_s:.0f} s ago; if it is dead: free in {left_s:.0f} s"
        )
