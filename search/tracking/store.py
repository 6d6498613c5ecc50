"""An MLflow store: its client, and MLflow's own server over it, on loopback."""

import contextlib
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmm.files import lock, write_bytes

EXPERIMENT = "mmm-search"
REQUEST_S = 10  # MLflow's own default is 120 s, and 7 retries on top


def default_tracking_uri(runs: Path) -> str:
    """The SQLite store that all sweeps of a runs folder share."""
    return f"sqlite:///{(runs / 'mlflow.db').resolve()}"


@contextlib.contextmanager
def _store_lock(runs: Path) -> Iterator[None]:
    # Two processes that create one fresh SQLite store at once: one crashes (MLflow 3.17).
    with open(runs / ".mlflow.lock", "w") as file:
        lock(file, wait=True)
        yield


def _make_sqlite_store(path: Path) -> None:
    """A store with MLflow's tables and nothing in them, whole or not at all: half of them, where
    MLflow was killed while it made them, are refused by MLflow for ever.
    """
    from mlflow import MlflowClient

    making = path.with_name(f".{path.name}.making")
    shutil.rmtree(making, ignore_errors=True)  # of a process that was killed
    making.mkdir(parents=True)
    MlflowClient(tracking_uri=f"sqlite:///{(making / path.name).resolve()}").search_experiments()
    write_bytes(path, (making / path.name).read_bytes())
    shutil.rmtree(making)


def import_mlflow() -> None:
    """Import MLflow, which takes seconds, with settings that it reads then."""
    # MLflow asks its makers' server for news unless it is told not to.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    # A request that fails is ours to repeat.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(REQUEST_S))
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault(
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true"
    )  # a request for each run that ends
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    logging.getLogger("alembic").setLevel(logging.ERROR)
    import mlflow.tracking  # noqa: F401


def open_client(runs: Path, tracking_uri: str | None) -> tuple[Any, str]:
    """MLflow's client and the id of our experiment, made where it is missing."""
    import_mlflow()
    from mlflow import MlflowClient

    runs.mkdir(parents=True, exist_ok=True)
    uri = tracking_uri or default_tracking_uri(runs)
    path = uri.removeprefix("sqlite:///")
    with _store_lock(runs) if uri.startswith("sqlite") else contextlib.nullcontext():
        if uri.startswith("sqlite:///") and not Path(path).exists():
            _make_sqlite_store(Path(path))
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            location = (runs / "mlartifacts").resolve().as_uri() if tracking_uri is None else None
            kind = {
                "mlflow.experimentKind": "custom_model_development"
            }  # what MLflow's page would guess and ask about
            return client, str(
                client.create_experiment(EXPERIMENT, artifact_location=location, tags=kind)
            )
    if found.lifecycle_stage != "active":
        raise ValueError(
            f"MLflow's experiment {EXPERIMENT!r} was deleted; bring it back: "
            f"mlflow experiments restore --experiment-id {found.experiment_id}"
        )
    return client, str(found.experiment_id)


def count_runs(runs: Path, tracking_uri: str | None) -> int | None:
    """How many runs of ours a store has, as far as a thousand; None where nothing was kept there
    yet. Changes nothing, and raises what MLflow does where it does not answer.
    """
    if tracking_uri is None and not (runs / "mlflow.db").is_file():
        return None
    import_mlflow()
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracking_uri or default_tracking_uri(runs))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return None
    return len(client.search_runs([experiment.experiment_id], max_results=1000))


def server_command(store: str | None, port: int, artifacts: str | Path | None = None) -> list[str]:
    """MLflow's server on loopback. It has no authentication: it answers only requests that name
    this machine. `store` None: as its environment says.
    """
    command = [sys.executable, "-P", "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--allowed-hosts", f"127.0.0.1:{port},localhost:{port}"]
    command += ["--workers", "1"]
    if store is not None:
        command += ["--backend-store-uri", store]
    return command if artifacts is None else [*command, "--artifacts-destination", str(artifacts)]


def server_environment() -> dict[str, str]:
    # Its job runners (seven processes) are for judging language models.
    return {
        **os.environ,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PYTHONSAFEPATH": "1",  # it starts Python again: uvicorn's, not the user's folder's
    }


def serve(runs: Path, port: int) -> int:
    """Run MLflow's server on loopback until it is interrupted; returns its exit status."""
    return _run(server_command(default_tracking_uri(runs), port), server_environment())


def serve_backend(uri: str, artifacts: str, port: int) -> int:
    """The same over any store of MLflow's, with artifacts nowhere but in one place. A password in
    `uri` is on no command line.
    """
    # SQLAlchemy 2.1 takes psycopg by itself, of which many have the older one.
    if uri.startswith("postgresql://") and importlib.util.find_spec("psycopg") is None:
        uri = uri.replace("postgresql", "postgresql+psycopg2", 1)
    where = {"MLFLOW_BACKEND_STORE_URI": uri}
    return _run(server_command(None, port, artifacts), {**server_environment(), **where})


def _run(command: list[str], environment: Mapping[str, str]) -> int:
    try:
        return subprocess.run(command, env=environment, check=False).returncode
    except KeyboardInterrupt:
        return 0
