"""`report.html`: one file with pictures (mmm/page.py), made from the ledger alone."""

import itertools
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatter

from mmm.files import write_text
from mmm.metrics import value_of
from mmm.page import MANY, NARROW, Picture, picture, render
from search.ledger.durations import duration
from search.ledger.history import History, Trial
from search.results.baseline import baseline_of, verdict
from search.results.encoders import crosses
from search.results.figures import BLUE, draw_confusion
from search.results.leaderboard import counts, epoch_seconds, leaderboard
from search.results.optuna_study import importances

_OTHER = "other"
_COLOURS = {
    "vanilla_concat": BLUE,
    "three_way_concat": "#66ccee",
    "cross_attention": "#228833",
    "mlp_mixer": "#ee6677",
    "gated_fusion": "#aa3377",
    "late_fusion": "#ccbb44",
    _OTHER: "#888888",
}
_COLUMNS = (
    "rank",
    "trial",
    "state",
    "score",
    "best_epoch",
    "last_score",
    "fold_sd",
    "epochs",
    "architecture",
    "context",
    "settings",
    "training_s",
    "data",
    "reason",
)
_TEXTS = ("state", "architecture", "settings", "reason")


# Of systems of the user's own, each its own as far as they go.
_MORE_COLOURS = ("#882255", "#44aa99", "#332288", "#999933")


def _architecture(trial: Trial) -> str:
    """As in the legends."""
    is_named = trial.architecture in _COLOURS or "system_sha256" in trial.settings
    return trial.architecture if is_named else _OTHER


def _colour(name: str) -> str:
    own = _MORE_COLOURS[zlib.crc32(name.encode()) % len(_MORE_COLOURS)]
    return _COLOURS.get(name, own)


def _legend(axes: Axes, trials: Iterable[Trial]) -> None:
    """Of the architectures that there are, and of what else was named."""
    there = {_architecture(trial) for trial in trials}
    for name in (*_COLOURS, *sorted(there - set(_COLOURS))):
        if name in there:
            axes.plot([], [], color=_colour(name), label=name)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, loc="lower right")  # looking for the best place takes seconds


def _draw_baseline(axes: Axes, history: History, metric: str) -> None:
    if (found := baseline_of(history)) is not None:
        score = value_of(found.metrics, metric)
        axes.axhline(score, color="#222", linewidth=1, linestyle="--", label="linear baseline")


def _curves(history: History, metric: str) -> Picture:
    trials = [trial for trial in history.trials.values() if trial.epochs]
    num_points = sum(len(trial.epochs) for trial in trials)

    def draw(axes: Axes) -> None:
        for trial in trials:
            scores = trial.scores(metric)
            axes.plot(
                list(scores),
                list(scores.values()),
                color=_colour(_architecture(trial)),
                linewidth=1,
                alpha=0.9 if trial.state == "complete" else 0.35,
                marker="." if len(scores) == 1 else None,
                rasterized=num_points > 10 * MANY,
            )
        _draw_baseline(axes, history, metric)
        of_fold = ", first fold" if history.spec.folds else ""
        axes.set(xlabel="epoch", ylabel=f"validation {metric}{of_fold}")
        _legend(axes, trials)

    return picture(draw, "Every trial's learning curve; faint where it was stopped early.")


def _draw_points(axes: Axes, points: Iterable[tuple[float, float, Trial]]) -> None:
    """Dots at (x, score) in the colour of their trial."""
    points = list(points)
    axes.scatter(
        [x for x, _, _ in points],
        [score for _, score, _ in points],
        s=9,
        c=[_colour(_architecture(trial)) for _, _, trial in points],
        rasterized=len(points) > MANY,
    )


def _best_so_far(history: History, metric: str) -> Picture:
    points = [
        (trial.number, best[1], trial)
        for trial in history.trials.values()
        if (best := trial.best(metric))
    ]

    def draw(axes: Axes) -> None:
        _draw_points(axes, points)
        so_far = itertools.accumulate((score for _, score, _ in points), max)
        numbers = [number for number, _, _ in points]
        axes.step(numbers, list(so_far), where="post", color="#222", linewidth=1)
        _draw_baseline(axes, history, metric)
        axes.set(xlabel="trial", ylabel=f"best {history.spec.score_name}")

    return picture(draw, "Best score of each trial, and the best so far.")


def _ms_per_utterance(trial: Trial) -> float | None:
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
    "milliseconds per utterance": _ms_per_utterance,
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


