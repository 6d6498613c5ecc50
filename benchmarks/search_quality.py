"""How much less training our search needs than what its users would assemble from stock parts,
replayed.

    python benchmarks/search_quality.py                        # the claim: 8 workers, 40 repeats,
                                                               on benchmarks/data/meld.jsonl
    python benchmarks/search_quality.py --task demo --choose   # what the defaults were chosen with
    python benchmarks/search_quality.py --ablation             # what each choice is worth

Every policy is run against the same task with the same noise (benchmarks/replay.py). "Needs n times
fewer" is the budget over the epochs (or simulated seconds) at which our mean score first is at
least the other's mean score at the end of the budget; its interval is a bootstrap over repeats.
Both are resampled, and where ours does not get there within its own budget, the ratio counts as the
other's share of it that does.
"""

import argparse
import json
import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import optuna

from benchmarks.recording import NearestTask, Recording, SurrogateTask, Task, describe
from benchmarks.replay import OptunaHyperband, Ours, Policy, Stock, Trace, simulate
from benchmarks.synthetic import SyntheticTask
from mmm.device import cpus_here

DATA = Path(__file__).parent / "data"
TASKS = ("meld", "demo", "crossing", "interactions", "meld-nearest", "demo-nearest")
# First rung and factor of (b) and (c), tuned on the task `demo` (--choose).
TUNED_STOCK = {"grace_period": 5, "reduction_factor": 3}
TUNED_RANDOM = {"grace_period": 3, "reduction_factor": 3}
Make = Callable[[Task, int, int], Policy]
POLICIES: dict[str, Make] = {
    "ours": lambda task, seed, workers: Ours(task, seed, workers),
    "(a) stock": lambda task, seed, workers: Stock(task, seed),
    "(b) stock, tuned rungs": lambda task, seed, workers: Stock(task, seed, **TUNED_STOCK),
    "(c) random, tuned ASHA": lambda task, seed, workers: Stock(
        task, seed, sampler="random", **TUNED_RANDOM
    ),
    "random search": lambda task, seed, workers: Stock(task, seed, sampler="random", asha=False),
    "Optuna with Hyperband": lambda task, seed, workers: OptunaHyperband(task, seed),
}
_GRID = [(first, factor) for first in (1, 3, 5, 9) for factor in (2, 3, 4)]
CHOOSE: dict[str, Make] = {
    **{
        f"stock {first}/{factor}": lambda task, seed, workers, first=first, factor=factor: Stock(  # type: ignore[misc]
            task, seed, grace_period=first, reduction_factor=factor
        )
        for first, factor in _GRID
    },
    **{
        f"random {first}/{factor}": lambda task, seed, workers, first=first, factor=factor: Stock(  # type: ignore[misc]
            task, seed, sampler="random", grace_period=first, reduction_factor=factor
        )
        for first, factor in _GRID
    },
    **{
        f"ours {first}/{factor}": lambda task, seed, workers, first=first, factor=factor: Ours(  # type: ignore[misc]
            task, seed, workers, first_rung=first, factor=factor
        )
        for first, factor in _GRID
    },
}


def ours(**options: Any) -> Make:
    return lambda task, seed, workers: Ours(task, seed, workers, **options)


ABLATION: dict[str, Make] = {
    "ours": ours(),
    "rungs by score, model suggests": ours(expects=False),
    "random, rungs by expected score": ours(suggests=False),
    "random, rungs by score": ours(sampler="random"),
    "TPE, rungs by score": ours(sampler="tpe"),
    "without known good points": ours(known_good=False),
    "first rung 3": ours(first_rung=3),
    "first rung 9": ours(first_rung=9),
    "factor 2": ours(factor=2),
    "cost weight 0.25": ours(cost_weight=0.25),
    "cost weight 0.5": ours(cost_weight=0.5),
    "cost weight 1": ours(cost_weight=1.0),
}
# Optuna's TPE as stock uses it (stopped trials told as COMPLETE), with tuned rungs.
TPE: dict[str, Make] = {
    "Optuna's defaults": lambda task, seed, workers: tpe(task, seed),
    "independent": lambda task, seed, workers: tpe(
        task, seed, multivariate=False, constant_liar=False
    ),
    "independent, constant liar": lambda task, seed, workers: tpe(
        task, seed, multivariate=False, constant_liar=True
    ),
    "multivariate": lambda task, seed, workers: tpe(
        task, seed, multivariate=True, constant_liar=False
    ),
    "multivariate, group": lambda task, seed, workers: tpe(
        task, seed, multivariate=True, group=True, constant_liar=False
    ),
    "25 start-up trials": lambda task, seed, workers: tpe(task, seed, n_startup_trials=25),
    "told PRUNED": ours(sampler="tpe"),
}


def tpe(task: Task, seed: int, **options: Any) -> Policy:
    return Stock(
        task, seed, sampler=optuna.samplers.TPESampler(seed=seed, **options), **TUNED_STOCK
    )


