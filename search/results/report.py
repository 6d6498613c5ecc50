"""`report.html`: one interactive file, made from the ledger and, where they are at hand, from the
confirmation beside it and the winner's weights and features.
"""

from functools import cache
from pathlib import Path

from plotly.graph_objects import Figure, Heatmap
from plotly.offline import get_plotlyjs

from mmm.files import write_text
from mmm.metrics import value_of
from mmm.page import render
from search.ledger.durations import duration
from search.ledger.history import History
from search.results.baseline import baseline_of
from search.results.encoders import crosses
from search.results.expected_best import by_system
from search.results.importance import Expected, ablation_of, importances
from search.results.leaderboard import counts, leaderboard
from search.results.page import cost, tables
from search.results.page.board import board, details
from search.results.page.expected import expected_plots
from search.results.page.forest import Confirmed, forest, read_confirmed
from search.results.page.importance import ablation_plot, importance_plot
from search.results.page.paths import without_folders
from search.results.page.plots import Plot, as_json, text
from search.results.page.progress import best_by_compute, best_by_trials, learning_curves
from search.results.page.settings import settings_plots
from search.results.page.timeline import timeline
from search.results.page.winner import (
    CLASS_COLUMNS,
    ERROR_COLUMNS,
    ERROR_TEXTS,
    SLICE_COLUMNS,
    reliability_plot,
    winner_tables,
)
from search.results.page.words import changes, verdict_words
from search.results.winner import Winner, read_winner

_PAGE = Path(__file__).parent / "page"


def write_report(
    path: Path,
    history: History,
    confirmed: Confirmed | None = None,
    winner: Winner | str | None = None,
) -> None:
    """Write the report of a sweep, finished or not; `winner` as `read_winner` has it."""
    spec, trials = history.spec, history.trials
    sentences = list(verdict_words(history, confirmed))
    last = max((trial.ended or trial.suggested for trial in trials.values()), default=None)
    pareto, expected = cost.pareto(history), Expected(history)
    sections: dict[str, list[Plot | None]] = {
        "progress": [best_by_trials(history), best_by_compute(history)],
        "curves": [learning_curves(history)],
        "settings": [*settings_plots(history)],
        "importances": [
            importance_plot(importances(expected)),
            ablation_plot(ablation_of(expected)),
            _confusion(history),
        ],
        "winner": [reliability_plot(winner)] if isinstance(winner, Winner) else [],
        "systems": [*(expected_plots(history, by_system(expected)) if expected.is_known else ())],
        "confirmation": [forest(confirmed)] if confirmed else [],
        "cost": [pareto[0]] if pareto else [],
        "timeline": [timeline(history)],
    }
    there = {name: [one for one in some if one] for name, some in sections.items()}
    write_text(
        path,
        render(
            _PAGE / "report.html.j2",
            title=spec.name,
            spec=spec,
            num_trials=len(trials),
            states=", ".join(f"{many} {state}" for state, many in counts(history).items() if many),
            lasted=duration(0 if last is None else max(0.0, last - history.started)),
            trained=duration(history.trained_s),
            efficiency=history.last_close.efficiency if history.last_close else None,
            best=history.best,
            baseline=_baseline_score(history),
            sentences=sentences,
            confirmed=confirmed,
            changes=changes(history),
            sections=there,
            winner=winner_tables(winner) if isinstance(winner, Winner) else None,
            no_winner=without_folders(winner) if isinstance(winner, str) else None,
            class_columns=CLASS_COLUMNS,
            slice_columns=SLICE_COLUMNS,
            error_columns=ERROR_COLUMNS,
            error_texts=ERROR_TEXTS,
            pareto_columns=cost.COLUMNS,
            pareto_rows=pareto[1] if pareto else [],
            system_columns=tables.SYSTEM_COLUMNS,
            systems=tables.system_rows(history),
            crosses=crosses(history, spec.metric),
            causes=[
                (cause.reason, len(cause.trials), tables.some(cause.trials))
                for cause in tables.failures(history)
            ],
            commands=tables.commands(history),
            facts=list(tables.data_facts(history)),
            versions=tables.versions(),
            board=board(history, leaderboard(history, spec.metric)),
            details=details(history),
            plots=as_json([plot for some in there.values() for plot in some]),
            plotly=_plotly(),
            style=(_PAGE / "report.css").read_text(encoding="utf-8"),
            script=(_PAGE / "report.js").read_text(encoding="utf-8"),
        ),
    )


@cache
def _plotly() -> str:
    """Plotly's own script, which the page has in it: nothing is fetched."""
    return str(get_plotlyjs())


def _baseline_score(history: History) -> float | None:
    found = baseline_of(history)
    return None if found is None else value_of(found.metrics, history.spec.metric)


def _confusion(history: History) -> Plot | None:
    """Of the winner, on validation."""
    if history.best is None:
        return None
    trial = history.trials[history.best[1]]
    best = trial.best(history.spec.metric)
    if best is None or "confusion_matrix" not in (metrics := trial.metrics(best[0])):
        return None
    matrix, names = metrics["confusion_matrix"], list(map(text, metrics["per_class"]))
    figure = Figure(
        Heatmap(
            z=[[value / max(1, sum(row)) for value in row] for row in matrix],
            x=names,
            y=names,
            text=matrix,
            texttemplate="%{text}" if len(names) <= 12 else None,
            colorscale="Blues",
            zmin=0,
            zmax=1,
            showscale=False,
            hovertemplate="true %{y}, predicted %{x}: %{text}<extra></extra>",
        )
    )
    figure.update_layout(
        xaxis={"title": {"text": "predicted"}, "type": "category"},
        yaxis={"title": {"text": "true"}, "type": "category", "autorange": "reversed"},
    )
    caption = (
        f"Validation confusion of trial {trial.number} at epoch {best[0]}, shaded by the share of"
        " the true class"
        + (", the held-out rows of all folds together." if trial.num_folds > 1 else ".")
    )
    return Plot("confusion", figure, caption, 420)


__all__ = ["read_confirmed", "read_winner", "write_report"]
