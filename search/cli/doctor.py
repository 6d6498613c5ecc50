"""The command `mmm-search doctor`."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmm.console import console
from search.cli.results import Runs

if TYPE_CHECKING:
    from search.doctor.finding import Finding


def doctor(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A sweep.", show_default=False)
    ] = None,
    runs: Runs = Path("runs"),
    manifest: Annotated[
        Path | None, typer.Option(help="Manifest to check \\[the sweep's].")
    ] = None,
    features: Annotated[
        Path | None, typer.Option(help="Features folder to check, all of it \\[the sweep's].")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to look at, for example auto \\[the sweep's].")
    ] = None,
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow's tracking URI \\[the sweep's, or SQLite in --runs].")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the same as JSON to this file.")
    ] = None,
) -> None:
    """Check the installation, devices, free space, a cluster and each of its nodes, data, MLflow
    and a sweep; say what to do about what is wrong.

    Exit status 0: nothing is; 1: something is.
    """
    from mmm.files import write_json
    from search.doctor.finding import as_json, lines

    found = []
    for one in _findings(name, runs, manifest, features, address, tracking_uri):
        found.append(one)
        for line in lines([one]):
            console.say(line)
    num_faults = sum(one.state == "fault" for one in found)
    console.say(f"{num_faults} faults" if num_faults else "nothing is wrong")
    if json_file is not None:
        write_json(json_file, as_json(found))
    if num_faults:
        sys.exit(1)


def _findings(
    name: str | None,
    runs: Path,
    manifest: Path | None,
    features: Path | None,
    address: str | None,
    tracking_uri: str | None,
) -> Iterator["Finding"]:
    from search.doctor import cluster, data, machine
    from search.ledger.events import read_history
    from search.ledger.files import existing_sweep

    yield from machine.installation()
    spec, folder = None, None
    if name is not None:
        folder = existing_sweep(runs, name)
        with contextlib.suppress(ValueError):  # told below
            spec = read_history(folder / "ledger.sqlite").spec
    if spec is not None:
        manifest, features = manifest or Path(spec.manifest), features or Path(spec.features)
        address, tracking_uri = address or spec.address, tracking_uri or spec.tracking_uri
    gpus = spec.gpus_per_trial if spec is not None else 0.0
    yield from machine.devices(gpus if address is None else 0.0)
    yield from machine.local_ray()
    yield from machine.space(runs, features)
    if manifest is not None:
        yield from data.manifest(manifest)
    if features is not None:
        yield from data.features(features, manifest)
    yield from data.tracking(runs, tracking_uri)
    if folder is not None:
        yield from data.sweep(folder)
    if address is not None:
        wanted = {} if spec is None else {"CPU": 1.0, "GPU": gpus}
        workers = 1 if spec is None else spec.workers
        readable = [path.absolute() for path in (manifest, features) if path is not None]
        yield from cluster.cluster(address, runs, readable, wanted, workers)
