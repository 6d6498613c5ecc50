"""What a sweep would do, before it does anything: its space, its rungs, its hours, memory and disk,
what would be refused.
"""

import contextlib
import time
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from mmm.device import cpus_here
from mmm.training.config import Params
from search.ledger.spec import SweepSpec
from search.plan.checks import check as check_sweep
from search.plan.cost import Cost, measure_all
from search.plan.rungs import Rungs, expected_rungs
from search.space.sampling import draw
from search.space.settings import trial_config
from search.space.tree import SpaceTree
from spaces import Space

NUM_DRAWS = 1000
# A sampler that learns makes later trials better, and more of them go on. By how much the last is
# better than the first, in standard deviations between trials: 1 gave what two real sweeps did (13
# of 44 to epoch 27, 11 of 24 to epoch 9).
_LEARNED_SD = 1.0
_BYTES = 4  # of a weight
_SHOW_PROGRESS_AFTER_S = 2.0


@dataclass(frozen=True)
class Forecast:
    """A sweep as it would go."""

    spec: SweepSpec
    space: Space
    tree: SpaceTree
    fixed: Params  # settings that the space always gives
    # Of NUM_DRAWS drawn settings: the space fails on them, or they cannot be trained.
    num_unfit: int
    num_rows: tuple[int, int]  # of training and validation
    notes: tuple[str, ...]  # on the manifest's labels
    at_random: Rungs
    with_learning: Rungs
    costs: tuple[Cost, ...]
    device: str
    threads: int
    num_parallel: int  # workers that have a core or a GPU share
    stores_bytes: int

    @property
    def epoch_s(self) -> float:
        """Mean seconds of an epoch over settings drawn at random."""
        return sum(cost.share * cost.mean_seconds for cost in self.costs)

    def training_s(self, rungs: Rungs, epoch_s: float) -> float:
        """Wall seconds of all workers' training."""
        return rungs.total_epochs * epoch_s / self.num_parallel

    @property
    def disk_bytes(self) -> tuple[int, int]:
        """At most, of the weights of trials that are kept, and of the checkpoints of those that
        run.
        """
        weights = max(cost.max_parameters for cost in self.costs) * _BYTES
        # A checkpoint holds weights, best weights and two moments each; the one before it stays
        # until it is recorded.
        return min(self.spec.keep, self.spec.trials) * weights, 2 * 4 * weights * min(
            self.spec.workers, self.spec.trials
        )

    @property
    def worker_bytes(self) -> int:
        return max(cost.peak_bytes for cost in self.costs)

    def as_json(self) -> dict[str, object]:
        combinations, is_exact = self.tree.num_combinations()
        return {
            "spec": self.spec.as_json(),
            "space": {
                "tree": self.tree.root.as_json(),
                "fixed": self.fixed,
                "combinations": combinations,
                "is_exact": is_exact,
                "continuous": self.tree.continuous,
                "known_good": [dict(point) for point in self.space.known_good],
                "unfit": self.num_unfit / NUM_DRAWS,
            },
            "rungs": {
                "epochs": self.at_random.epochs,
                "trials": self.at_random.trials,
                "total_epochs": self.at_random.total_epochs,
                "trials_with_learning": self.with_learning.trials,
                "total_epochs_with_learning": self.with_learning.total_epochs,
            },
            "costs": {
                cost.name: {
                    "share": cost.share,
                    "mean_seconds_per_epoch": cost.mean_seconds,
                    "typical": cost.typical.as_json(),
                    "costliest": cost.costliest.as_json(),
                }
                for cost in self.costs
            },
            "training_s": [
                self.training_s(rungs, self.epoch_s)
                for rungs in (self.at_random, self.with_learning)
            ],
            "memory_bytes": {
                "worker": self.worker_bytes,
                "workers": self.spec.workers,
                "stores": self.stores_bytes,
            },
            "disk_bytes": dict(zip(("kept", "running"), self.disk_bytes, strict=True)),
            "notes": self.notes,
            "refused": [],
        }


def forecast(spec: SweepSpec, console: Console) -> Forecast:
    """Check, draw and measure, with a progress bar on a terminal. Raises ValueError with all that
    would be refused.
    """
    started = time.monotonic()
    checked = check_sweep(spec)
    space, check = checked.space, checked.settings_check
    drawn = draw(space, NUM_DRAWS)
    configs, params = [], []
    for point, distributions, settings in drawn:
        with contextlib.suppress(ValueError):
            configs.append(trial_config(settings, spec))
            params.append((point, distributions))
    num_cores = cpus_here()
    is_local_cpu = spec.address is None and spec.gpus_per_trial == 0
    threads = max(1, num_cores // spec.workers) if spec.address is None else 1  # as a worker gets
    device = torch.device(
        "cuda" if spec.gpus_per_trial > 0 and torch.cuda.is_available() else "cpu"
    )
    progress = Progress(
        TextColumn("measuring"), BarColumn(), MofNCompleteColumn(), console=console, transient=True
    )
    task, threads_before = progress.add_task(""), torch.get_num_threads()
    costs: list[Cost] = []
    torch.set_num_threads(threads)
    try:
        for done, total, costs in measure_all(configs, check, device):  # noqa: B007
            progress.update(task, completed=done, total=total)
            if (
                console.is_terminal
                and not progress.live.is_started
                and time.monotonic() - started > _SHOW_PROGRESS_AFTER_S
            ):
                progress.start()
    finally:
        if progress.live.is_started:
            progress.stop()
        torch.set_num_threads(threads_before)
    stores = {
        store.path
        for config in configs
        for store in (check.features(config).speech, check.features(config).text)
    }
    known = [settings for _, _, settings in drawn]
    return Forecast(
        spec=spec,
        space=space,
        tree=SpaceTree(params),
        num_unfit=NUM_DRAWS - len(configs),
        fixed={
            name: value
            for name, value in known[0].items()
            if all(name in one and one[name] == value for one in known)
        },
        num_rows=(len(check.manifest.rows("train")), len(check.manifest.rows("dev"))),
        notes=check.manifest.notes,
        at_random=expected_rungs(checked.spec),
        with_learning=expected_rungs(checked.spec, _LEARNED_SD),
        costs=tuple(costs),
        device=device.type,
        threads=threads,
        num_parallel=min(spec.workers, spec.trials, num_cores if is_local_cpu else spec.workers),
        stores_bytes=sum(file.stat().st_size for path in stores for file in path.iterdir()),
    )