def to_the_goal(
    curves: dict[str, Any], points: Any, goal_of: str, rng: np.random.Generator
) -> dict[str, tuple[float, float, float, float]]:
    """What each policy needs to the final mean score of `goal_of`; and how many times fewer than
    ours, with a 95 % interval.
    """

    def need(name: str, rows: dict[str, Any]) -> float:
        goal = curves[goal_of][rows[goal_of]].mean(axis=0)[-1]
        return needed(curves[name][rows[name]].mean(axis=0), points, goal)

    everyone = {name: np.arange(len(of)) for name, of in curves.items()}
    found = {}
    for name in curves:
        draws = []
        for _ in range(1000):
            rows = {one: rng.integers(len(of), size=len(of)) for one, of in curves.items()}
            draws.append(need("ours", rows) / need(name, rows))
        low, high = np.quantile(draws, [0.025, 0.975])
        found[name] = (
            need(name, everyone),
            need("ours", everyone) / need(name, everyone),
            float(low),
            float(high),
        )
    return found


def warm(other: str, **options: Any) -> Make:
    """Ours, starting from a finished sweep of another task with the same seed."""

    def make(task: Task, seed: int, workers: int) -> Policy:
        first = Ours(load_task(other), seed, workers)
        first.is_remembered = True
        simulate(first.task, first, workers, seed, WARM_EPOCHS, 0.0)
        return Ours(task, seed, workers, priors=first.priors, **options)

    return make


WARM_EPOCHS = 1500  # of the finished sweep
WARM: dict[str, Make] = {
    "ours": ours(),
    "(a) stock": POLICIES["(a) stock"],
    "warm from demo": warm("demo"),
    "warm from meld": warm("meld"),
}
BARE: dict[str, Make] = {
    "ours": ours(known_good=False),
    "(a) stock": POLICIES["(a) stock"],
    "warm from demo": warm("demo", known_good=False),
    "warm from meld": warm("meld", known_good=False),
}


def load_task(name: str) -> Task:
    if name in ("crossing", "interactions"):
        return SyntheticTask(name)
    recording = Recording(DATA / f"{name.removesuffix('-nearest')}.jsonl")
    return NearestTask(recording) if name.endswith("-nearest") else SurrogateTask(recording)


TABLES = {
    "policies": POLICIES,
    "choose": CHOOSE,
    "ablation": ABLATION,
    "tpe": TPE,
    "warm": WARM,
    "bare": BARE,
}
_task: dict[str, Task] = {}


def run_one(job: tuple[str, str, str, int, int, int, float]) -> Trace:
    table, task, policy, repeat, workers, epochs, seconds = job
    if task not in _task:
        _task[task] = load_task(task)
    make = TABLES[table][policy]
    warnings.filterwarnings(
        "ignore", module="ray.tune.search.optuna"
    )  # of each OptunaSearch, that its space may repeat names
    return simulate(
        _task[task], make(_task[task], 1000 + repeat, workers), workers, repeat, epochs, seconds
    )


def needed(curve: Any, points: Any, goal: float) -> float:
    """The first of `points` at which the curve is at `goal`; infinite where it never is."""
    there = np.flatnonzero(curve >= goal)
    return float(points[there[0]]) if len(there) else float("inf")


