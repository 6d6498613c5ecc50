"""The sweep's decisions, without Ray: what to train next, whether a trial goes on, what is written down, in this order."""

import contextlib
import socket
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from search.config import SweepSpec
from search.ledger import Ledger, Trial
from search.plan import trial_config
from search.scheduler import decide
from search.searcher import Searcher
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
        if self.unfinished:
            return self._order(self.trials[self.unfinished.pop(0)])
        # Trials that cannot be made (a space that fails on rare settings) are failures, not the sweep's end.
        while (number := len(self.trials)) < self.spec.trials:
            params, distributions, suggested = self.searcher.suggest(number)
            try:
                settings = trial_config(suggested, self.spec).params()
            except ValueError as error:
                body = {"params": params, "distributions": distributions, "settings": dict(suggested)}
                end = {"state": "failed", "reason": f"invalid settings: {error}", "traceback": ""}
                self.ledger.append(("suggest", number, body), ("end", number, end))
                self.searcher.tell(self.trials[number])
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
        entries: list[tuple[str, int | None, dict[str, Any]]] = [("epoch", number, entry) for entry in report["epochs"]]
        if report["checkpoint"] is not None:
            entries.append(("checkpoint", number, report["checkpoint"]))
        self.ledger.append(*entries)
        epoch = trial.epochs[-1]["epoch"] if trial.epochs else 0
        stop = False
        if report["is_last"]:
            self._end(number, "complete", f"all {epoch} epochs")
            stop = True
        elif epoch in self.spec.rungs:
            decision = decide(self.trials, number, epoch, self.spec.metric, self.spec.factor)
            body = {"epoch": epoch, "action": "stop" if decision.stop else "continue", "reason": decision.reason}
            self.ledger.append(("decision", number, body))
            if decision.stop:
                self._end(number, "pruned", decision.reason)
            stop = decision.stop
        # Interrupted trials stay `running` in the ledger: resume goes on with them.
        stop = stop or self.check_time() or self.is_interrupted
        self.on_change()
        return stop

    def fail(self, number: int, reason: str, trace: str) -> None:
        """Record that a trial failed. The sweep goes on."""
        if self.trials[number].state == "running":
            self._end(number, "failed", reason, trace)
            self.on_change()

    def _end(self, number: int, state: str, reason: str, trace: str = "") -> None:
        self.ledger.append(("end", number, {"state": state, "reason": reason, "traceback": trace}))
        self.searcher.tell(self.trials[number])
        self._drop_worst(number)

    def _drop_worst(self, number: int) -> None:
        """Keep the weights of the best `keep` ended trials; the disk must not fill with what nobody exports."""
        ended = [trial for trial in self.ledger.history.ranked(self.spec.metric) if trial.state != "running"]
        for trial in ended[self.spec.keep :][:1] if len(ended) > self.spec.keep else []:
            # One trial ends at a time, so at most one falls out; a worker may just be writing it.
            with contextlib.suppress(FileNotFoundError):
                drop_weights(self.ledger.folder, trial.number)

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
