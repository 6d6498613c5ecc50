"""What a sweep would do, before it does anything: its space, its rungs, its hours, memory and disk,
what would be refused.
"""

import contextlib
import heapq
import os
import random
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from mmm.encode_command import encode_command
from search.config import SweepSpec, duration
from search.cost import Cost, measure_all
from search.history import Trial
from search.plan import SettingsCheck, check_contexts, check_spec, trial_config, with_features_there
from search.scheduler import decide
from search.searcher import check_space, draw, load_space
from search.space_tree import SpaceTree
from spaces import Space

_NUM_DRAWS = 1000
_MAX_PASSES = 10  # over a space, for faults of which each pass finds one
_MAX_SIMULATED = 100  # trials; more reach the rungs in the same proportions
_NUM_SIMULATIONS = 10
# A sampler that learns makes later trials better, and more of them go on. By how much the last is
# better than the first, in standard deviations between trials: 1 gave what two real sweeps did (13
# of 44 to epoch 27, 11 of 24 to epoch 9).
_LEARNED_SD = 1.0
_BYTES = 4  # of a weight
_SHOW_PROGRESS_AFTER_S = 2.0
_COST_SETTINGS = (
    "context",
    "audio_feature",
    "width",
    "num_blocks",
    "layers",
    "heads",
    "batch_size",
)


def check_all(spec: SweepSpec) -> tuple[Space, SettingsCheck]:
    """The space and the data that a sweep would run with. Raises ValueError with all that `run`
    would refuse, one after another.
    """
    faults: list[str] = []

    @contextlib.contextmanager
    def listed() -> Iterator[None]:
        try:
            yield
        except (ValueError, FileNotFoundError) as error:
            if str(error) not in faults:
                faults.append(str(error))

    space = settings_check = None
    with listed():
        check_spec(spec)
    spec = replace(spec, epochs=max(1, spec.epochs))  # told above, not once more of every setting
    if not Path(spec.manifest).is_file():
        faults.append(
            f"{spec.manifest}: no such manifest; make one with: mmm prepare csv FILE -o"
            " manifest.csv"
        )
    else:
        with listed():
            settings_check = SettingsCheck(spec)
    if not (has_features := Path(spec.features).is_dir()):
        faults.append(
            f"{spec.features}: no such features folder; run:"
            f" {encode_command(spec.manifest, spec.features)}"
        )
    if has_features:
        with listed():
            spec = with_features_there(spec)
    with listed():
        space = load_space(spec.space, spec.audio_features)
    if space is not None:
        drawn, found = _drawn_settings(space, spec)
        faults += found
        if has_features:
            with listed():
                check_contexts(spec, drawn)
            if settings_check is not None and not faults:
                for settings in drawn:
                    with listed():
                        settings_check(settings)
    if faults:
        raise ValueError("\nalso: ".join(faults))
    assert space is not None
    assert settings_check is not None
    return space, settings_check


def _drawn_settings(space: Space, spec: SweepSpec) -> tuple[list[Mapping[str, Any]], list[str]]:
    """Settings that are right by themselves, and a fault of each kind that others have."""
    told: set[str] = set()
    faults: list[str] = []
    drawn: list[Mapping[str, Any]] = []

    def settings_alone(settings: Mapping[str, Any]) -> None:
        try:
            trial_config(settings, spec)
        except ValueError as error:
            kind = re.sub(
                r"[\d.]+(e-?\d+)?", "", str(error)
            )  # another value out of the same range is the same fault
            if kind not in told:
                told.add(kind)
                raise
        else:
            drawn.append(settings)

    for _ in range(_MAX_PASSES):
        drawn.clear()
        num_told = len(told)
        try:
            check_space(space, settings_alone)
            break
        except (ValueError, FileNotFoundError) as error:
            faults.append(str(error))
            if len(told) == num_told:
                break  # the space itself fails, and would again
    return drawn, faults


