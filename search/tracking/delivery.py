"""The delivery of a sweep's projection into an MLflow store, exactly once.

`runs/NAME/mlflow.json` has, for each store that the sweep was ever sent to, up to which event of
the ledger it has everything, and which run is which trial: written before a run is used for the
first time. What is not in it, because a process died or an answer was lost, is found again by tags;
a point that is sent twice is one point, because it carries the ledger's time and MLflow's SQL
stores have (run, name, time, step, value) as key.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmm.files import lock, parse_json
from search.ledger.events import read_events
from search.ledger.lock import is_held
from search.ledger.spec import without_password
from search.tracking.delivered import Delivered, read_delivered, write_delivered
from search.tracking.pages import Pages
from search.tracking.projection import Projection
from search.tracking.runs import SWEEP, Change, Run
from search.tracking.store import (
    default_tracking_uri,
    end_dead_sweeps,
    is_deleted,
    open_client,
    search_runs,
)

_BATCH = 1000  # MLflow's limit of metrics a request
_CREATED_TOGETHER = 50  # runs, before their ids are written down
_FINALISTS = 3  # trials with figures


class Busy(ValueError):
    """Another process sends this sweep to MLflow."""


class Undelivered(ValueError):
    """A store that did not take a sweep."""


class Delivery:
    """Brings one sweep to one store. Whatever raises can be called again and goes on where it
    stood.

    With `anew`, everything is sent again: what a store has lost comes back, what it has stays as it
    is.
    """

    def __init__(
        self, runs: Path, name: str, tracking_uri: str | None, *, anew: bool = False
    ) -> None:
        self.runs, self.name, self.tracking_uri = runs, name, tracking_uri
        self.folder = runs / name
        self.points = 0  # sent by this process
        self.made = 0  # runs
        self.left_behind: dict[str, str] = {}  # run -> why MLflow refuses what it is told
        self._path = self.folder / "mlflow.json"
        self._uri = without_password(tracking_uri or default_tracking_uri(runs))
        self._client: Any = None
        self._experiment = ""
        self._file: Any = None
        self._state = (
            Delivered() if anew else read_delivered(self._path).get(self._uri, Delivered())
        )
        self.projection = Projection(next(read_events(self.folder / "ledger.sqlite")))
        self._forget_delivered()

    def __enter__(self) -> "Delivery":
        self._file = open(self.folder / ".mlflow.lock", "w")
        try:
            lock(self._file)
        except BlockingIOError:
            self._file.close()
            raise Busy(
                f"another process is sending sweep {self.name!r} to MLflow; wait for it"
            ) from None
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _save(self) -> None:
        write_delivered(self._path, self._uri, self._state)

    def read(self) -> None:
        """Take in what the ledger has gained."""
        for event in read_events(self.folder / "ledger.sqlite", after=self.projection.seq):
            self.projection.apply(event)
            self._forget_delivered()

    def _forget_delivered(self) -> None:
        if self.projection.seq <= self._state.delivered:
            self.projection.changes.clear()

    @property
    def left(self) -> int:
        """Runs that MLflow has not been told everything about."""
        return len(self.projection.changes)

    @property
    def num_runs(self) -> int:
        return len(self._state.runs)

    def connect(self) -> None:
        """Import MLflow, open the store and find what it has of the sweep, the first time. Raises
        what MLflow raises.
        """
        if self._client is None:
            self._client, self._experiment = open_client(self.runs, self.tracking_uri)
            try:
                self._find()
                end_dead_sweeps(self._client, self._experiment, self.projection.sweep_id)
            except Exception:
                self._client = None  # what was not found now is looked for again
                raise

    def send(self, on_progress: Callable[[], None] = lambda: None) -> None:
        """Tell MLflow all changes. Raises what MLflow raises."""
        if not self.projection.changes:
            return
        self.connect()
        changes = self.projection.changes
        while waiting := [key for key in changes if key not in self.left_behind]:
            together = waiting[:_CREATED_TOGETHER]
            self._make([key for key in together if key not in self._state.deleted])
            for key in together:
                if key not in self._state.deleted:
                    self._tell(key, changes[key])
                if key not in self.left_behind:
                    del changes[key]
                on_progress()
        self.left_behind, reasons = {}, self.left_behind
        if reasons:
            raise ValueError("; ".join(sorted(set(reasons.values()))))
        self._state.delivered = self.projection.seq
        self._save()

    def _find(self) -> None:
        """Runs of this sweep by their tags: those that were made and not written down. Spare ones
        are removed.
        """
        kept: dict[str, str] = {}
        query = f"tags.`mmm.sweep_id` = '{self.projection.sweep_id}'"
        for run in search_runs(self._client, self._experiment, query):
            key, run_id = run.data.tags["mmm.trial"], run.info.run_id
            known = self._state.runs.get(key)
            if key in kept or (
                known is not None and known != run_id and not is_deleted(self._client, known)
            ):
                # The answer to its creation was lost, and it was made again.
                self._client.delete_run(run_id)
            else:
                kept[key] = run_id
        self._state.runs |= kept
        self._state.uncertain = False
        self._save()

    def _make(self, keys: list[str]) -> None:
        """Make the runs that are missing, parents first, and write their ids down before anything
        is sent to them.
        """
        missing: list[Run] = []
        for key in keys:
            run: Run | None = self.projection.runs[key]
            chain: list[Run] = []
            while run is not None and run.key not in self._state.runs and run not in missing:
                chain.insert(0, run)
                run = None if run.parent is None else self.projection.runs[run.parent]
            missing += chain
        if not missing:
            return
        if self._state.uncertain:
            self._find()
        try:
            for run in missing:
                if run.key not in self._state.runs:
                    self._state.runs[run.key] = self._create(run)
        except Exception:
            self._state.uncertain = True  # it may have been made in spite of the error
            raise
        finally:
            self._save()

    def _create(self, run: Run) -> str:
        # What has happened since, if anything, saves a request later.
        change = self.projection.changes.get(run.key, Change())
        tags = {
            **run.tags,
            **change.tags,
            "mmm.sweep_id": self.projection.sweep_id,
            "mmm.trial": run.key,
            "mmm.sweep": self.name,
            "mmm.folder": str(self.folder.resolve()),
            "mlflow.source.name": "mmm-search",
        }
        if run.parent is not None:
            tags["mlflow.parentRunId"] = self._state.runs[run.parent]
        start = int(run.started * 1000)
        made = self._client.create_run(
            self._experiment, start_time=start, tags=tags, run_name=run.name
        )
        self.made += 1
        change.tags = {}
        return str(made.info.run_id)

    def _tell(self, key: str, change: Change) -> None:
        """Send one run's change, what has arrived taken out of it."""
        from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
        from mlflow.exceptions import MlflowException

        run = self._state.runs[key]
        try:
            if change.inputs:
                inputs = [
                    DatasetInput(
                        Dataset(
                            found.name,
                            found.digest,
                            "local",
                            json.dumps({"uri": found.source}),
                            profile=found.profile or None,
                        ),
                        [InputTag("mlflow.data.context", found.context)],
                    )
                    for found in change.inputs
                ]
                self._client.log_inputs(run, inputs)
                change.inputs = []
            while change.points or change.params or change.tags:
                points = change.points[: _BATCH - len(change.params) - len(change.tags)]
                self._client.log_batch(
                    run,
                    [Metric(*point) for point in points],
                    [Param(*pair) for pair in change.params.items()],
                    [RunTag(*pair) for pair in change.tags.items()],
                )
                self.points += len(points)
                change.points, change.params, change.tags = change.points[len(points) :], {}, {}
            if change.status == "RUNNING":
                self._client.update_run(run, "RUNNING")
            elif change.status is not None:
                assert change.ended is not None
                self._client.set_terminated(run, change.status, end_time=int(change.ended * 1000))
        except MlflowException as error:
            if error.error_code not in (
                "INVALID_PARAMETER_VALUE",
                "RESOURCE_DOES_NOT_EXIST",
                "INVALID_STATE",
                "BAD_REQUEST",
            ):
                raise
            # Not the store's trouble but this run's: the others must not wait for it.
            if is_deleted(self._client, run):
                self._state.deleted.append(key)
            else:
                self.left_behind[key] = f"{self.projection.runs[key].name}: {error}".splitlines()[0]

    def finish(self) -> None:
        """After a session: nothing is left running, and the best trial has its mark, figures and
        the bundle.
        """
        self.read()
        if not self.projection.is_closed and self._has_no_driver():
            # The same, whenever and wherever it is told.
            self.projection.close("interrupted, its driver died", self.projection.last_time)
        self.send()
        if self._client is None or self._state.uncertain:
            self._client, self._experiment = open_client(self.runs, self.tracking_uri)
            self._find()
        self._mark_best()
        self._send_bundle()
        self._send_figures()
        self._save_views()

    def _has_no_driver(self) -> bool:
        # A process that is killed closes its files one after the other: the pipe to us may be gone
        # before its lock.
        for _ in range(20):
            if not is_held(self.folder / "lock"):
                return True
            time.sleep(0.1)
        return False

    def _mark_best(self) -> None:
        from mlflow.entities import RunTag

        ranked = self.projection.ranked()
        best = self._bundled_trial() or (ranked[0].key if ranked else None)
        parent = self._state.alive(SWEEP)
        if best is None or parent is None or best == self._state.best:
            return
        earlier = self._client.get_run(parent).data.tags.get("mmm.best_trial")
        if earlier not in (None, best) and (run := self._state.alive(earlier)) is not None:
            self._client.set_tag(run, "mmm.best", "false")
        if (run := self._state.alive(best)) is not None:
            self._client.set_tag(run, "mmm.best", "true")
        self._client.log_batch(parent, tags=[RunTag("mmm.best_trial", best)])
        self._state.best = best
        self._save()

    def _bundled_trial(self) -> str | None:
        """The key of the trial that the sweep's bundle comes from."""
        try:
            content = (self.folder / "bundle" / "provenance.json").read_text()
            return str(parse_json(content)["trial"])
        except FileNotFoundError:
            return None

    def _send_bundle(self) -> None:
        checksums = self.folder / "bundle" / "checksums.json"
        bundled = self._bundled_trial()
        if (
            bundled is None
            or not checksums.is_file()
            or checksums.read_text() == self._state.bundle
        ):
            return
        for key in (bundled, SWEEP):
            if (run := self._state.alive(key)) is not None:
                self._client.log_artifacts(run, str(self.folder / "bundle"), "bundle")
        self._state.bundle = checksums.read_text()
        self._save()

    def _send_figures(self) -> None:
        """Learning curve and confusion matrix of the best few trials."""
        finalists = [
            run
            for run in self.projection.ranked()[:_FINALISTS]
            if self._state.figures.get(run.key) != run.epoch
        ]
        finalists = [run for run in finalists if self._state.alive(run.key) is not None]
        if not finalists:
            return
        from search.ledger.events import read_history
        from search.results.figures import figures_of

        history = read_history(self.folder / "ledger.sqlite")
        for run in finalists:
            for name, figure in figures_of(history, history.trials[int(run.key)]).items():
                self._client.log_text(self._state.runs[run.key], figure, f"figures/{name}.svg")
            self._state.figures[run.key] = run.epoch
            self._save()

    @property
    def pages(self) -> Pages:
        """MLflow's pages of the sweep, once it was sent."""
        best = [
            run_id
            for run in self.projection.best_of_each_architecture()
            if (run_id := self._state.alive(run.key)) is not None
        ]
        return Pages(self._experiment, self.projection.sweep_id, self.projection.spec.metric, best)

    def _save_views(self) -> None:
        for key, content in self.pages.views().items():
            if self._state.views.get(key) != content:
                self._client.set_experiment_tag(
                    self._experiment, f"mlflow.sharedViewState.{key}", content
                )
                self._state.views[key] = content
        self._save()


def sync(
    runs: Path,
    name: str,
    tracking_uri: str | None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Delivery:
    """Send a whole sweep, whatever the store has of it already. `on_progress` gets runs told and
    runs in all.

    Raises Undelivered, and Busy where another process is at it.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    with Delivery(runs, name, tracking_uri, anew=True) as delivery:
        delivery.read()
        total = delivery.left
        try:
            delivery.send(lambda: on_progress(total - delivery.left, total))
            delivery.finish()
        except (MlflowException, SQLAlchemyError, OSError) as error:
            uri = without_password(tracking_uri or default_tracking_uri(runs))
            reason = str(error).splitlines()[0]
            raise Undelivered(
                f"{uri} did not take everything ({reason}); what arrived stays, run the same"
                " command again"
            ) from None
    return delivery
