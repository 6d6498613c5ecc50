"""What a score costs: the Pareto front of score against parameters, time or seconds an epoch."""

from collections.abc import Callable, Iterable

from plotly.graph_objects import Figure, Scatter

from search.ledger.history import History
from search.ledger.trial import Trial
from search.results.leaderboard import epoch_seconds
from search.results.page.plots import INK, Plot, floats, points, system_of, systems_of


def ms_per_utterance(trial: Trial) -> float | None:
    """The least of its epochs', which others on the machine disturbed least; None where it was
    trained in a pack, which is faster.
    """
    if any((entry.together or 1) > 1 for entry in trial.epochs):
        return None
    return min(
        (entry.ms_per_utterance for entry in trial.epochs if entry.ms_per_utterance is not None),
        default=None,
    )


# What a trial costs: the first of these that all trials have is set against the score.
_COSTS: dict[str, Callable[[Trial], float | None]] = {
    "milliseconds per utterance": ms_per_utterance,
    "parameters": lambda trial: trial.num_parameters,
    "seconds per epoch": epoch_seconds,
}


def pareto_front(points: Iterable[tuple[float, float, int]]) -> list[tuple[float, float, int]]:
    """Those of (cost, score, trial) that no cheaper or equally cheap one matches in score, cheapest
    first.
    """
    front: list[tuple[float, float, int]] = []
    for point in sorted(points, key=lambda point: (point[0], -point[1], point[2])):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    return front


COLUMNS = ("trial", "architecture", "score", "parameters", "ms per utterance", "seconds per epoch")


def pareto(history: History) -> tuple[Plot, list[tuple[object, ...]]] | None:
    """The plot of score against cost and the rows of its front; None where no trial has a score."""
    metric = history.spec.metric
    trials = {t.number: t for t in history.ranked(metric) if t.state != "failed"}
    if not trials:
        return None
    costs = {
        name: {number: cost(trial) for number, trial in trials.items()}
        for name, cost in _COSTS.items()
    }
    name = next(name for name, known in costs.items() if None not in known.values())
    found = [
        (cost, best[1], number)
        for number, cost in costs[name].items()
        if cost is not None and (best := trials[number].best(metric))
    ]
    front = pareto_front(found)
    figure = Figure()
    for system in systems_of(trials.values()):
        own = [point for point in found if system_of(trials[point[2]]) == system]
        x, y, numbers = zip(*own, strict=True)
        some = [trials[number] for number in numbers]
        figure.add_trace(points(some, x, y, system, f"%{{x:,.4~g}} {name}"))
    # To the dearest trial: nothing that costs more was better.
    line = [*front, (max(cost for cost, _, _ in found), front[-1][1], -1)]
    figure.add_trace(
        Scatter(
            x=floats(cost for cost, _, _ in line),
            y=floats(score for _, score, _ in line),
            mode="lines",
            line={"color": INK, "width": 1.5, "shape": "hv"},
            name="nothing cheaper is as good",
            hoverinfo="skip",
        )
    )
    figure.update_layout(
        xaxis={"type": "log", "dtick": "D2", "title": {"text": name}},
        yaxis_title=f"best {history.spec.score_name}",
    )
    caption = (
        f"Score against {name}; the line joins trials that nothing cheaper matches, failed trials"
        " aside."
    )
    rows = [_row(trials[number], score) for _, score, number in front]
    return Plot("pareto", figure, caption, 400), rows


def _row(trial: Trial, score: float) -> tuple[object, ...]:
    ms = ms_per_utterance(trial)
    return (
        trial.number,
        trial.architecture,
        f"{score:.4f}",
        f"{trial.num_parameters:,}" if trial.num_parameters else "",
        f"{ms:.3f}" if ms is not None else "",
        f"{epoch_seconds(trial):.3f}",
    )
