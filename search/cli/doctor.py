"""The command `mmm-search doctor`."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmm.console import console
from search.cli.results import Cache, Runs

if TYPE_CHECKING:
    from search.doctor.finding import Finding


def doctor(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A sweep.", show_default=False)
    ] = None,
    runs: Runs = Path("runs"),
    manifest: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Manifest to check, or its URL \\[the sweep's]."),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Features to check, all of them, or their URL \\[the sweep's]."
        ),
    ] = None,
    cache: Cache = None,
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
    for one in _findings(name, runs, manifest, features, cache, address, tracking_uri):
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
    manifest: str | None,
    features: str | None,
    cache: Path | None,
    address: str | None,
    tracking_uri: str | None,
) -> Iterator["Finding"]:
    from search.doctor import cluster, data, machine
    from search.ledger.events import read_history
    from search.ledger.files import existing_sweep
    from search.storage.door import is_url
    from search.storage.here import features_here, manifest_here

    yield from machine.installation()
    spec, folder, insecure = None, None, True
    if name is not None:
        folder = existing_sweep(runs, name)
        with contextlib.suppress(ValueError):  # told below
            spec = read_history(folder / "ledger.sqlite").spec
    if spec is not None:
        manifest = manifest or spec.manifest_url or spec.manifest
        features = features or spec.features_url or spec.features
        if cache is None and spec.cache is not None:
            cache = Path(spec.cache)
        insecure = spec.insecure and address is None  # as `resume` has it with another one
        address, tracking_uri = address or spec.address, tracking_uri or spec.tracking_uri
    gpus = spec.gpus_per_trial if spec is not None else 0.0
    yield from machine.devices(gpus if address is None else 0.0)
    yield from machine.local_ray()
    # What is at a URL is brought, as a machine does that trains with it.
    manifest_path, faults = data.brought("manifest", manifest, manifest_here, cache)
    yield from faults
    features_path, faults = data.brought("features", features, features_here, cache)
    yield from faults
    yield from machine.space(runs, features_path)
    if manifest_path is not None:
        yield from data.manifest(manifest_path)
    if features_path is not None:
        yield from data.features(features_path, manifest_path)
    yield from data.tracking(runs, tracking_uri)
    if folder is not None:
        yield from data.sweep(folder)
    if address is not None:
        wanted = {} if spec is None else {"CPU": 1.0, "GPU": gpus}
        workers = 1 if spec is None else spec.workers
        readable = [
            Path(given).absolute()
            for given in (manifest, features)
            if given is not None and not is_url(given)
        ]
        yield from cluster.cluster(address, runs, readable, wanted, workers, insecure=insecure)
