"""The trials of one worker, trained together and cut into slices of about a second.

A worker trains one trial, or several of one shape as one batched model (mmm/training/pack.py).
"""

import contextlib
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from mmm.training.fit import Diverged, fit_pack
from mmm.training.gpu_features import resident_bytes
from mmm.training.malloc import forget_peak, give_back, peak_kb
from mmm.training.pack_size import measure_pack_sizes
from mmm.training.run import Run
from search.ledger.records import PackMeasured
from search.messages import Cut, Failure, Order, Report
from search.worker.trial import Member

SLICE_S = 1.0  # short epochs are reported together
_NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"  # a RuntimeError of torch on a CPU


class Slices:
    """Slices never pass a rung or an end.

    What goes wrong with a trial is in its report, and does not touch the others.
    """

    def __init__(self, orders: Sequence[Order]) -> None:
        self.members: dict[int, Member] = {}
        self._failures: dict[int, Failure] = {}  # not reported yet
        self._packs: PackMeasured | None = None  # not reported yet
        self._runs: list[Run] = []  # fit_pack's, which drops those that end
        self._epochs: Iterator[Any] = iter(())
        self.join(orders)

    def join(self, orders: Sequence[Order]) -> None:
        """Trials that are trained with the others from the next epoch on."""
        self._forget_memory()
        for order in orders:
            try:
                self.members[order.number] = member = Member(order)
                if order.largest_pack > 1:
                    self._packs = _measured(member, order.largest_pack)
                self._runs.append(member.run)
            except Exception as error:
                self._failures[order.number] = _failure(error)
        if self._runs:
            self._epochs = fit_pack(self._runs)

    def leave(self, numbers: Sequence[int]) -> None:
        """Trials that the driver has ended, or that failed."""
        for member in filter(None, map(self._forget, numbers)):
            with contextlib.suppress(OSError):  # a full disk, or the driver just drops its weights
                member.slim()

    def _forget(self, number: int) -> Member | None:
        if (member := self.members.pop(number, None)) is not None:
            self._runs[:] = [run for run in self._runs if run is not member.run]
        return member

    def train(self) -> list[Cut]:
        """Train for about a second, at least one epoch, at most to the next rung or end of one; a
        cut of each trial.
        """
        started = time.monotonic()
        try:
            while self._runs and not self._failures:
                epoch_started = time.perf_counter()
                outcomes = next(self._epochs, None)
                if outcomes is None:
                    break
                elapsed_s, memory_mb = time.perf_counter() - epoch_started, self._memory_mb()
                by_run = {id(member.run): member for member in self.members.values()}
                trained = [by_run[id(run)] for run, _ in outcomes]
                for member, (_, outcome) in zip(trained, outcomes, strict=True):
                    if isinstance(outcome, Diverged):
                        self._failures[member.number] = _failure(outcome)
                    else:
                        member.add(outcome, self._is_cpu_time, memory_mb, elapsed_s, len(outcomes))
                is_slice = time.monotonic() - started >= SLICE_S
                if is_slice or any(member.has_to_wait for member in trained):
                    break
        # Of the batched model: nobody can tell whose it is; a system of the user's own may also
        # mean to end the process.
        except (Exception, SystemExit) as error:
            is_together = len(self.members) > 1
            self._failures |= dict.fromkeys(self.members, _failure(error, is_together))
            self._runs.clear()
        return self._cuts()

    def _cuts(self) -> list[Cut]:
        cuts = []
        for number, member in self.members.items():
            try:
                cuts.append(member.cut(len(self.members), self._failures.pop(number, None)))
            except Exception as error:  # no memory for a checkpoint
                cuts.append(Cut(number, member.run.epoch, failure=_failure(error)))
        # What could not even begin.
        cuts += [Cut(number, 0, failure=failure) for number, failure in self._failures.items()]
        self._failures = {}
        return cuts

    def may_go_on(self, cuts: Sequence[Cut]) -> bool:
        """Whether more can be trained after these cuts before the driver has decided on them."""
        return bool(self._runs) and not any(
            cut.failure is not None or self.members[cut.number].has_to_wait for cut in cuts
        )

    def reports(self, cuts: Sequence[Cut]) -> list[Report]:
        """What the driver is told of these cuts, now that checkpoints are written. The trials may
        be trained meanwhile.
        """
        reports = []
        for cut in cuts:
            member = self.members.get(cut.number)
            try:
                reports.append(cut.report() if member is None else member.write(cut))
            except Exception as error:  # a full disk
                reports.append(Cut(cut.number, 0, failure=_failure(error)).report())
        for report in reports:
            # They go on elsewhere, each alone, from their checkpoints, which are to stay.
            if report.failure is not None and report.failure.goes_on:
                self._forget(report.number)
        if reports and self._packs is not None:
            reports[0], self._packs = replace(reports[0], packs=self._packs), None
        return reports

    def next(self) -> list[Report]:
        """Train, then tell of it: a report of each trial."""
        return self.reports(self.train())

    @property
    def _is_cpu_time(self) -> bool:
        """On the CPU with one thread, that thread's CPU time is what the epoch would take with the
        core to itself.
        """
        return self._runs[0].device.type == "cpu" and torch.get_num_threads() == 1

    def _forget_memory(self) -> None:
        """Start counting the peak anew: this process has trained other trials before."""
        give_back()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()  # what a large trial took is of use to other processes
            torch.cuda.reset_peak_memory_stats()
        forget_peak()

    def _memory_mb(self) -> float:
        """The most that this process (on a GPU: its tensors there, features aside) has held in
        these trials, in MB.
        """
        if self._runs and self._runs[0].device.type == "cuda":
            device = self._runs[0].device
            return (torch.cuda.max_memory_allocated(device) - resident_bytes(device)) / 1e6
        return peak_kb() / 1e3


def _failure(error: Exception | SystemExit, is_together: bool = False) -> Failure:
    reason = str(error) if isinstance(error, Diverged) else f"{type(error).__name__}: {error}"
    trace = "".join(traceback.format_exception(error))
    is_memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or _NO_MEMORY in reason
    return Failure(reason, trace, isinstance(error, Diverged), is_together, is_memory)


def _measured(member: Member, largest: int) -> PackMeasured:
    of, found = member.order.settings.get, measure_pack_sizes(member.run, largest)
    seconds = {str(size): seconds for size, seconds in found["seconds"].items()}
    kind = of("architecture"), of("batch_size"), of("width")
    return PackMeasured(*kind, seconds, found["size"])