def ratio(
    ours_scores: Any, other_scores: Any, points: Any, budget: float, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Budget / what ours needs to the other's final score, and its 95 % bootstrap interval over
    repeats.

    Scores (repeats, points). Where ours does not reach it, the inverse: what the other needs to our
    final score / budget.
    """

    def of(left: Any, right: Any) -> float:
        final = int(np.searchsorted(points, budget, side="right")) - 1
        ours_mean, other_mean = left.mean(axis=0), right.mean(axis=0)
        need = needed(ours_mean[: final + 1], points, other_mean[final])
        if np.isfinite(need):
            return float(budget / need)
        return needed(other_mean[: final + 1], points, ours_mean[final]) / budget

    count = len(ours_scores)
    draws = [
        of(
            ours_scores[rng.integers(count, size=count)],
            other_scores[rng.integers(count, size=count)],
        )
        for _ in range(1000)
    ]
    low, high = np.quantile(draws, [0.025, 0.975])
    return of(ours_scores, other_scores), float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--task", choices=TASKS, default="meld")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument(
        "--epochs", type=int, default=1500, help="budget of a sweep, epochs of all trials"
    )
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--choose", action="store_true", help="the grid of first rungs and factors")
    parser.add_argument(
        "--ablation", action="store_true", help="our search with one choice changed"
    )
    parser.add_argument("--tpe", action="store_true", help="settings of Optuna's TPE")
    parser.add_argument(
        "--warm", action="store_true", help="from a finished sweep of another corpus"
    )
    parser.add_argument(
        "--bare",
        action="store_true",
        help="the same without known good points, as in a space of one's own",
    )
    parser.add_argument("--processes", type=int, default=cpus_here())
    parser.add_argument("--policies", nargs="+", help="only these (substrings)")
    parser.add_argument("--json", type=Path, help="write every figure")
    arguments = parser.parse_args()
    table = "choose" if arguments.choose else "ablation" if arguments.ablation else "policies"
    table = (
        "tpe"
        if arguments.tpe
        else "warm"
        if arguments.warm
        else "bare"
        if arguments.bare
        else table
    )
    policies = list(TABLES[table])
    if arguments.policies:
        policies = [name for name in policies if any(part in name for part in arguments.policies)]
    if not arguments.task.startswith(("crossing", "interactions")):
        print(
            describe(Recording(DATA / f"{arguments.task.removesuffix('-nearest')}.jsonl")),
            flush=True,
        )
    traces: dict[str, list[Trace]] = {}
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:

        def run(names: list[str], seconds: float) -> None:
            jobs = [
                (table, arguments.task, name, repeat, arguments.workers, arguments.epochs, seconds)
                for name in names
                for repeat in range(arguments.repeats)
            ]
            for place, trace in enumerate(pool.imap(run_one, jobs)):
                traces.setdefault(names[place // arguments.repeats], []).append(trace)
                if sys.stderr.isatty():
                    print(
                        f"\r{place + 1} of {len(jobs)} sweeps", end="", file=sys.stderr, flush=True
                    )

        # The budget in seconds is what stock needs for its epochs; everyone gets both.
        first = "(a) stock" if "(a) stock" in policies else policies[0]
        run([first], 0.0)
        seconds = float(np.mean([trace.seconds[-1] for trace in traces[first]]))
        run([name for name in policies if name != first], seconds)
        short = [
            name for name in [first] if any(trace.seconds[-1] < seconds for trace in traces[name])
        ]
        for name in short:
            del traces[name]
            run([name], seconds)
    print(
        f"\n{arguments.task}: {arguments.workers} workers, {arguments.repeats} repeats, budget"
        f" {arguments.epochs} epochs, or {seconds:.0f} simulated seconds\n"
    )
    report(traces, policies, arguments.epochs, seconds, arguments.json)


def report(
    traces: dict[str, list[Trace]],
    policies: list[str],
    epochs: int,
    seconds: float,
    out: Path | None,
) -> None:
    """Print scores at parts of the budget and, where ours is among the policies, the ratios."""
    figures: dict[str, Any] = {}
    for cost, budget in (("epochs", float(epochs)), ("seconds", seconds)):
        for score in ("confirmed", "exported"):
            shares = np.array([0.1, 0.25, 0.5, 1.0]) * budget
            points = np.linspace(budget / 400, budget, 400)
            curves = {
                name: np.array([trace.at(score, cost, points) for trace in traces[name]])
                for name in policies
            }
            print(
                f"{score + ' score by ' + cost:<30}"
                + "".join(f"{share:>9.0f}" for share in shares)
                + f"{'+-':>8}{'trials':>8}"
                + ("    times fewer by ours [95 %]" if "ours" in policies else "")
            )
            for name in policies:
                at = np.array([trace.at(score, cost, shares) for trace in traces[name]])
                error = at[:, -1].std(ddof=1) / np.sqrt(len(at))
                trials = np.mean([trace.num_trials for trace in traces[name]])
                line = (
                    f"{name:<30}"
                    + "".join(f"{value:9.4f}" for value in at.mean(axis=0))
                    + f"{error:8.4f}{trials:8.0f}"
                )
                entry: dict[str, Any] = {
                    "scores": at.mean(axis=0).tolist(),
                    "error": float(error),
                    "trials": float(trials),
                }
                if "ours" in policies and name != "ours":
                    found = ratio(
                        curves["ours"], curves[name], points, budget, np.random.default_rng(0)
                    )
                    line += f"    {found[0]:5.2f} [{found[1]:.2f}, {found[2]:.2f}]"
                    entry["times_fewer"] = found
                print(line)
                figures[f"{score} {cost} {name}"] = entry
            if any(name.startswith("warm") for name in policies) and "(a) stock" in policies:
                for name, of in to_the_goal(
                    curves, points, "(a) stock", np.random.default_rng(0)
                ).items():
                    print(
                        f"{name:<30}{of[0]:9.0f} to the final score of (a); {of[1]:.2f}"
                        f" [{of[2]:.2f}, {of[3]:.2f}] times fewer than ours"
                    )
                    figures[f"{score} {cost} {name} to the goal"] = of
            print()
    for name in policies:
        share: dict[str, float] = {}
        for trace in traces[name]:
            for architecture, count in trace.by_architecture.items():
                share[architecture] = share.get(architecture, 0.0) + count / len(traces[name])
        spent = np.mean([trace.suggest_s / trace.num_trials for trace in traces[name]])
        print(
            f"{name:<30} {1000 * spent:5.0f} ms a trial for decisions; trials by architecture: "
            + ", ".join(
                f"{architecture} {count:.0f}" for architecture, count in sorted(share.items())
            )
        )
    if out is not None:
        out.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