def _pareto(history: History, metric: str) -> tuple[Picture, list[tuple[object, ...]]] | None:
    """The picture of score against cost and the rows of its front; None where no trial has a
    score.
    """
    trials = {t.number: t for t in history.ranked(metric) if t.state != "failed"}
    if not trials:
        return None
    costs = {
        name: {number: cost(trial) for number, trial in trials.items()}
        for name, cost in _COSTS.items()
    }
    name = next(name for name, known in costs.items() if None not in known.values())
    points = [
        (cost, best[1], number)
        for number, cost in costs[name].items()
        if cost is not None and (best := trials[number].best(metric))
    ]
    front = pareto_front(points)

    def draw(axes: Axes) -> None:
        _draw_points(axes, ((cost, score, trials[number]) for cost, score, number in points))
        # To the dearest trial: nothing that costs more was better.
        line = [*front, (max(cost for cost, _, _ in points), front[-1][1], -1)]
        x, y, _ = zip(*line, strict=True)
        axes.step(x, y, where="post", color="#222", linewidth=1)
        axes.set(xscale="log", xlabel=name, ylabel=f"best validation {metric}")
        axes.xaxis.set_major_formatter("{x:,.9g}")
        axes.xaxis.set_minor_formatter(LogFormatter())  # its default writes mathematics
        _legend(axes, trials.values())

    rows: list[tuple[object, ...]] = []
    for _, score, number in front:
        trial, ms = trials[number], _ms_per_utterance(trials[number])
        rows.append(
            (
                number,
                trial.architecture,
                f"{score:.4f}",
                f"{trial.num_parameters:,}" if trial.num_parameters else "",
                f"{ms:.3f}" if ms is not None else "",
                f"{epoch_seconds(trial):.3f}",
            )
        )
    caption = (
        f"Score against {name}; the line joins trials that nothing cheaper matches, failed trials"
        " aside."
    )
    return picture(draw, caption), rows


def _importances(found: dict[str, float]) -> Picture:
    def draw(axes: Axes) -> None:
        axes.barh(list(found), list(found.values()), color=BLUE)
        axes.invert_yaxis()
        axes.set(xlabel="importance (fANOVA over complete trials)")

    return picture(
        draw, "Which parameters, of those that all complete trials have, decided the score."
    )


def _confusion(trial: Trial, epoch: int) -> Picture:
    return picture(
        lambda axes: draw_confusion(axes, trial.metrics(epoch)),
        f"Validation confusion of trial {trial.number} at epoch {epoch}"
        + (", the held-out rows of all folds together." if trial.num_folds > 1 else "."),
        (NARROW[0], 0.8 * NARROW[0]),
    )


def write_report(path: Path, history: History) -> None:
    """Write the report of a sweep, finished or not."""
    spec = history.spec
    trials, rows = history.trials, leaderboard(history, spec.metric)
    pictures = [_curves(history, spec.metric), _best_so_far(history, spec.metric)]
    if found := importances(history):
        pictures.append(_importances(found))
    best, best_epoch = None, None
    if rows and rows[0].rank is not None:
        best = trials[rows[0].trial]
        best_epoch = best.best(spec.metric)
        assert best_epoch is not None
        pictures.append(_confusion(best, best_epoch[0]))
    left_out = {
        *(() if history.data_changes else ("data",)),
        *(() if spec.folds else ("fold_sd",)),
    }
    columns = [name for name in _COLUMNS if name not in left_out]
    last = max((trial.ended or trial.suggested for trial in trials.values()), default=None)
    write_text(
        path,
        render(
            Path(__file__).with_suffix(".html.j2"),
            title=spec.name,
            spec=spec,
            num_trials=len(trials),
            states=", ".join(f"{many} {state}" for state, many in counts(history).items() if many),
            lasted=duration(0 if last is None else last - history.started),
            efficiency=history.last_close.efficiency if history.last_close else None,
            best=best,
            best_epoch=best_epoch,
            verdict=verdict(history),
            changes=[*history.data_account(), *history.space_account()],
            pictures=pictures,
            pareto=_pareto(history, spec.metric),
            crosses=crosses(history, spec.metric),
            columns=[name.replace("_", " ") for name in columns],
            texts=[place for place, name in enumerate(columns) if name in _TEXTS],
            rows=[[_cell(name, getattr(row, name)) for name in columns] for row in rows],
            classes=[row.state for row in rows],
        ),
    )


def _cell(column: str, value: object) -> object:
    is_score = column in ("score", "last_score", "fold_sd") and isinstance(value, float)
    if value is None:
        return ""
    return f"{value:.4f}" if is_score else value
