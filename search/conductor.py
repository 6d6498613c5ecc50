"""The sweep's decisions, without Ray: what to train next, whether a trial goes on, what is written down, in this order."""

import contextlib
import socket
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from search.config import SweepSpec
from search.ledger import Entry, Ledger, Trial
from search.plan import trial_config
from search.scheduler import decide
from search.searcher import Searcher, SpaceError
from search.trial_files import drop_weights
from spaces import Space


class Conductor:
    """Stands between the ledger and whatever runs trials. Every answer is in the ledger before it is given."""

    def __init__(self, ledger: Ledger, spec: SweepSpec, space: Space, device: str, on_change: Callable[[], None]) -> None:
        self.ledger, self.spec, self.space, self.device, self.on_change = ledger, spec, space, device, on_change
        self.searcher = Searcher(space, spec.metric, spec.seed, ledger.history.trials)
        self.unfinished = [trial.number for trial in ledger.history.trials.values() if trial.state == "running"]
        self.session_started = time.time()
        self.earlier_s = 0.0
        self.first_result: float | None = None
        self.last_result: float = self.session_started
        self.trained_s: list[tuple[float, float, float]] = []  # (ended, seconds by the clock, seconds alone) of each epoch
        self.is_out_of_time = False
        self.is_interrupted = False

    @property
    def trials(self) -> dict[int, Trial]:
        return self.ledger.history.trials

    @property
    def has_work(self) -> bool:
        """Whether anything is left to train."""
        return bool(self.unfinished) or len(self.trials) < self.spec.trials

    def next_order(self) -> dict[str, Any] | None:
        """The next trial to train, an interrupted one first; None when there is none any more."""
        if self.check_time() or self.is_interrupted:
            return None
        while self.unfinished:
            number = self.unfinished.pop(0)
            if not self._stops_at_rung(number):  # a killed driver may have recorded a report and not yet decided
                return self._order(self.trials[number])
        # Trials that cannot be made (a space that fails on rare settings) are failures, not the sweep's end.
        while (number := len(self.trials)) < self.spec.trials:
            suggested: dict[str, Any] = {}
            try:
                params, distributions, suggested = self.searcher.suggest(number)
                settings = trial_config(suggested, self.spec).params()
            except ValueError as error:
                reason, trace = f"invalid settings: {error}", ""
                if isinstance(error, SpaceError):
                    params, distributions, reason, trace = error.params, error.distributions, str(error), traceback.format_exc()
                body = {"params": params, "distributions": distributions, "settings": suggested}
                end = {"state": "failed", "reason": reason, "traceback": trace}
                self.ledger.append(("suggest", number, body), ("end", number, end))
                self.searcher.tell(self.trials[number])
                self.on_change()
                continue
            # An identical setting is worth a second run only with another seed.
            repeats = sum(_without_seed(trial.settings) == _without_seed(settings) for trial in self.trials.values())
            settings["seed"] += repeats
            self.ledger.append(("suggest", number, {"params": params, "distributions": distributions, "settings": settings}))
            self.on_change()
            return self._order(self.trials[number])
        return None

    def _order(self, trial: Trial) -> dict[str, Any]:
        spec = self.spec
        return {"sweep": str(self.ledger.folder.resolve()), "number": trial.number, "settings": trial.settings,
                "manifest": spec.manifest, "features": spec.features, "metric": spec.metric, "device": self.device,
                "rungs": spec.rungs, "checkpoint": trial.checkpoint}  # fmt: skip

    def report(self, number: int, report: dict[str, Any]) -> bool:
        """Record what a trial reported; True when it has to stop."""
        now = time.time()
        trial = self.trials[number]
        if report["failure"] is not None:
            self.fail(number, report["failure"]["reason"], report["failure"]["traceback"])
            return True
        if report["epochs"]:
            if self.first_result is None:
                self.first_result = now
            self.last_result = now
            self.trained_s += [(entry["ended"], entry["seconds"], entry["alone_seconds"]) for entry in report["epochs"]]
        entries: list[Entry] = [("epoch", number, entry) for entry in report["epochs"]]
        if report["checkpoint"] is not None:
            entries.append(("checkpoint", number, report["checkpoint"]))
        self.ledger.append(*entries)
        epoch = trial.epochs[-1]["epoch"] if trial.epochs else 0
        stop = False
        if report["is_last"]:
            self._end(number, "complete", f"all {epoch} epochs")
            stop = True
        else:
            stop = self._stops_at_rung(number)
        # Interrupted trials stay `running` in the ledger: resume goes on with them.
        stop = stop or self.check_time() or self.is_interrupted
        self.on_change()
        return stop

    def fail(self, number: int, reason: str, trace: str) -> None:
        """Record that a trial failed. The sweep goes on."""
        if self.trials[number].state == "running":
            self._end(number, "failed", reason, trace)
            self.on_change()

    def _stops_at_rung(self, number: int) -> bool:
        """Decide on a trial that stands at a rung and was not decided on there; True when it ends."""
        trial = self.trials[number]
        epoch = trial.epochs[-1]["epoch"] if trial.epochs else 0
        if epoch not in self.spec.rungs or trial.decided >= epoch:
            return False
        decision = decide(self.trials, number, epoch, self.spec.metric, self.spec.factor)
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
        ended = [trial for trial in self.ledger.history.ranked(self.spec.metric) if trial.state != "running"]
        beyond = [trial.number for trial in ended[self.spec.keep :]]
        # One trial ends at a time: either it is beyond itself, or it pushed the first of these out.
        for other in beyond[:1] if number not in beyond else [number]:
            with contextlib.suppress(FileNotFoundError):  # a worker may just be writing it
                drop_weights(self.ledger.folder, other)

    def check_time(self) -> bool:
        """Whether the time budget, counted over all sessions, is used up."""
        budget = self.spec.time_budget_s
        if budget is not None and not self.is_out_of_time:
            self.is_out_of_time = self.used_s() >= budget
        return self.is_out_of_time

    def used_s(self) -> float:
        """Seconds of this and earlier sessions."""
        return self.earlier_s + time.time() - self.session_started

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

    def close_session(self, why: str) -> None:
        body = {"why": why, "seconds": time.time() - self.session_started, "efficiency": self.efficiency()}
        self.ledger.append(("close", None, body))


def _without_seed(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != "seed"}
