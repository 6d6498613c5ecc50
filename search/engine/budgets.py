"""What a sweep may use, over all its sessions, and what a trial may cost. Plain functions of what
the ledger holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from search.ledger.durations import duration
from search.ledger.history import History
from search.ledger.records import Epoch
from search.ledger.spec import SweepSpec
from search.suggest.outlook import Outlook

# These are used up at a rate, so that their end can be predicted.
_STEADY = ("--trials", "--compute-budget", "--gpu-hours")


@dataclass(frozen=True)
class Budget:
    """One limit of a sweep and how much of it is used."""

    option: str  # that gives more of it
    used: float
    given: float
    text: str  # "12m of 2h"
    why: str = ""  # the session ends when it is used up

    @property
    def more(self) -> str:
        """What is added to `resume` to go on all the same."""
        return self.option if self.option.startswith("--no-") else f"{self.option} ..."

    @property
    def share(self) -> float:
        return min(1.0, max(0.0, self.used / self.given))


def budgets(
    spec: SweepSpec, history: History, used_s: float, outlook: Outlook | None = None
) -> list[Budget]:
    """Every budget that the sweep was given, that of trials first. `used_s`: wall time of all
    sessions; `outlook`: where the sweep is to end at the seeds' noise, once that can be told.
    """
    ended, trained_s = history.num_ended, history.trained_s
    found = [Budget("--trials", ended, spec.trials, f"{ended} of {spec.trials} trials")]
    if (given := spec.time_budget_s) is not None:
        text = f"{duration(used_s)} of {duration(given)}"
        found.append(Budget("--time-budget", used_s, given, text, "time budget"))
    if (given := spec.compute_budget_s) is not None:
        text = f"{duration(trained_s)} of {duration(given)} of training"
        found.append(Budget("--compute-budget", trained_s, given, text, "compute budget"))
    if (given := spec.gpu_hours) is not None:
        hours = trained_s * spec.gpus_per_trial / 3600
        text = f"{hours:.2f} of {given:g} GPU hours"
        found.append(Budget("--gpu-hours", hours, given, text, "GPU hours"))
    if (given := spec.target) is not None:
        text = f"score {history.best[0] if history.best else 0.0:.4f} of {given:g}"
        found.append(Budget("--target", _saved_best(history), given, text, "target reached"))
    if (patience := spec.patience) is not None:
        since = history.ended_since_best
        text = f"{since} of {patience} trials since the best"
        why = f"no improvement for {patience} trials"
        found.append(Budget("--patience", since, patience, text, why))
    if outlook is not None:
        gain, noise = outlook.gain, outlook.noise
        text = f"expected further gain {gain:.4f}, seeds' noise {noise:.4f}"
        why = f"expected further gain {gain:.4f} below the seeds' noise {noise:.4f}"
        # Used up where the gain is no longer the larger of the two.
        found.append(Budget("--no-until-noise", noise, max(gain, 1e-12), text, why))
    return found


def _saved_best(history: History) -> float:
    """The best trial's best score of which there are weights: while it runs, up to its
    checkpoint.
    """
    if history.best is None:
        return 0.0
    score, trial = history.best[0], history.trials[history.best[1]]
    if trial.state != "running":
        return score
    saved = trial.checkpoint.epoch if trial.checkpoint else 0
    return max(
        (value for epoch, value in trial.scores(history.spec.metric).items() if epoch <= saved),
        default=0.0,
    )


def used_up(found: Sequence[Budget]) -> Budget | None:
    """The budget that ends the sweep. That of trials does not: those that run go on to their
    ends.
    """
    return next((budget for budget in found if budget.why and budget.used >= budget.given), None)


def seconds_left(before: Sequence[Budget], now: Sequence[Budget], elapsed_s: float) -> float | None:
    """Until the first budget is used up, at the rate of the `elapsed_s` since `before`; None where
    nothing tells yet.
    """
    earlier = {budget.option: budget.used for budget in before}
    left = [budget.given - budget.used for budget in now if budget.option == "--time-budget"]
    for budget in now:
        used = budget.used - earlier[budget.option]
        if budget.option in _STEADY and used > 0:
            left.append((budget.given - budget.used) * elapsed_s / used)
    return max(0.0, min(left)) if left else None


def broken_constraint(
    spec: SweepSpec, num_parameters: int | None, epochs: Sequence[Epoch]
) -> str | None:
    """The reason to fail a trial of this size and these epochs; None where it costs no more than it
    may.
    """
    if (
        spec.max_parameters is not None
        and num_parameters is not None
        and num_parameters > spec.max_parameters
    ):
        return f"constraint: {num_parameters:,} parameters, at most {spec.max_parameters:,}"
    # Of several timings the least is the one that others on the machine disturbed least; a first
    # one alone has the imports in it.
    for costs, unit, limit, of_epochs, enough in (
        (
            [entry.ms_per_utterance for entry in epochs],
            "ms per utterance",
            spec.max_ms_per_utterance,
            min,
            min(2, spec.epochs),
        ),
        ([entry.memory_mb for entry in epochs], "MB of memory", spec.max_memory_mb, max, 1),
    ):
        measured = [cost for cost in costs if cost is not None]
        if limit is not None and len(measured) >= enough and of_epochs(measured) > limit:
            return f"constraint: {round(of_epochs(measured), 2):,} {unit}, at most {limit:,g}"
    return None
