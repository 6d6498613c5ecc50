"""How a sweep got on: the best so far by trials and by compute, learning curves and where they were
stopped.
"""

import itertools
import math
from collections import Counter
from collections.abc import Sequence

from plotly.graph_objects import Figure, Scatter

from search.ledger.history import History
from search.ledger.trial import Trial
from search.results.page.plots import (
    INK,
    Plot,
    add_baseline,
    colour,
    compute_unit,
    floats,
    integers,
    points,
    system_of,
    systems_of,
    text,
)

_MANY = 20  # complete trials, from which on their curves cover each other


def best_by_trials(history: History) -> Plot | None:
    """Every trial's best score in the order of their numbers, and the best so far."""
    scored = _scored(history)
    if not scored:
        return None
    numbers = [trial.number for trial, _ in scored]
    figure = _so_far(scored, numbers, "number %{x}")
    add_baseline(figure, history)
    figure.update_layout(xaxis_title="trial", yaxis_title=f"best {history.spec.score_name}")
    return Plot("best-by-trials", figure, "Best score of each trial, and the best so far.", 360)


def best_by_compute(history: History) -> Plot | None:
    """The same against the training done when the trial had ended, all workers together."""
    scored = sorted(_scored(history), key=lambda pair: pair[0].all_epochs[-1].ended)
    spent = list(itertools.accumulate(trial.alone_seconds for trial, _ in scored))
    if not scored or spent[-1] <= 0:
        return None
    unit, name = compute_unit(spent[-1])
    figure = _so_far(scored, [seconds / unit for seconds in spent], f"after %{{x:.3g}} {name}")
    add_baseline(figure, history)
    figure.update_layout(
        xaxis_title=f"{name} of training", yaxis_title=f"best {history.spec.score_name}"
    )
    caption = (
        "The same against compute: training of all trials that had ended by then, an epoch as long"
        " as it would take alone."
    )
    return Plot("best-by-compute", figure, caption, 360)


def _scored(history: History) -> list[tuple[Trial, float]]:
    """Trials with a score, failed ones aside, by number."""
    metric = history.spec.metric
    return [
        (trial, best[1])
        for trial in history.trials.values()
        if trial.state != "failed" and (best := trial.best(metric))
    ]


def _so_far(scored: Sequence[tuple[Trial, float]], x: Sequence[float], what: str) -> Figure:
    figure = Figure()
    for system in systems_of(trial for trial, _ in scored):
        own = [
            (trial, place, score)
            for (trial, score), place in zip(scored, x, strict=True)
            if system_of(trial) == system
        ]
        trials, places, scores = zip(*own, strict=True)
        figure.add_trace(points(trials, places, scores, system, what))
    best = list(itertools.accumulate((score for _, score in scored), max))
    figure.add_trace(
        Scatter(
            x=floats(x),
            y=floats(best),
            mode="lines",
            line={"color": INK, "width": 1.5, "shape": "hv"},
            name="best so far",
            hoverinfo="skip",
        )
    )
    return figure


def learning_curves(history: History) -> Plot | None:
    """Every trial's score by epoch, with a cross where it was stopped and the reason on it."""
    trials = [trial for trial in history.trials.values() if trial.epochs]
    if not trials:
        return None
    figure = Figure()
    whole = 0.9 if sum(trial.state == "complete" for trial in trials) < _MANY else 0.5
    for system in systems_of(trials):
        own = [trial for trial in trials if system_of(trial) == system]
        there = [
            (opacity, some)
            for opacity, some in (
                (0.3, [trial for trial in own if trial.state != "complete"]),
                (whole, [trial for trial in own if trial.state == "complete"]),
            )
            if some
        ]
        for opacity, some in there:
            figure.add_trace(_lines(history, some, system, opacity, is_named=some is there[-1][1]))
    if history.best is not None and history.trials[history.best[1]].epochs:
        figure.add_trace(_winner(history, history.trials[history.best[1]]))
    if stopped := [trial for trial in trials if trial.state in ("pruned", "failed")]:
        figure.add_trace(_ends(history, stopped))
    add_baseline(figure, history)
    for rung in history.spec.rungs:
        figure.add_vline(x=rung, line={"color": INK, "width": 1, "dash": "dot"}, opacity=0.4)
    of_fold = ", first fold" if history.spec.folds else ""
    figure.update_layout(
        xaxis_title="epoch", yaxis_title=f"validation {history.spec.metric}{of_fold}"
    )
    return Plot("learning-curves", figure, _account(history, trials), 480, is_wide=True)


def _lines(
    history: History, trials: Sequence[Trial], system: str, opacity: float, *, is_named: bool
) -> Scatter:
    """Of many trials as one line with gaps: a browser draws that a hundred times as fast."""
    x: list[float] = []
    y: list[float] = []
    numbers: list[int] = []
    for trial in trials:
        scores = trial.scores(history.spec.metric)
        x += [*scores, math.nan]
        y += [*scores.values(), math.nan]
        numbers += [trial.number] * (len(scores) + 1)
    return Scatter(
        x=floats(x),
        y=floats(y),
        customdata=integers(numbers),
        mode="lines+markers",
        marker={"size": 3},
        line={"color": colour(system), "width": 1.2},
        opacity=opacity,
        name=text(system),
        legendgroup=text(system),
        showlegend=is_named,
        hovertemplate="trial %{customdata}, epoch %{x}: %{y:.4f}",
    )


def _winner(history: History, trial: Trial) -> Scatter:
    scores = trial.scores(history.spec.metric)
    return Scatter(
        x=integers(scores),
        y=floats(scores.values()),
        customdata=integers([trial.number] * len(scores)),
        mode="lines",
        line={"color": INK, "width": 2.5},
        name=f"winner, trial {trial.number}",
        hovertemplate="trial %{customdata}, epoch %{x}: %{y:.4f}<extra></extra>",
    )


def _ends(history: History, stopped: Sequence[Trial]) -> Scatter:
    metric = history.spec.metric
    return Scatter(
        x=integers(trial.epoch for trial in stopped),
        y=floats(trial.scores(metric)[trial.epoch] for trial in stopped),
        customdata=integers(trial.number for trial in stopped),
        text=[text(trial.reason[:120]) for trial in stopped],
        mode="markers",
        marker={"symbol": "x-thin", "size": 6, "line": {"color": INK, "width": 1}},
        opacity=0.6,
        name="stopped",
        hovertemplate="trial %{customdata} stopped after epoch %{x}<br>%{text}<extra></extra>",
    )


def _account(history: History, trials: Sequence[Trial]) -> str:
    """What was stopped, when and why, in a sentence."""
    stopped = Counter(trial.epoch for trial in trials if trial.state == "pruned")
    at = ", ".join(f"{number} after epoch {epoch}" for epoch, number in sorted(stopped.items()))
    words = "Every trial's learning curve, faint where it was stopped early"
    if history.spec.rungs:
        rungs = ", ".join(map(str, history.spec.rungs))
        words += (
            f"; dotted lines are the rungs, where one in {history.spec.factor} goes on ({rungs})"
        )
    return f"{words}. Stopped there: {at}." if at else f"{words}."
