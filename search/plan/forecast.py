"""What a sweep would do, before it does anything: its space, its rungs, its hours, memory and disk,
what would be refused.
"""

import contextlib
import time
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from mmm.device import cpus_here
from mmm.training.config import Params
from search.ledger.durations import duration
from search.ledger.spec import SweepSpec
from search.plan.checks import check as check_sweep
from search.plan.cost import Cost, measure_all
from search.plan.rungs import Rungs, expected_rungs
from search.space.sampling import draw
from search.space.settings import trial_config
from search.space.tree import SpaceTree
from spaces import Space

_NUM_DRAWS = 1000
# A sampler that learns makes later trials better, and more of them go on. By how much the last is
# better than the first, in standard deviations between trials: 1 gave what two real sweeps did (13
# of 44 to epoch 27, 11 of 24 to epoch 9).
_LEARNED_SD = 1.0
_BYTES = 4  # of a weight
_SHOW_PROGRESS_AFTER_S = 2.0
_COST_SETTINGS = (
    "speech",
    "text",
    "context",
    "audio_feature",
    "pooling",
    "layer_mix",
    "width",
    "num_blocks",
    "layers",
    "heads",
    "batch_size",
)


@dataclass(frozen=True)
class Forecast:
    """A sweep as it would go."""

    spec: SweepSpec
    space: Space
    tree: SpaceTree
    fixed: Params  # settings that the space always gives
    num_unfit: (
        int  # of _NUM_DRAWS drawn settings: the space fails on them, or they cannot be trained
    )
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
                "unfit": self.num_unfit / _NUM_DRAWS,
            },
            "rungs": {
                "epochs": self.at_random.epochs,
                "trials": self.at_random.trials,
                "total_epochs": self.at_random.total_epochs,
                "trials_with_learning": self.with_learning.trials,
                "total_epochs_with_learning": self.with_learning.total_epochs,
            },
            "costs": {
                _named(cost): {
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
    drawn = draw(space, _NUM_DRAWS)
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
        num_unfit=_NUM_DRAWS - len(configs),
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


def _size(num_bytes: float) -> str:
    for unit in ("kB", "MB"):
        num_bytes /= 1000
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
    return f"{num_bytes / 1000:.3g} GB"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) or value >= 100 else f"{value:.1f}"


def _words(settings: Params) -> str:
    return " ".join(
        f"{name}={value:.2g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in settings.items()
    )


def _named(cost: Cost) -> str:
    return cost.architecture + (f" on {cost.speech}" if cost.speech is not None else "")


def show(found: Forecast, console: Console) -> None:
    """Print it."""
    spec, costs = found.spec, found.costs

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True, markup=False)

    def table(*columns: str) -> Table:
        made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for name in columns:
            made.add_column(
                name,
                justify="left" if name in ("", "architecture", "its settings") else "right",
                no_wrap=name != "its settings",
            )
        return made

    combinations, is_exact = found.tree.num_combinations()
    values = f" x any {', '.join(found.tree.continuous)}" if found.tree.continuous else ""
    say(
        f"space {spec.space}: {'' if is_exact else 'at least '}{combinations:,}"
        f" combinations{values}"
    )
    lines = list(found.tree.root.lines(1))
    widest = max((len(name) for name, words in lines if words), default=0)
    for name, words in lines:
        say(f"{name:<{widest}}  {words}" if words else name)
    if found.fixed:
        say(f"  always: {_words(found.fixed)}")
    if found.num_unfit:
        say(
            f"  {found.num_unfit} of {_NUM_DRAWS} drawn settings cannot be made or trained; such"
            " trials end failed"
        )
    if found.space.known_good:
        say(f"\nknown good points, which run first: {len(found.space.known_good)}")
        for point in found.space.known_good:
            say(f"  {_words(point)}")
    say("")
    reach = table("trained up to epoch", *map(str, found.at_random.epochs), "epochs in all")
    for name, one in (
        ("trials, scores at random", found.at_random),
        ("trials, sampler learns", found.with_learning),
    ):
        reach.add_row(name, *map(_number, one.trials), f"{one.total_epochs:,.0f}")
    reach.columns[0].justify = "left"
    console.print(reach)
    if found.at_random.num_folds > 1:
        say(
            f"trained to the last epoch, a trial goes on with the other"
            f" {found.at_random.num_folds - 1} folds, at most to the last of them"
        )
    for note in found.notes:
        say(f"\nnote: {note}")
    train, dev = found.num_rows
    say(
        f"\nmeasured on {train} training and {dev} validation utterances ({found.device},"
        f" {found.threads} thread{'s' if found.threads > 1 else ''}):"
    )
    measured = table(
        "architecture", "drawn", "parameters", "s an epoch", "costliest", "memory", "its settings"
    )
    for cost in costs:
        own = {
            name: value
            for name, value in cost.costliest.config.params().items()
            if name in _COST_SETTINGS
        }
        measured.add_row(
            _named(cost),
            f"{cost.share:.0%}",
            f"{cost.typical.parameters:,}",
            f"{cost.typical.seconds:.2f}",
            f"{cost.costliest.seconds:.2f}",
            _size(cost.peak_bytes),
            _words(own),
        )
    console.print(measured)
    if spec.gpus_per_trial > 0 and found.device == "cpu":
        say("measured on this machine's CPU: on the cluster's GPUs it takes other times")
    low, high = (
        duration(found.training_s(rungs, found.epoch_s))
        for rungs in (found.at_random, found.with_learning)
    )
    cheap, costly = (choose(costs, key=lambda cost: cost.mean_seconds) for choose in (min, max))
    ends = [
        (found.training_s(rungs, cost.mean_seconds), cost)
        for rungs, cost in ((found.at_random, cheap), (found.with_learning, costly))
    ]
    say(
        f"\ntime    {low} to {high} of training on {spec.workers} workers, at {found.epoch_s:.2f} s"
        " an epoch with settings at random; the sampler moves towards some architecture:"
    )
    say(
        "        "
        + ", ".join(f"{duration(seconds)} with {_named(cost)} alone" for seconds, cost in ends)
    )
    say(
        f"memory  {_size(found.worker_bytes * spec.workers)}: {spec.workers} workers of at most"
        f" {_size(found.worker_bytes)}; they share {_size(found.stores_bytes)} of features; Ray and"
        " the driver come to it"
    )
    kept, running = found.disk_bytes
    say(
        f"disk    at most {_size(kept + running)}: weights of {min(spec.keep, spec.trials)} trials"
        f" {_size(kept)}, checkpoints of running trials {_size(running)}"
    )
    say("nothing would be refused")
