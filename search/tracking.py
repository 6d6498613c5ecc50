"""MLflow as a projection of the ledger: a thread reads the ledger's new events and sends them in batches.

One parent run a sweep, one child run a trial. Where delivery stands is kept in `runs/NAME/mlflow.json`, so that a
resumed sweep goes on from there; run ids are found again by their tags, and a point sent twice is one point, because
it carries the ledger's time.
"""

import contextlib
import fcntl
import json
import logging
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmm.files import write_json
from mmm.metrics import scalar_metrics
from search.ledger import Event, History, read_events

EXPERIMENT = "mmm-search"
_STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
_POLL_S = 0.5
_BATCH = 1000  # MLflow's limit of metrics a request


def default_tracking_uri(runs: Path) -> str:
    """The SQLite store that all sweeps of a runs folder share."""
    return f"sqlite:///{(runs / 'mlflow.db').resolve()}"


@contextlib.contextmanager
def _store_lock(runs: Path) -> Iterator[None]:
    # Two processes that create one fresh SQLite store at once: one crashes (MLflow 3.17).
    with open(runs / ".mlflow.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def open_client(runs: Path, tracking_uri: str | None) -> tuple[Any, str]:
    """MLflow's client and the id of our experiment, made where it is missing."""
    # MLflow asks its makers' server for news unless it is told not to.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    logging.getLogger("alembic").setLevel(logging.ERROR)
    from mlflow import MlflowClient

    uri = tracking_uri or default_tracking_uri(runs)
    runs.mkdir(parents=True, exist_ok=True)
    with _store_lock(runs):
        client = MlflowClient(tracking_uri=uri)
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return client, str(found.experiment_id)
        location = (runs / "mlartifacts").resolve().as_uri() if tracking_uri is None else None
        return client, str(client.create_experiment(EXPERIMENT, artifact_location=location))


def run_name(settings: dict[str, Any], number: int) -> str:
    """`mlp_mixer K3 b2 #17`."""
    blocks = f" b{settings['num_blocks']}" if "num_blocks" in settings else ""
    context = f" K{settings['context']}" if "context" in settings else ""
    return f"{settings.get('architecture', 'invalid')}{context}{blocks} #{number}"


class Projection:
    """Sends a ledger's events to MLflow. `state` says up to which event, and which run is which trial."""

    def __init__(self, runs: Path, name: str, tracking_uri: str | None) -> None:
        self.folder = runs / name
        self.name = name
        self.client, self.experiment = open_client(runs, tracking_uri)
        self.path = self.folder / "mlflow.json"
        uri = tracking_uri or default_tracking_uri(runs)
        self.state: dict[str, Any] = {
            "uri": uri,
            "delivered": 0,
            "parent": None,
            "runs": {},
            "epochs": {},
            "sweep_id": uuid.uuid4().hex,
        }
        if self.path.is_file():
            found = json.loads(self.path.read_text())
            # Another store than before starts anew: everything is in the ledger.
            self.state = found if found["uri"] == uri else {**self.state, "sweep_id": found["sweep_id"]}
        self._save()
        self._metric = "macro_f1"

    def _save(self) -> None:
        write_json(self.path, self.state)

    def _run(self, trial: int | None, name: str, started: float, tags: dict[str, str]) -> str:
        """The id of the run of a trial (None: the sweep), found by its tags or made."""
        key = "sweep" if trial is None else str(trial)
        mark = {"mmm.sweep_id": self.state["sweep_id"], "mmm.trial": key}
        query = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in mark.items())
        found = self.client.search_runs([self.experiment], filter_string=query, max_results=1)
        if found:
            return str(found[0].info.run_id)
        tags = {**tags, **mark, "mmm.sweep": self.name, "mlflow.source.name": "mmm-search"}
        if trial is not None:
            tags["mlflow.parentRunId"] = self.state["parent"]
        made = self.client.create_run(self.experiment, start_time=int(started * 1000), tags=tags, run_name=name)
        return str(made.info.run_id)

    def send(self, events: list[Event]) -> None:
        """Deliver events in their order. Raises what MLflow raises; then nothing counts as delivered."""
        from mlflow.entities import Metric, Param, RunTag

        metrics: dict[str, list[Any]] = {}
        ends: list[tuple[str, str, float]] = []
        epochs: dict[str, int] = dict(self.state["epochs"])
        for event in events:
            when = int(event.time * 1000)
            run = self.state["runs"].get(str(event.trial)) if event.trial is not None else self.state["parent"]
            if event.kind in ("sweep", "session"):
                spec = event.body["spec"]
                self._metric = spec["metric"]
                if self.state["parent"] is None:
                    about = {"mlflow.note.content": f"`{spec['command']}`", "mmm.state": "running"}
                    self.state["parent"] = self._run(None, self.name, event.time, about)
                    wanted = (
                        "space",
                        "manifest",
                        "features",
                        "trials",
                        "epochs",
                        "metric",
                        "seed",
                        "workers",
                        "first_rung",
                        "factor",
                    )
                    self.client.log_batch(self.state["parent"], params=[Param(name, str(spec[name])) for name in wanted])
                self.client.update_run(self.state["parent"], status="RUNNING")
            elif event.kind == "suggest":
                settings = event.body["settings"]
                tags = {"mmm.state": "running", "mmm.architecture": str(settings.get("architecture", "invalid"))}
                run = self._run(event.trial, run_name(settings, event.trial or 0), event.time, tags)
                self.state["runs"][str(event.trial)] = run
                self.client.log_batch(run, params=[Param(name, str(value)) for name, value in settings.items()])
            elif event.kind == "epoch":
                # A trial that went on from its last checkpoint trains some epochs again: each is one point all the same.
                if event.body["epoch"] <= epochs.get(str(event.trial), 0):
                    continue
                epochs[str(event.trial)] = event.body["epoch"]
                values = {
                    "train_loss": event.body["train_loss"],
                    **scalar_metrics(event.body["metrics"]),
                    "epoch_seconds": event.body["seconds"],
                }
                metrics.setdefault(run, []).extend(
                    Metric(name, value, when, event.body["epoch"]) for name, value in values.items()
                )
            elif event.kind == "end":
                state, reason = event.body["state"], event.body["reason"]
                tags = {"mmm.state": state, "mmm.reason": reason[:5000]}
                self.client.log_batch(run, tags=[RunTag(tag, value) for tag, value in tags.items()])
                ends.append((run, _STATUS[state], event.time))
            elif event.kind == "close":
                if event.body["efficiency"] is not None:
                    metrics.setdefault(run, []).append(Metric("steady_efficiency", event.body["efficiency"], when, 0))
                self.client.set_tag(run, "mmm.state", event.body["why"])
                ends.append((run, "FINISHED" if event.body["why"] == "done" else "KILLED", event.time))
        for run, points in metrics.items():
            for start in range(0, len(points), _BATCH):
                self.client.log_batch(run, metrics=points[start : start + _BATCH])
        for run, status, ended in ends:
            self.client.set_terminated(run, status, end_time=int(ended * 1000))
        if events:
            self.state |= {"delivered": events[-1].seq, "epochs": epochs}
        self._save()

    def finish(
        self, best: dict[int, dict[str, float]], interrupted: list[int], bundle: Path | None, winner: int | None
    ) -> None:
        """After a session: best scores a run, runs that a dead or stopped session left open, the best bundle."""
        from mlflow.entities import Metric, RunTag

        for trial, values in best.items():
            run = self.state["runs"][str(trial)]
            # A fixed time, so that finishing twice adds nothing.
            self.client.log_batch(run, metrics=[Metric(name, value, 0, 0) for name, value in values.items()])
        for trial in interrupted:
            run = self.state["runs"][str(trial)]
            self.client.set_tag(run, "mmm.state", "interrupted")
            self.client.set_terminated(run, "KILLED")
        if bundle is not None and winner is not None:
            for run in (self.state["runs"][str(winner)], self.state["parent"]):
                self.client.log_artifacts(run, str(bundle), "bundle")
            earlier = self.client.get_run(self.state["parent"]).data.tags.get("mmm.best_trial")
            if earlier not in (None, str(winner)):
                self.client.set_tag(self.state["runs"][earlier], "mmm.best", "false")
            tags = [RunTag("mmm.best_trial", str(winner))]
            self.client.log_batch(self.state["parent"], tags=tags,
                                  metrics=[Metric(name, value, 0, 0) for name, value in best[winner].items()])  # fmt: skip
            self.client.set_tag(self.state["runs"][str(winner)], "mmm.best", "true")


