"""What MLflow is told of a sweep: the ledger's events folded into changes of runs. Knows nothing of
MLflow itself.

A tree of runs: the sweep, its trials, and below the first trial of some settings those that repeat
them with another seed. All that a run is told is a function of the ledger, times included, so that
telling it twice changes nothing.
"""

import json

from mmm.files import sha256_of_json
from mmm.markdown import as_code, as_code_block, as_markdown
from mmm.metrics import value_of
from mmm.training.config import ParamValue
from search.ledger.records import (
    Baseline,
    Close,
    DataNote,
    End,
    Epoch,
    Event,
    OpenedTest,
    ScoredOnTest,
    Session,
    Suggestion,
    Sweep,
)
from search.ledger.trial import best_mean
from search.tracking.inputs import inputs_of, manifest_of
from search.tracking.note import baseline_note, session_note
from search.tracking.runs import SWEEP, Change, Point, Run, metric_name, run_name

# A trial that was stopped early has done what it was for: MLflow shows KILLED as it shows FAILED.
# The tag `mmm.state` tells it from one that trained to its end.
_STATUS = {"complete": "FINISHED", "pruned": "FINISHED", "failed": "FAILED"}
_LEVELS = ("seed", "fold")  # settings that repeat a trial instead of making another one
_ALWAYS = ("architecture", "context", "seed")  # said of every trial, whether they vary or not
_SWEEP_PARAMS = (
    "space",
    "manifest",
    "features",
    "epochs",
    "metric",
    "seed",
    "first_rung",
    "factor",
    "folds",
)
# Of an epoch's metrics, beside the objective; the rest is in the ledger, and columns should be few.
_METRICS = ("macro_f1", "unweighted_recall", "accuracy", "weighted_f1", "loss")
_LONGEST = 5000  # characters of a tag; MLflow's limit is 8000


