"""A forecast on the terminal."""

from rich.console import Console
from rich.table import Table

from mmm.console import say
from mmm.training.config import Params
from search.ledger.durations import duration
from search.plan.forecast import NUM_DRAWS, Forecast

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


def show(found: Forecast, console: Console) -> None:
    """Print it."""
    _show_space(found, console)
    _show_reach(found, console)
    for note in found.notes:
        say(console, f"\nnote: {note}")
    _show_costs(found, console)
    _show_time(found, console)
    workers, kept = found.spec.workers, min(found.spec.keep, found.spec.trials)
    of_kept, of_running = found.disk_bytes
    say(
        console,
        f"memory  {_size(found.worker_bytes * workers)}: {workers} workers of at most"
        f" {_size(found.worker_bytes)}; they share {_size(found.stores_bytes)} of features; Ray and"
        " the driver come to it",
    )
    say(
        console,
        f"disk    at most {_size(of_kept + of_running)}: weights of {kept} trials"
        f" {_size(of_kept)}, checkpoints of running trials {_size(of_running)}",
    )
    say(console, "nothing would be refused")


def _show_space(found: Forecast, console: Console) -> None:
    combinations, is_exact = found.tree.num_combinations()
    values = f" x any {', '.join(found.tree.continuous)}" if found.tree.continuous else ""
    say(
        console,
        f"space {found.spec.space}: {'' if is_exact else 'at least '}{combinations:,}"
        f" combinations{values}",
    )
    lines = list(found.tree.root.lines(1))
    widest = max((len(name) for name, words in lines if words), default=0)
    for name, words in lines:
        say(console, f"{name:<{widest}}  {words}" if words else name)
    if found.fixed:
        say(console, f"  always: {_words(found.fixed)}")
    if found.num_unfit:
        say(
            console,
            f"  {found.num_unfit} of {NUM_DRAWS} drawn settings cannot be made or trained; such"
            " trials end failed",
        )
    if found.space.known_good:
        say(console, f"\nknown good points, which run first: {len(found.space.known_good)}")
        for point in found.space.known_good:
            say(console, f"  {_words(point)}")


def _show_reach(found: Forecast, console: Console) -> None:
    """How many trials come to each rung."""
    say(console, "")
    reach = _table("trained up to epoch", *map(str, found.at_random.epochs), "epochs in all")
    for name, one in (
        ("trials, scores at random", found.at_random),
        ("trials, sampler learns", found.with_learning),
    ):
        reach.add_row(name, *map(_number, one.trials), f"{one.total_epochs:,.0f}")
    reach.columns[0].justify = "left"
    console.print(reach)
    if found.at_random.num_folds > 1:
        say(
            console,
            f"trained to the last epoch, a trial goes on with the other"
            f" {found.at_random.num_folds - 1} folds, at most to the last of them",
        )


def _show_costs(found: Forecast, console: Console) -> None:
    """What was measured."""
    train, dev = found.num_rows
    say(
        console,
        f"\nmeasured on {train} training and {dev} validation utterances ({found.device},"
        f" {found.threads} thread{'s' if found.threads > 1 else ''}):",
    )
    measured = _table(
        "architecture", "drawn", "parameters", "s an epoch", "costliest", "memory", "its settings"
    )
    for cost in found.costs:
        own = {
            name: value
            for name, value in cost.costliest.config.params().items()
            if name in _COST_SETTINGS
        }
        measured.add_row(
            cost.name,
            f"{cost.share:.0%}",
            f"{cost.typical.parameters:,}",
            f"{cost.typical.seconds:.2f}",
            f"{cost.costliest.seconds:.2f}",
            _size(cost.peak_bytes),
            _words(own),
        )
    console.print(measured)
    if found.spec.gpus_per_trial > 0 and found.device == "cpu":
        say(console, "measured on this machine's CPU: on the cluster's GPUs it takes other times")


def _show_time(found: Forecast, console: Console) -> None:
    low, high = (
        duration(found.training_s(rungs, found.epoch_s))
        for rungs in (found.at_random, found.with_learning)
    )
    cheap, costly = (
        choose(found.costs, key=lambda cost: cost.mean_seconds) for choose in (min, max)
    )
    ends = [
        (found.training_s(rungs, cost.mean_seconds), cost)
        for rungs, cost in ((found.at_random, cheap), (found.with_learning, costly))
    ]
    say(
        console,
        f"\ntime    {low} to {high} of training on {found.spec.workers} workers, at"
        f" {found.epoch_s:.2f} s an epoch with settings at random; the sampler moves towards some"
        " architecture:",
    )
    alone = ", ".join(f"{duration(seconds)} with {cost.name} alone" for seconds, cost in ends)
    say(console, f"        {alone}")


def _table(*columns: str) -> Table:
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        made.add_column(
            name,
            justify="left" if name in ("", "architecture", "its settings") else "right",
            no_wrap=name != "its settings",
        )
    return made


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
