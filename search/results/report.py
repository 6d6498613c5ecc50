"""`report.html`: one file with pictures, made from the ledger alone."""

import base64
import html
import io
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import optuna
from matplotlib import pyplot as plt

from mmm.files import write_text
from mmm.metrics import value_of
from search.durations import duration
from search.ledger.history import History, Trial
from search.ledger.spec import SweepSpec
from search.results.baseline import baseline_of, verdict
from search.results.figures import draw_confusion
from search.results.leaderboard import counts, epoch_seconds, leaderboard
from search.suggest.searcher import Searcher
from spaces import Space

mpl.use("Agg")

_COLOURS = {
    "vanilla_concat": "#4477aa",
    "three_way_concat": "#66ccee",
    "cross_attention": "#228833",
    "mlp_mixer": "#ee6677",
}
_OTHER = "#888888"
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
  color: #222 }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; font-size: 13px; width: 100% }
th, td { padding: .25rem .5rem; border-bottom: 1px solid #ddd; text-align: left }
th { background: #f4f4f4 }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
tr.complete td { font-weight: 500 } tr.failed td { color: #a00 }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); gap: 1rem }
figure { margin: 0 } figcaption { color: #555; font-size: 13px; max-width: 34rem }
img { max-width: 100% } code { background: #f4f4f4 }
"""


def _picture(
    draw: Callable[[Any], None], caption: str, size: tuple[float, float] = (5.6, 3.6)
) -> str:
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    draw(axes)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    plt.close(figure)
    data = base64.b64encode(content.getvalue()).decode()
    image = f'<img alt="{html.escape(caption)}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _curves(history: History, metric: str) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        for trial in history.trials.values():
            scores = trial.scores(metric)
            if scores:
                colour = _COLOURS.get(trial.architecture, _OTHER)
                faint = 0.9 if trial.state == "complete" else 0.35
                marker = "." if len(scores) == 1 else None
                axes.plot(
                    list(scores),
                    list(scores.values()),
                    color=colour,
                    linewidth=1,
                    alpha=faint,
                    marker=marker,
                )
        for name, colour in _COLOURS.items():
            axes.plot([], [], color=colour, label=name)
        _draw_baseline(axes, history, metric)
        axes.set(xlabel="epoch", ylabel=f"validation {metric}")
        axes.legend(frameon=False, fontsize=8)

    return draw


def _draw_baseline(axes: Any, history: History, metric: str) -> None:
    if (found := baseline_of(history)) is not None:
        axes.axhline(
            value_of(found.metrics, metric),
            color="#222",
            linewidth=1,
            linestyle="--",
            label="linear baseline",
        )


def _best_so_far(history: History, metric: str) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        trials = [trial for trial in history.trials.values() if trial.epochs]
        best, line = -1.0, []
        for trial in trials:
            found = trial.best(metric)
            assert found is not None
            best = max(best, found[1])
            line.append(best)
            axes.plot(
                trial.number,
                found[1],
                ".",
                color=_COLOURS.get(trial.architecture, _OTHER),
            )
        axes.step([trial.number for trial in trials], line, where="post", color="#222", linewidth=1)
        _draw_baseline(axes, history, metric)
        axes.set(xlabel="trial", ylabel=f"best validation {metric}")

    return draw


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


def _pareto(history: History, metric: str) -> tuple[str, str]:
    """The picture of score against cost and the table of its front; both empty where no trial has a
    score.
    """
    trials = [trial for trial in history.ranked(metric) if trial.state != "failed"]
    if not trials:
        return "", ""
    costs = {name: [cost(trial) for trial in trials] for name, cost in _COSTS.items()}
    name = next(name for name, values in costs.items() if None not in values)
    scores = [best[1] for trial in trials if (best := trial.best(metric))]
    points = [
        (cost, score, t.number)
        for cost, score, t in zip(costs[name], scores, trials, strict=True)
        if cost is not None
    ]
    front = pareto_front(points)

    def draw(axes: Any) -> None:
        for architecture, colour in (*_COLOURS.items(), ("other", _OTHER)):
            mine = [
                point for point in points if _architecture(history.trials[point[2]]) == architecture
            ]
            if mine:
                axes.plot(
                    [cost for cost, _, _ in mine],
                    [score for _, score, _ in mine],
                    ".",
                    color=colour,
                    label=architecture,
                )
        # To the dearest trial: nothing that costs more was better.
        line = [*front, (max(cost for cost, _, _ in points), front[-1][1], -1)]
        axes.step(
            [cost for cost, _, _ in line],
            [score for _, score, _ in line],
            where="post",
            color="#222",
            linewidth=1,
        )
        axes.set(xscale="log", xlabel=name, ylabel=f"best validation {metric}")
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.legend(frameon=False, fontsize=8)

    rows = ""
    for _, score, number in front:
        trial, ms = history.trials[number], _ms_per_utterance(history.trials[number])
        cells = (
            number,
            trial.settings["architecture"],
            f"{score:.4f}",
            f"{trial.num_parameters:,}" if trial.num_parameters else "",
            f"{ms:.3f}" if ms is not None else "",
            f"{epoch_seconds(trial):.3f}",
        )
        rows += (
            "<tr>"
            + "".join(
                f'<td class="{"" if i == 1 else "number"}">{cell}</td>'
                for i, cell in enumerate(cells)
            )
            + "</tr>"
        )
    names = (
        "trial",
        "architecture",
        "score",
        "parameters",
        "ms per utterance",
        "seconds per epoch",
    )
    head = "".join(
        f'<th class="{"" if i == 1 else "number"}">{column}</th>' for i, column in enumerate(names)
    )
    caption = (
        f"Score against {name}; the line joins trials that nothing cheaper matches, failed trials"
        " aside."
    )
    return (
        _picture(draw, caption),
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>",
    )


def _architecture(trial: Trial) -> str:
    """As in the legend."""
    name = trial.architecture
    return name if name in _COLOURS else "other"


def _importances(spec: SweepSpec, space: Space, history: History) -> dict[str, float]:
    searcher = Searcher(space, spec.metric, spec.seed, history.trials)
    finished = [
        t
        for t in searcher.study.get_trials(deepcopy=False)
        if t.state == optuna.trial.TrialState.COMPLETE
    ]
    if len(finished) < 4:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            evaluator = optuna.importance.FanovaImportanceEvaluator(seed=spec.seed)
            return dict(
                optuna.importance.get_param_importances(searcher.study, evaluator=evaluator)
            )
        except (ValueError, RuntimeError, ZeroDivisionError):
            # Optuna refuses where all scores are equal or no parameter is common to all trials
            return {}


def write_report(path: Path, history: History, space: Space | None) -> None:
    """Write the report of a sweep, finished or not."""
    spec = history.spec
    rows = leaderboard(history, spec.metric)
    states = ", ".join(f"{number} {state}" for state, number in counts(history).items() if number)
    seconds = (
        max(
            (trial.ended or trial.suggested for trial in history.trials.values()),
            default=history.started,
        )
        - history.started
    )
    efficiency = history.last_close.efficiency if history.last_close else None
    pictures = [
        _picture(
            _curves(history, spec.metric),
            "Every trial's learning curve; faint where it was stopped early.",
        ),
        _picture(
            _best_so_far(history, spec.metric), "Best score of each trial, and the best so far."
        ),
    ]
    pareto_picture, pareto_table = _pareto(history, spec.metric)
    importances = _importances(spec, space, history) if space is not None else {}
    if importances:
        names = [name.replace("$", r"\$") for name in importances][
            ::-1
        ]  # or matplotlib reads mathematics

        def bars(axes: Any) -> None:
            axes.barh(names, list(importances.values())[::-1], color="#4477aa")
            axes.set(xlabel="importance (fANOVA over complete trials)")

        pictures.append(
            _picture(
                bars, "Which parameters, of those that all complete trials have, decided the score."
            )
        )
    best_line = ""
    if rows and rows[0].rank is not None:
        best = history.trials[rows[0].trial]
        found = best.best(spec.metric)
        assert found is not None
        metrics = best.metrics(found[0])

        def confusion(axes: Any) -> None:
            draw_confusion(axes, metrics)

        pictures.append(
            _picture(
                confusion,
                f"Validation confusion of trial {best.number} at epoch {found[0]}.",
                (4.8, 4.2),
            )
        )
        best_line = (
            f"<p>Best: trial {best.number}, {html.escape(best.architecture)},"
            f" validation {spec.metric} <b>{found[1]:.4f}</b> at epoch {found[0]}. It is the best"
            f" of {len(history.trials)} trials chosen on this split, so it promises more than a new"
            " split will keep.</p>"
        )
    sentence = verdict(history)
    baseline_line = (
        f"<p><b>{html.escape(sentence[0].upper() + sentence[1:])}.</b></p>" if sentence else ""
    )
    columns = [
        "rank",
        "trial",
        "state",
        "score",
        "best_epoch",
        "last_score",
        "epochs",
        "architecture",
        "context",
        "settings",
        "training_s",
        *(["data"] if history.data_changes else []),
        "reason",
    ]
    numbers = {
        "rank",
        "trial",
        "score",
        "best_epoch",
        "last_score",
        "epochs",
        "context",
        "training_s",
        "data",
    }
    head = "".join(
        f'<th class="{"number" if column in numbers else ""}">{column.replace("_", " ")}</th>'
        for column in columns
    )
    body = ""
    for row in rows:
        cells = []
        for column in columns:
            value = getattr(row, column)
            if column in ("score", "last_score") and value is not None:
                value = f"{value:.4f}"
            text = "" if value is None else str(value)
            cells.append(
                f'<td class="{"number" if column in numbers else ""}">{html.escape(text)}</td>'
            )
        body += f'<tr class="{row.state}">{"".join(cells)}</tr>'
    pareto = (
        "<h2>Score against cost</h2><div"
        f' class="figures">{pareto_picture}<div>{pareto_table}</div></div>'
        if pareto_table
        else ""
    )
    changed = "".join(
        f"<p><b>The data were changed while this sweep went on:</b> {html.escape(sentence)}.</p>"
        for sentence in history.data_account()
    )
    facts = f"{len(history.trials)} trials ({states}), {duration(seconds)}, {spec.workers} workers"
    if efficiency is not None:
        facts += f", steady efficiency {efficiency:.2f}"
    write_text(
        path,
        f"""<!doctype html><html lang="en"><meta charset="utf-8">
<title>{html.escape(spec.name)}</title><style>{_STYLE}</style>
<h1>Sweep {html.escape(spec.name)}</h1>
<p>{facts}.<br>
Space <code>{html.escape(spec.space)}</code>, {spec.epochs} epochs,
ASHA rungs {spec.rungs or "none"}, seed {spec.seed}.<br>
Manifest <code>{html.escape(spec.manifest)}</code>,
features <code>{html.escape(spec.features)}</code>.<br>
<code>{html.escape(spec.command)}</code></p>
{best_line}
{baseline_line}
{changed}
<div class="figures">{"".join(pictures)}</div>
{pareto}<h2>Leaderboard</h2>
<p>The score is validation {spec.metric} of the best epoch. The test split was not read.</p>
<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></html>
""",
    )