class Projection:
    """Takes the ledger's events in their order; `changes` holds what each run has to be told
    because of them.
    """

    def __init__(self, first: Event) -> None:
        """`first`: the ledger's first event, with the sweep's specification."""
        assert isinstance(first.body, Sweep)
        self.spec = first.body.spec
        # The same wherever the folder is moved to.
        self.sweep_id = sha256_of_json([first.time, json.loads(first.body.written)])[:32]
        self.runs: dict[str, Run] = {}
        self.changes: dict[str, Change] = {}
        self.seq, self.last_time = first.seq, first.time  # of the last event
        self.is_closed = False
        self._host = ""
        self._baseline_note = ""
        self._sessions = 0
        self._first: dict[str, str] = {}  # digest of settings -> the first trial that had them
        # Architecture and setting -> its first value.
        self._seen: dict[tuple[str, str], ParamValue] = {}
        self._varied: set[str] = set()
        self._data: DataNote | None = None
        self.runs[SWEEP] = Run(SWEEP, self.spec.name, first.time, None, {})
        change = self.change(SWEEP)
        change.params = {
            name: str(value)
            for name in _SWEEP_PARAMS
            if (value := getattr(self.spec, name)) is not None
        }
        change.tags["mlflow.note.content"] = self._note()

    def change(self, key: str) -> Change:
        return self.changes.setdefault(key, Change())

    def apply(self, event: Event) -> None:
        self.seq, self.last_time = event.seq, event.time
        key = SWEEP if event.trial is None else str(event.trial)
        match body := event.body:
            case Session():
                self._session(body, event.time)
            case DataNote():
                self._take_data(body)
            case Suggestion():
                self._suggest(key, body, event)
            case Baseline():
                self._baseline(body, event.time)
            case Epoch():
                self._epoch(self.runs[key], body, event.time)
            case End():
                self._end(self.runs[key], body, event.time)
            case OpenedTest():
                self.change(SWEEP).tags |= {
                    "mmm.test_opened_by": body.who,
                    "mmm.test_opened_for": ", ".join(body.finalists)[:_LONGEST],
                }
            case ScoredOnTest():
                # Apart from what is validated, and the one thing under its name.
                for name in _METRICS:
                    if (value := body.metrics.get(name)) is not None:
                        point = Point(f"test/{name}", value, int(event.time * 1000), 0)
                        self.change(str(body.trial)).points.append(point)
            case Close():
                if body.efficiency is not None:
                    when = int(event.time * 1000)
                    point = Point("steady_efficiency", body.efficiency, when, self._sessions)
                    self.change(SWEEP).points.append(point)
                self.close(body.why, event.time)
            case _:
                pass

    def _session(self, session: Session, when: float) -> None:
        self.spec = session.spec
        self._host, self.is_closed = session.host, False
        self._sessions += 1
        change = self.change(SWEEP)
        change.status = "RUNNING"
        change.tags |= {
            "mmm.state": "running",
            "mmm.host": self._host,
            "mmm.trials": str(self.spec.trials),
            "mmm.workers": str(self.spec.workers),
            "mlflow.note.content": self._note(),
        }
        for run in self._running():  # of a session that died; they go on with their next epoch
            self._interrupt(run, "its session died", when)

    def _take_data(self, data: DataNote) -> None:
        self._data = data
        change = self.change(SWEEP)
        change.inputs = [manifest_of(data)]
        if data.changed:
            before = sum(key != SWEEP for key in self.runs)
            said = f"from trial {before} on: {'; '.join(data.changed)}"
            change.tags["mmm.data_changed"] = said[:_LONGEST]
        for number in data.restarted:
            run = self.runs[str(number)]
            run.epoch, run.final, run.best, run.folds = 0, None, None, {}

    def _baseline(self, found: Baseline, when: float) -> None:
        """On the sweep's own run, so that the list of runs holds trials alone."""
        metric, value = self.spec.metric, value_of(found.metrics, self.spec.metric)
        self.change(SWEEP).points.append(
            Point(f"baseline_{metric}", value, int(when * 1000), self._sessions)
        )
        self._baseline_note = baseline_note(found, metric)

    def _suggest(self, key: str, suggestion: Suggestion, event: Event) -> None:
        settings = suggestion.settings
        digest = sha256_of_json(
            {name: value for name, value in settings.items() if name not in _LEVELS}
        )[:16]
        first = self._first.setdefault(digest, key) if settings else key
        command = f"mmm-search export {self.spec.name} --trial {key} -o DIR"
        tags = {
            "mmm.state": "running",
            "mmm.architecture": str(settings.get("architecture", "invalid")),
            "mmm.host": self._host,
            "mmm.settings": digest,
            "mlflow.note.content": f"To export it: `{command}`",
        }
        if first != key:
            tags["mmm.repeat_of"] = first
        name = run_name(settings, event.trial or 0) + (
            f" seed {settings.get('seed')}" if first != key else ""
        )
        chosen = frozenset(suggestion.params) & settings.keys()
        self.runs[key] = Run(
            key, name, event.time, SWEEP if first == key else first, tags, settings, chosen
        )
        for setting, value in settings.items():
            # What differs between architectures only, as their defaults do, says no more than the
            # architecture.
            before = self._seen.setdefault((str(settings.get("architecture")), setting), value)
            if before != value and setting not in self._varied:
                # It is news for the trials before, too: a comparison needs it of all of them.
                self._varied.add(setting)
                for run in self.runs.values():
                    if setting in run.settings and run.key != key:
                        self.change(run.key).params[setting] = str(run.settings[setting])
        said = {
            name for name in settings if name in _ALWAYS or name in self._varied or name in chosen
        }
        change = self.change(key)
        change.params |= {name: str(value) for name, value in settings.items() if name in said}
        if suggestion.precision is not None:
            change.params["precision"] = suggestion.precision
        if settings and self._data is not None:
            change.inputs = inputs_of(self._data, self.spec, settings)

    def _epoch(self, run: Run, entry: Epoch, told: float) -> None:
        # A trial that went on from its last checkpoint trains some epochs again: each is one point
        # all the same.
        scores = run.folds.setdefault(entry.fold, {})
        if entry.epoch in scores:
            return
        if run.state == "interrupted":
            run.state = "running"
            self.change(run.key).status = "RUNNING"
            self.change(run.key).tags |= {"mmm.state": "running", "mmm.reason": ""}
        score = scores[entry.epoch] = entry.metrics[self.spec.metric]
        run.told, run.epoch = told, max(run.epoch, entry.epoch)
        if not self.spec.folds:
            run.final = score
            if run.best is None or score > run.best[0]:
                run.best = (score, entry.epoch)
        elif len(run.folds) == self.spec.folds and entry.epoch == run.epoch:
            means = {epoch: [one[epoch] for one in run.folds.values()] for epoch in scores}
            epoch, mean = best_mean(means)
            run.best, run.final = (mean, epoch), sum(means[run.epoch]) / self.spec.folds
        values = {
            name: value
            for name, value in entry.metrics.items()
            if name in _METRICS or name == self.spec.metric
        }
        values |= {"train_loss": entry.train_loss, "epoch_seconds": entry.seconds}
        # A chart page makes a section of what stands before the slash.
        values |= {
            f"f1/{metric_name(name)}": scores["f1"]
            for name, scores in entry.all_metrics.get("per_class", {}).items()
        }
        if self.spec.system_metrics:
            values |= _system_metrics(entry, on_gpu=self.spec.gpus_per_trial > 0)
        when = int(told * 1000)
        section = "" if entry.fold == 1 else f"fold{entry.fold}/"
        self.change(run.key).points += [
            Point(f"{section}{name}", value, when, entry.epoch) for name, value in values.items()
        ]

    def _best_and_final(self, run: Run) -> None:
        if run.best is not None and run.final is not None:
            metric, when = self.spec.metric, int(run.told * 1000)
            values = {
                f"best_{metric}": run.best[0],
                "best_epoch": run.best[1],
                f"final_{metric}": run.final,
                "final_epoch": run.epoch,
            }
            # At the last epoch: a trial that is interrupted and goes on has a later one, with
            # another step.
            self.change(run.key).points += [
                Point(name, float(value), when, run.epoch) for name, value in values.items()
            ]

    def _end(self, run: Run, end: End, when: float) -> None:
        run.state = end.state
        self._best_and_final(run)
        change = self.change(run.key)
        change.status, change.ended = _STATUS[end.state], when
        change.tags |= {"mmm.state": end.state, "mmm.reason": end.reason[:_LONGEST]}
        if end.traceback:
            change.tags["mlflow.note.content"] = (
                f"{as_markdown(end.reason[:1000])}\n\n{as_code_block(end.traceback[-_LONGEST:])}"
            )

    def _running(self) -> list[Run]:
        return [run for run in self.runs.values() if run.state == "running" and run.key != SWEEP]

    def _interrupt(self, run: Run, why: str, when: float) -> None:
        run.state = "interrupted"
        self._best_and_final(run)
        change = self.change(run.key)
        change.status, change.ended = "KILLED", when
        change.tags |= {"mmm.state": "interrupted", "mmm.reason": why}

    def close(self, why: str, when: float) -> None:
        """The end of a session, also of one that could not say so itself: nothing is left
        running.
        """
        self.is_closed = True
        for run in self._running():
            self._interrupt(run, f"the session ended: {why}", when)
        change = self.change(SWEEP)
        statuses = {"interrupted": "KILLED", "broken off": "FAILED"}  # of what `why` begins with
        change.status = next(
            (status for start, status in statuses.items() if why.startswith(start)), "FINISHED"
        )
        change.ended = when
        change.tags |= {"mmm.state": why, "mlflow.note.content": self._note(why)}
        self._best_of_all(int(when * 1000))

    def ranked(self) -> list[Run]:
        """Trials with a score that have not failed, best first."""
        scored = [
            run for run in self.runs.values() if run.best is not None and run.state != "failed"
        ]
        return sorted(scored, key=lambda run: (-run.best[0] if run.best else 0.0, int(run.key)))

    def best_of_each_architecture(self) -> list[Run]:
        """Best first."""
        found: dict[str, Run] = {}
        for run in self.ranked():
            found.setdefault(str(run.settings["architecture"]), run)
        return list(found.values())

    def _best_of_all(self, when: int) -> None:
        if ranked := self.ranked():
            score, epoch = ranked[0].best or (0.0, 0)
            for name, value in ((f"best_{self.spec.metric}", score), ("best_epoch", float(epoch))):
                self.change(SWEEP).points.append(Point(name, value, when, self._sessions))

    def _note(self, why: str = "") -> str:
        """What the sweep's page says first, as Markdown; `why` its session has ended."""
        found = [as_code(self.spec.command)] if self.spec.command else []
        found += [self._baseline_note] if self._baseline_note else []
        if why:
            trials = [run for run in self.runs.values() if run.key != SWEEP]
            best = self.best_of_each_architecture()
            found += session_note(why, trials, best, self.spec.metric, self._fixed())
        return "\n\n".join(found)[:_LONGEST]

    def _fixed(self) -> dict[str, set[str]]:
        """Settings that no trial is told of, with their values, which differ between architectures
        alone.
        """
        chosen = {name for run in self.runs.values() for name in run.chosen}
        told = {*_ALWAYS, *self._varied, *chosen}
        found: dict[str, set[str]] = {}
        for (_, name), value in sorted(self._seen.items(), key=lambda pair: pair[0][1]):
            if name not in told:
                # Text of a system of the user's own may be any.
                text = as_markdown(str(value)) if name.startswith("own.") else str(value)
                found.setdefault(name, set()).add(text)
        return found


def _system_metrics(entry: Epoch, on_gpu: bool) -> dict[str, float]:
    """Under the names by which MLflow's page of system metrics knows them."""
    found = {
        "system/cpu_utilization_percentage": 100 * entry.alone_seconds / max(entry.seconds, 1e-9)
    }
    if entry.memory_mb is not None:
        device = "gpu_0" if on_gpu else "system"
        found[f"system/{device}_memory_usage_megabytes"] = entry.memory_mb
    return found
