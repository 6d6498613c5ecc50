"""An MLflow store: its client, and what is asked of the runs in it."""

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

from mmm.files import lock, write_bytes
from search.ledger.lock import is_held

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


class NotLetIn(ValueError):
    """An MLflow server wants a name and a password, and those that are given are not right."""


def open_client(runs: Path, tracking_uri: str | None) -> tuple[Any, str]:
    """MLflow's client and the id of our experiment, made where it is missing. Raises NotLetIn, and
    what MLflow does where its server does not answer.
    """
    import_mlflow()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    runs.mkdir(parents=True, exist_ok=True)
    uri = tracking_uri or default_tracking_uri(runs)
    path = uri.removeprefix("sqlite:///")
    with _store_lock(runs) if uri.startswith("sqlite") else contextlib.nullcontext():
        if uri.startswith("sqlite:///") and not Path(path).exists():
            _make_sqlite_store(Path(path))
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        try:
            found = client.get_experiment_by_name(EXPERIMENT)
        except MlflowException as error:
            if error.get_http_status_code() != HTTPStatus.UNAUTHORIZED:
                raise
            raise NotLetIn(
                f"the MLflow server at {uri} wants a name and a password, and those that are given"
                " here, if any, are not right; set MLFLOW_TRACKING_USERNAME and"
                " MLFLOW_TRACKING_PASSWORD"
            ) from None
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


def search_runs(client: Any, experiment: str, query: str) -> Iterator[Any]:
    """All runs that an MLflow query finds, oldest first."""
    token = None
    while True:
        page = client.search_runs(
            [experiment],
            filter_string=query,
            max_results=1000,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        yield from page
        token = page.token
        if not token:
            return


def is_deleted(client: Any, run_id: str) -> bool:
    """Whether a person removed the run, or its store has lost it."""
    from mlflow.exceptions import MlflowException

    try:
        return bool(client.get_run(run_id).info.lifecycle_stage == "deleted")
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return True
        raise


def end_dead_sweeps(client: Any, experiment: str, sweep_id: str) -> None:
    """End the runs of sweeps that nobody runs any more, except of this one."""
    is_dead: dict[str, bool] = {}
    query = f"attributes.status = 'RUNNING' and tags.`mmm.sweep_id` != '{sweep_id}'"
    for run in search_runs(client, experiment, query):
        folder = run.data.tags.get("mmm.folder", "")
        if folder not in is_dead:
            # Where its folder cannot be seen from here, nothing is known.
            is_dead[folder] = (
                bool(folder) and Path(folder).is_dir() and not is_held(Path(folder) / "lock")
            )
        if is_dead[folder]:
            client.set_tag(run.info.run_id, "mmm.state", "interrupted")
            client.set_tag(run.info.run_id, "mmm.reason", "its driver died")
            client.set_terminated(run.info.run_id, "KILLED")


def newest_sweeps(client: Any, experiment: str, count: int) -> list[tuple[str, str]]:
    """Name and id of the sweeps that were begun last, the newest first."""
    runs = client.search_runs(
        [experiment],
        "tags.`mmm.trial` = 'sweep'",
        max_results=count,
        order_by=["attributes.start_time DESC"],
    )
    return [(run.data.tags["mmm.sweep"], run.data.tags["mmm.sweep_id"]) for run in runs]


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
