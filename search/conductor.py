"""The sweep's decisions, without Ray: what to train next, whether a trial goes on, what is written down, in this order."""

import contextlib
import json
import socket
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mmm.config import make_config
from mmm.pack import pack_shape
from search.budget import Budget, broken_constraint, budgets, seconds_left, used_up
from search.config import SweepSpec
from search.draw import fixing
from search.history import Trial
from search.ledger import Entry, Ledger
from search.packs import PackSizes
from search.plan import trial_config
from search.scheduler import decide, rivals
from search.searcher import Searcher, SpaceError, point_settings
from search.trial_files import drop_weights
from spaces import Space


class Conductor:
    """Stands between the ledger and whatever runs trials. Every answer is in the ledger before it is given."""

    def __init__(
        self, ledger: Ledger, spec: SweepSpec, space: Space, device: str, on_change: Callable[[], None],
        clock: Callable[[], float] = time.time, count_parameters: Callable[[Mapping[str, Any]], int] | None = None,
    ) -> None:  # fmt: skip
        self.ledger, self.spec, self.space, self.device, self.on_change = ledger, spec, space, device, on_change
        self.clock = clock  # a replay has its own time
        self.count_parameters = count_parameters  # a replay has no models
        taken = {trial.queued for trial in self.trials.values()}
        queue = {**{f"enqueued {i}": point for i, point in enumerate(spec.enqueue)},
                 **{f"known good {i}": point for i, point in enumerate(space.known_good)}}  # fmt: skip
        self.queued = [name for name in queue if name not in taken]
        priors: dict[str, Any] = {"priors": ledger.history.priors} if ledger.history.priors else {}
        self.searcher = Searcher(
            space,
            spec.metric,
            spec.seed,
            self.trials,
            queue=[queue[name] for name in self.queued],
            rungs=[*spec.rungs, spec.epochs],
            **priors,
        )
        self.same_settings: dict[str, list[int]] = {}  # trials by their settings, the seed aside
        for number, trial in self.trials.items():
            self.same_settings.setdefault(_without_seed(trial.settings), []).append(number)
        self.unfinished = [trial.number for trial in ledger.history.trials.values() if trial.state == "running"]
        self.session_started = self.clock()
        self.command_started = self.session_started  # earlier, where somebody waited for the imports
        self.earlier_s = 0.0
        self.budgets_before: list[Budget] = []
        self.first_step: float | None = None  # by the worker's clock
        self.first_result: float | None = None
        self.last_result: float = self.session_started
        self.trained_s: list[tuple[float, float, float]] = []  # (ended, seconds by the clock, seconds alone) of each epoch
        self.used_up: Budget | None = None
        self.is_interrupted = False
        self.packs = PackSizes(spec)
        self._queued_shapes: dict[str, Any] = {}
        self._fixed: dict[int, dict[str, Any] | None] = {}
        self._alone: set[int] = set()  # trials that are not packed any more
        self.warnings: list[str] = []  # for whoever started the sweep

    @property
    def trials(self) -> dict[int, Trial]:
        return self.ledger.history.trials

    @property
    def has_work(self) -> bool:
        """Whether anything is left to train."""
        return bool(self.unfinished) or len(self.trials) < self.spec.trials

    def next_orders(self, seat: Sequence[int] = ()) -> list[dict[str, Any]]:
        """What a worker is to train next beside the trials `seat` that it has: one trial, or several of the same shape."""
        orders: list[dict[str, Any]] = []
        if not seat:
            first = self.next_order()
            if first is None:
                return []
            orders.append(first)
        trial = self.trials[seat[0] if seat else orders[0]["number"]]
        if trial.number in self._alone:
            return orders
        size = self.packs.size(trial.settings, self.spec.trials - len(self.trials))
        while len(seat) + len(orders) < size and (order := self.next_order(like=trial)) is not None:
            orders.append(order)
        if not seat:
            orders[0]["largest_pack"] = self.packs.to_measure(trial.settings, self.spec.trials - len(self.trials))
        return orders

    def next_order(self, like: Trial | None = None) -> dict[str, Any] | None:
        """The next trial to train, an interrupted one first; None when there is none any more.

        `like`: only one that can train in a pack with that trial.
        """
        if self.check_budgets() or self.is_interrupted:
            return None
        shape = None if like is None else _shape(like.settings)
        for number in list(self.unfinished):
            if like is not None and (number in self._alone or _shape(self.trials[number].settings) != shape):
                continue
            self.unfinished.remove(number)
            if not self._stops_at_rung(number):  # a killed driver may have recorded a report and not yet decided
                return self._order(self.trials[number])
        while (number := len(self.trials)) < self.spec.trials and not self.check_budgets():
            wanted = self._wanted(like, shape)
            if wanted is None:
                return None
            self._suggest(number, *wanted)
            self.on_change()
            trial = self.trials[number]
            if trial.state != "running":  # answered from the ledger, or it could not be made: a failure, not the sweep's end
                continue
            if like is None or _shape(trial.settings) == shape:
                return self._order(trial)
            self.unfinished.append(number)  # a parameter that mattered after all: another worker's
            return None
        return None

    def _wanted(self, like: Trial | None, shape: Any) -> tuple[int, dict[str, Any] | None] | None:
        """Which place of the queue is next, and what a companion of `like` has in common with it; None where there is none."""
        if like is None:
            return 0, None
        for place, name in enumerate(self.queued):
            if self._queued_shape(name, place) == shape:
                return place, None
        # What is queued has to have its turn.
        fixed = self._fixed_by(like) if len(self.trials) + len(self.queued) < self.spec.trials else None
        return None if fixed is None else (0, fixed)

    def _suggest(self, number: int, place: int, fixed: dict[str, Any] | None) -> None:
        """Write down the next trial; it ends at once where it cannot be trained or the ledger has its answer."""
        suggested: dict[str, Any] = {}
        about: dict[str, Any] = {"queued": self.queued.pop(place)} if self.queued and fixed is None else {}
        try:
            params, distributions, suggested = self.searcher.suggest(number, fixed, place)
            settings = trial_config(suggested, self.spec).params()
            if self.count_parameters is not None:
                about["num_parameters"] = self.count_parameters(suggested)
        except (ValueError, FileNotFoundError) as error:  # the latter: features that nobody made
            reason, trace = f"invalid settings: {error}", ""
            if isinstance(error, SpaceError):
                params, distributions, reason, trace = error.params, error.distributions, str(error), traceback.format_exc()
            body = {"params": params, "distributions": distributions, "settings": suggested, **about}
            self._end(number, "failed", reason, trace, before=[("suggest", number, body)])
            return
        earlier = self.same_settings.setdefault(_without_seed(settings), [])
        copied = self._answer_of(earlier) if self.spec.repeats == "reuse" else None
        # An identical setting is worth a second run only with another seed.
        settings["seed"] = copied.settings["seed"] if copied else settings["seed"] + len(earlier)
        earlier.append(number)
        body = {"params": params, "distributions": distributions, "settings": settings, **about}
        before: list[Entry] = [("suggest", number, body)]
        if (broken := broken_constraint(self.spec, about.get("num_parameters"), [])) is not None:
            self._end(number, "failed", broken, before=before)
        elif copied is not None:
            before += [("epoch", number, {**entry, "copied_from": copied.number}) for entry in copied.epochs]
            self._end(number, copied.state, f"same settings as trial {copied.number}: {copied.reason}", before=before)
        else:
            self.ledger.append(*before)

    def _queued_shape(self, name: str, place: int) -> Any:
        """What a queued point can be packed with; None where it cannot be trained."""
        if name not in self._queued_shapes:
            try:
                self._queued_shapes[name] = _shape(self._settings(point_settings(self.space, self.searcher.queue[place])))
            except ValueError:
                self._queued_shapes[name] = None
        return self._queued_shapes[name]

    def _fixed_by(self, trial: Trial) -> dict[str, Any] | None:
        """The parameters that a companion of a trial has in common with it; None where it would be the same trial."""
        if trial.number not in self._fixed:
            found = fixing(self.space, trial.params, lambda settings: _shape(self._settings(settings)))
            self._fixed = {trial.number: found}
        return self._fixed[trial.number]

    def _settings(self, suggested: Mapping[str, Any]) -> dict[str, Any]:
        return trial_config(suggested, self.spec).params()

    def _answer_of(self, earlier: Sequence[int]) -> Trial | None:
        """The first of these trials that was trained and did not fail."""
        trials = (self.trials[number] for number in earlier)
        return next((trial for trial in trials if trial.state in ("complete", "pruned") and trial.copied_from is None), None)

    def _order(self, trial: Trial) -> dict[str, Any]:
        spec = self.spec
        return {"sweep": str(self.ledger.folder.resolve()), "number": trial.number, "settings": trial.settings,
                "manifest": spec.manifest, "features": spec.features, "metric": spec.metric, "device": self.device,
                "rungs": spec.rungs, "precision": spec.precision,
                "checkpoints": [found for found in (trial.checkpoint, trial.earlier_checkpoint) if found is not None]}  # fmt: skip

    def report(self, number: int, report: dict[str, Any]) -> bool:
        """Record what a trial reported; True when it has to stop."""
        now = self.clock()
        trial = self.trials[number]
        if report["epochs"]:
            if self.first_result is None:
                self.first_result = now
            self.last_result = now
            first = report["epochs"][0]
            started = first.get("started", first["ended"] - first["seconds"])
            self.first_step = started if self.first_step is None else min(self.first_step, started)
            self.trained_s += [(entry["ended"], entry["seconds"], entry["alone_seconds"]) for entry in report["epochs"]]
        entries: list[Entry] = [("epoch", number, entry) for entry in report["epochs"]]
        if report["checkpoint"] is not None:
            entries.append(("checkpoint", number, report["checkpoint"]))
        for text in report.get("warnings", ()):
            self.warnings.append(f"trial {number}: {text}")
            entries.append(("note", None, {"about": "warning", "trial": number, "text": text}))
        if report.get("packs") is not None:
            self.packs.measured(trial.settings, report["packs"]["size"])
            entries.append(("note", None, {"about": "packs", **self.packs.key(trial.settings), **report["packs"]}))
        self.ledger.append(*entries)
        if report["failure"] is not None:
            failure = report["failure"]
            if failure.get("together"):
                self._retry_alone(number, failure["reason"])
            else:
                self.fail(number, failure["reason"], failure["traceback"])
            return True
        epoch = trial.epochs[-1]["epoch"] if trial.epochs else 0
        stop = True
        if (broken := broken_constraint(self.spec, trial.num_parameters, trial.epochs)) is not None:
            self._end(number, "failed", broken)
        elif report["is_last"]:
            self._end(number, "complete", f"all {epoch} epochs")
        else:
            stop = self._stops_at_rung(number)
        # Interrupted trials stay `running` in the ledger: resume goes on with them.
        stop = self.check_budgets() or stop or self.is_interrupted
        self.on_change()
        return stop

    def lose(self, numbers: Sequence[int], reason: str, trace: str) -> None:
        """The worker that trained these trials has died. One alone has failed; of several nobody can tell which it was."""
        for number in numbers:
            if len(numbers) > 1:
                self._retry_alone(number, reason)
            else:
                self.fail(number, reason, trace)

    def _retry_alone(self, number: int, reason: str) -> None:
        """A trial whose pack went wrong goes on from its checkpoint, without others."""
        if self.trials[number].state == "running" and number not in self.unfinished:
            self.ledger.append(("note", None, {"about": "alone", "trial": number, "reason": reason}))
            self.unfinished.append(number)
            self._alone.add(number)
            self.packs.failed(self.trials[number].settings)
            self.on_change()

    @property
    def is_stopping(self) -> bool:
        """Whether trials that run are to stop where they are, for another session."""
        return self.used_up is not None or self.is_interrupted

    def fail(self, number: int, reason: str, trace: str) -> None:
        """Record that a trial failed. The sweep goes on."""
        self.packs.not_measured(self.trials[number].settings)
        if self.trials[number].state == "running":
            self._end(number, "failed", reason, trace)
            self.on_change()

    def _stops_at_rung(self, number: int) -> bool:
        """Decide on a trial that stands at a rung and was not decided on there; True when it ends."""
        trial = self.trials[number]
        epoch = trial.epochs[-1]["epoch"] if trial.epochs else 0
        if epoch not in self.spec.rungs or trial.decided >= epoch:
            return False
        expected = self.searcher.expected(rivals(self.trials, number, epoch))
        decision = decide(self.trials, number, epoch, self.spec.metric, self.spec.factor, expected)
        body = {"epoch": epoch, "action": "stop" if decision.stop else "continue", "reason": decision.reason}
        if decision.stop:
            self._end(number, "pruned", decision.reason, before=[("decision", number, body)])
        else:
            self.ledger.append(("decision", number, body))
        return decision.stop

    def _end(self, number: int, state: str, reason: str, trace: str = "", before: Sequence[Entry] = ()) -> None:
        self.ledger.append(*before, ("end", number, {"state": state, "reason": reason, "traceback": trace}))
        self.searcher.tell(self.trials[number])
        self._drop_worst(number)

    def _drop_worst(self, number: int) -> None:
        """Keep the weights of the best `keep` ended trials; the disk must not fill with what nobody exports."""
        ended = [trial for trial in self.ledger.history.ranked(self.spec.metric)
                 if trial.state != "running" and trial.copied_from is None]  # fmt: skip
        beyond = [trial.number for trial in ended[self.spec.keep :]]
        # One trial ends at a time: either it is beyond itself, or it pushed the first of these out.
        for other in beyond[:1] if number not in beyond else [number]:
            with contextlib.suppress(OSError):  # a worker may just be writing it
                drop_weights(self.ledger.folder, other)

    def budgets(self) -> list[Budget]:
        """Every budget of the sweep and how much of it is used, over all sessions."""
        return budgets(self.spec, self.ledger.history, self.used_s())

    def check_budgets(self) -> bool:
        """Whether a budget is used up, or was before: trials that run stop after their slices."""
        if self.used_up is None:
            self.used_up = used_up(self.budgets())
        return self.used_up is not None

    def seconds_left(self) -> float | None:
        """Until the first budget is used up, by this session's rate so far; None where nothing tells yet."""
        if self.first_step is None:
            return None
        return seconds_left(self.budgets_before, self.budgets(), self.clock() - self.first_step)

    def first_step_s(self) -> float | None:
        """From the command to the first training step of this session."""
        return None if self.first_step is None else self.first_step - self.command_started

    def used_s(self) -> float:
        """Seconds of this and earlier sessions."""
        return self.earlier_s + self.clock() - self.session_started

    def efficiency(self) -> float | None:
        """Training seconds as they would be alone / workers / wall time, from the first result to the last.

        The part of an epoch that ran before the first result does not count.
        """
        if self.first_result is None or self.last_result <= self.first_result:
            return None
        trained = sum(
            alone * min(1.0, max(0.0, ended - self.first_result) / max(seconds, 1e-9))
            for ended, seconds, alone in self.trained_s
        )
        return trained / self.spec.workers / (self.last_result - self.first_result)

    def open_session(self, command: str) -> None:
        body = {"spec": asdict(self.spec), "host": socket.gethostname(), "command": command}
        self.ledger.append(("session", None, body))
        self.earlier_s = self.ledger.history.used_s
        self.budgets_before = self.budgets()

    def close_session(self, why: str) -> None:
        body = {"why": why, "seconds": self.clock() - self.session_started, "efficiency": self.efficiency(),
                "first_step_s": self.first_step_s()}  # fmt: skip
        self.ledger.append(("close", None, body))


def _shape(settings: Mapping[str, Any]) -> Any:
    """Trials of equal shapes can train in one pack."""
    return pack_shape(make_config(dict(settings)))


def _without_seed(settings: Mapping[str, Any]) -> str:
    return json.dumps({name: value for name, value in settings.items() if name != "seed"}, sort_keys=True)