@dataclass(frozen=True)
class Rungs:
    """How many trials are expected to be trained up to each epoch at which ASHA decides, and to the
    last.
    """

    epochs: tuple[int, ...]
    trials: tuple[float, ...]

    @property
    def total_epochs(self) -> float:
        before = (0, *self.epochs)
        return sum(
            number * (epoch - start)
            for number, epoch, start in zip(self.trials, self.epochs, before, strict=False)
        )


def expected_rungs(spec: SweepSpec, learned_sd: float = 0.0) -> Rungs:
    """The scheduler's own decisions on made-up trials, averaged; each trial keeps its score from
    rung to rung.

    `learned_sd`: how much better the last trial is than the first, in standard deviations; 0 ranks
    them at random.
    """
    stages = [*spec.rungs, spec.epochs]
    num_trials = min(spec.trials, _MAX_SIMULATED)
    chance = random.Random(spec.seed)  # noqa: S311
    reached = [0] * len(stages)
    for _ in range(_NUM_SIMULATIONS):
        scores = [chance.gauss() + learned_sd * number / num_trials for number in range(num_trials)]
        # Trials differ in how long an epoch takes, so they overtake each other.
        pace = [2 ** chance.uniform(-1, 1) for _ in range(num_trials)]
        trials: dict[int, Trial] = {}
        queue: list[tuple[float, int, int]] = []
        waiting = iter(range(num_trials))
        for number in [next(waiting) for _ in range(min(spec.workers, num_trials))]:
            heapq.heappush(queue, (pace[number] * stages[0], number, 0))
        while queue:
            now, number, stage = heapq.heappop(queue)
            reached[stage] += 1
            trial = trials.setdefault(number, Trial(number, {}, {}, {}, 0.0))
            trial.add_epoch({"epoch": stages[stage], "metrics": {spec.metric: scores[number]}})
            is_last = stage == len(stages) - 1
            if (
                not is_last
                and not decide(trials, number, stages[stage], spec.metric, spec.factor).stop
            ):
                heapq.heappush(
                    queue,
                    (now + pace[number] * (stages[stage + 1] - stages[stage]), number, stage + 1),
                )
            elif (following := next(waiting, None)) is not None:
                heapq.heappush(queue, (now + pace[following] * stages[0], following, 0))
    scale = spec.trials / num_trials / _NUM_SIMULATIONS
    return Rungs(tuple(stages), tuple(number * scale for number in reached))


@dataclass(frozen=True)
class Forecast:
    """A sweep as it would go."""

    spec: SweepSpec
    space: Space
    tree: SpaceTree
    fixed: dict[str, Any]  # settings that the space always gives
    num_unfit: (
        int  # of _NUM_DRAWS drawn settings: the space fails on them, or they cannot be trained
    )
    num_rows: tuple[int, int]  # of training and validation
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

    def as_json(self) -> dict[str, Any]:
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
                cost.architecture: {
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
            "refused": [],
        }


def forecast(spec: SweepSpec, console: Console) -> Forecast:
    """Check, draw and measure, with a progress bar on a terminal. Raises ValueError with all that
    would be refused.
    """
    started = time.monotonic()
    space, check = check_all(spec)
    drawn = draw(space, _NUM_DRAWS)
    configs, params = [], []
    for point, distributions, settings in drawn:
        with contextlib.suppress(ValueError):
            configs.append(trial_config(settings, spec))
            params.append((point, distributions))
    num_cores = len(os.sched_getaffinity(0))
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
        at_random=expected_rungs(spec),
        with_learning=expected_rungs(spec, _LEARNED_SD),
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


def _words(settings: Mapping[str, Any]) -> str:
    return " ".join(
        f"{name}={value:.2g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in settings.items()
    )


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
            cost.architecture,
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
        + ", ".join(f"{duration(seconds)} with {cost.architecture} alone" for seconds, cost in ends)
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
