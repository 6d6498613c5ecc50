"""`report.html`: one file with pictures, made from the ledger alone."""

import base64
import html
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import optuna
from matplotlib import pyplot as plt

from mmm.files import write_text
from search.config import SweepSpec
from search.leaderboard import leaderboard
from search.ledger import History
from search.searcher import Searcher
from search.view import counts, duration
from spaces import Space

_COLOURS = {"vanilla_concat": "#4477aa", "three_way_concat": "#66ccee", "cross_attention": "#228833", "mlp_mixer": "#ee6677"}
_OTHER = "#888888"
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; font-size: 13px; width: 100% }
th, td { padding: .25rem .5rem; border-bottom: 1px solid #ddd; text-align: left }
th { background: #f4f4f4 } td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
tr.complete td { font-weight: 500 } tr.failed td { color: #a00 }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); gap: 1rem }
figure { margin: 0 } figcaption { color: #555; font-size: 13px; max-width: 34rem } img { max-width: 100% } code { background: #f4f4f4 }
"""


def _picture(draw: Callable[[Any], None], caption: str, size: tuple[float, float] = (5.6, 3.6)) -> str:
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
                colour = _COLOURS.get(trial.settings.get("architecture", ""), _OTHER)
                faint = 0.9 if trial.state == "complete" else 0.35
                marker = "." if len(scores) == 1 else None
                axes.plot(list(scores), list(scores.values()), color=colour, linewidth=1, alpha=faint, marker=marker)
        for name, colour in _COLOURS.items():
            axes.plot([], [], color=colour, label=name)
        axes.set(xlabel="epoch", ylabel=f"validation {metric}")
        axes.legend(frameon=False, fontsize=8)

    return draw


def _best_so_far(history: History, metric: str) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        trials = [trial for trial in history.trials.values() if trial.epochs]
        best, line = -1.0, []
        for trial in trials:
            found = trial.best(metric)
            assert found is not None
            best = max(best, found[1])
            line.append(best)
            axes.plot(trial.number, found[1], ".", color=_COLOURS.get(trial.settings.get("architecture", ""), _OTHER))
        axes.step([trial.number for trial in trials], line, where="post", color="#222", linewidth=1)
        axes.set(xlabel="trial", ylabel=f"best validation {metric}")

    return draw


def _importances(spec: SweepSpec, space: Space, history: History) -> dict[str, float]:
    searcher = Searcher(space, spec.metric, spec.seed, history.trials)
    finished = [t for t in searcher.study.get_trials(deepcopy=False) if t.state == optuna.trial.TrialState.COMPLETE]
    if len(finished) < 4:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            evaluator = optuna.importance.FanovaImportanceEvaluator(seed=spec.seed)
            return dict(optuna.importance.get_param_importances(searcher.study, evaluator=evaluator))
        except (ValueError, RuntimeError, ZeroDivisionError):
            return {}  # Optuna refuses where all scores are equal or no parameter is common to all trials


def write_report(path: Path, history: History, space: Space | None) -> None:
    """Write the report of a sweep, finished or not."""
    spec = history.spec
    assert spec is not None
    rows = leaderboard(history, spec.metric)
    states = ", ".join(f"{number} {state}" for state, number in counts(history).items() if number)
    seconds = (
        max((trial.ended or trial.suggested for trial in history.trials.values()), default=history.started) - history.started
    )
    efficiency = (history.last_close or {}).get("efficiency")
    pictures = [
        _picture(_curves(history, spec.metric), "Every trial's learning curve; faint where it was stopped early."),
        _picture(_best_so_far(history, spec.metric), "Best score of each trial, and the best so far."),
    ]
    importances = _importances(spec, space, history) if space is not None else {}
    if importances:
        names = list(importances)[::-1]

        def bars(axes: Any) -> None:
            axes.barh(names, [importances[name] for name in names], color="#4477aa")
            axes.set(xlabel="importance (fANOVA over complete trials)")

        pictures.append(_picture(bars, "Which parameters, of those that all complete trials have, decided the score."))
    best_line = ""
    if rows and "rank" in rows[0]:
        best = history.trials[rows[0]["trial"]]
        found = best.best(spec.metric)
        assert found is not None
        matrix = next(entry["metrics"] for entry in best.epochs if entry["epoch"] == found[0])
        classes = list(matrix["per_class"])

        def confusion(axes: Any) -> None:
            counts_ = matrix["confusion_matrix"]
            shares = [[value / max(1, sum(row)) for value in row] for row in counts_]
            axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
            for i, row in enumerate(counts_):
                for j, value in enumerate(row):
                    axes.text(
                        j, i, value, ha="center", va="center", fontsize=8, color="white" if shares[i][j] > 0.5 else "#222"
                    )
            axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
            axes.set_yticks(range(len(classes)), classes)
            axes.set(xlabel="predicted", ylabel="true")

        pictures.append(_picture(confusion, f"Validation confusion of trial {best.number} at epoch {found[0]}.", (4.8, 4.2)))
        best_line = (f"<p>Best: trial {best.number}, {html.escape(best.settings['architecture'])}, validation {spec.metric} "
                     f"<b>{found[1]:.4f}</b> at epoch {found[0]}. It is the best of {len(history.trials)} trials chosen on this split, "
                     "so it promises more than a new split will keep.</p>")  # fmt: skip
    columns = [
        "rank", "trial", "state", "score", "best_epoch", "last_score", "epochs", "architecture", "context", "settings", "training_s",
        "reason",
    ]  # fmt: skip
    numbers = {"rank", "trial", "score", "best_epoch", "last_score", "epochs", "context", "training_s"}
    head = "".join(f'<th class="{"number" if column in numbers else ""}">{column.replace("_", " ")}</th>' for column in columns)
    body = ""
    for row in rows:
        cells = []
        for column in columns:
            value = row.get(column, "")
            text = f"{value:.4f}" if column in ("score", "last_score") and value != "" else str(value)
            cells.append(f'<td class="{"number" if column in numbers else ""}">{html.escape(text)}</td>')
        body += f'<tr class="{row["state"]}">{"".join(cells)}</tr>'
    facts = f"{len(history.trials)} trials ({states}), {duration(seconds)}, {spec.workers} workers"
    if efficiency is not None:
        facts += f", steady efficiency {efficiency:.2f}"
    write_text(path, f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(spec.name)}</title><style>{_STYLE}</style>
<h1>Sweep {html.escape(spec.name)}</h1>
<p>{facts}.<br>
Space <code>{html.escape(spec.space)}</code>, {spec.epochs} epochs, ASHA rungs {spec.rungs or "none"}, seed {spec.seed}.<br>
Manifest <code>{html.escape(spec.manifest)}</code>, features <code>{html.escape(spec.features)}</code>.<br>
<code>{html.escape(spec.command)}</code></p>
{best_line}
<div class="figures">{"".join(pictures)}</div>
<h2>Leaderboard</h2><p>The score is validation {spec.metric} of the best epoch. The test split was not read.</p>
<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></html>
""")  # fmt: skip