class Tracker:
    """The thread. MLflow's trouble never becomes the sweep's: what cannot be sent stays in the ledger and is tried again."""

    def __init__(self, runs: Path, name: str, tracking_uri: str | None) -> None:
        self.runs, self.name, self.tracking_uri = runs, name, tracking_uri
        self.ledger = runs / name / "ledger.sqlite"
        self.projection: Projection | None = None
        self.trouble = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="mlflow", daemon=True)
        self._thread.start()

    def _loop(self) -> None:
        wait_s = _POLL_S
        while not self._stop.wait(wait_s):
            wait_s = _POLL_S if self.flush() else min(wait_s * 2, 30.0)

    def flush(self) -> bool:
        """Send what is new; False where it could not be sent."""
        try:
            if self.projection is None:
                self.projection = Projection(self.runs, self.name, self.tracking_uri)
            events = list(read_events(self.ledger, after=self.projection.state["delivered"]))
            if events:
                self.projection.send(events)
        except Exception as error:  # whatever a store or network does, training goes on; `trouble` is shown to the user
            self.trouble = f"{type(error).__name__}: {error}".splitlines()[0]
            return False
        self.trouble = ""
        return True

    def close(self) -> bool:
        """Stop the thread and send the rest; False where something is left."""
        self._stop.set()
        self._thread.join()
        return self.flush()

    def finish(self, history: History, bundle: Path | None, winner: int | None) -> bool:
        """After `close`: best scores, the bundle, and an end for what nobody trains any more; False where it failed."""
        assert history.spec is not None
        best = {
            trial.number: {f"best_{history.spec.metric}": found[1], "best_epoch": float(found[0])}
            for trial in history.trials.values()
            if (found := trial.best(history.spec.metric))
        }
        unfinished = [trial.number for trial in history.trials.values() if trial.state == "running"]
        try:
            assert self.projection is not None
            self.projection.finish(best, unfinished, bundle, winner)
        except Exception as error:  # as in flush
            self.trouble = f"{type(error).__name__}: {error}".splitlines()[0]
            return False
        return True


def page_of_runs(runs: Path, port: int) -> str:
    """The address of the page that lists all sweeps."""
    _, experiment = open_client(runs, None)
    return f"http://127.0.0.1:{port}/#/experiments/{experiment}/runs"


def serve(runs: Path, port: int) -> int:
    """Run MLflow's server on loopback until it is interrupted; returns its exit status."""
    # MLflow has no authentication: it listens to this machine alone, and answers only requests that name it so.
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
               "--allowed-hosts", f"127.0.0.1:{port},localhost:{port}",
               "--backend-store-uri", default_tracking_uri(runs), "--workers", "1"]  # fmt: skip
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    try:
        return subprocess.run(command, env=environment, check=False).returncode
    except KeyboardInterrupt:
        return 0
