"""What the settings have to do with the score: Optuna's own plots of parallel coordinates and
slices.
"""

import math

from plotly.colors import sample_colorscale
from plotly.graph_objects import Figure

from search.ledger.history import History
from search.ledger.trial import Trial
from search.results.optuna_study import study_to_draw
from search.results.page.plots import Plot, text

_MOST_LINES = 200  # each is a path of its own, and more are one grey mass
_MOST_POINTS = 1000  # of a slice, each drawn once a parameter
_FEWEST = 3  # trials that have a parameter, where there are as many: fewer are no picture
_IN_A_ROW = 4
_ROW_HEIGHT = 230  # CSS pixels
_LONGEST = 14  # letters of a choice below a slice
_ACROSS = 28  # letters of all choices together that stand beside each other
# Seen on white and on black, other than Optuna's blues.
_COLOURS = ["rgb(157,180,204)", "rgb(79,143,208)", "rgb(217,72,15)"]
_SCALE = [(0.0, _COLOURS[0]), (0.5, _COLOURS[1]), (1.0, _COLOURS[2])]


def settings_plots(history: History) -> list[Plot]:
    """Parallel coordinates and slices; none where fewer than two trials have a score."""
    ranked = [t for t in history.ranked(history.spec.metric) if t.state != "failed" and t.params]
    if len(ranked) < 2:
        return []
    return [_parallel(history, ranked), _slices(history, ranked)]


def _names(drawn: list[Trial]) -> list[str]:
    """Of parameters that some trials have."""
    names = dict.fromkeys(name for trial in drawn for name in trial.params)
    fewest = min(_FEWEST, len(drawn))
    found = [name for name in names if sum(name in trial.params for trial in drawn) >= fewest]
    return [text(name) for name in found]


def _parallel(history: History, ranked: list[Trial]) -> Plot:
    # The best last: it is drawn above the others.
    drawn, names, metric = ranked[:_MOST_LINES][::-1], _names(ranked), history.spec.metric
    study = study_to_draw(history, drawn, text)
    names = [name for name in names if any(name in one.params for one in study.trials)]
    from optuna.visualization import plot_parallel_coordinate  # which imports pyplot, too

    figure = plot_parallel_coordinate(study, names, target_name=metric)
    for trace in figure.data[:-1]:
        share = trace.y[0]  # of the range of scores
        line = {"width": 1 + share, "color": sample_colorscale(_COLOURS, [share])[0]}
        trace.update(line=line, opacity=0.3 + 0.6 * share)
    figure.data[-1].marker.update(showscale=False)  # the first axis is the scale
    figure.update_xaxes(tickangle=0, side="top")
    which = f"the best {len(drawn)} of {len(ranked)}" if len(drawn) < len(ranked) else "all"
    caption = (
        f"Settings and best score of {which} trials with a score, those that were stopped early"
        " among them; a parameter that a trial does not have is at the bottom, as None."
    )
    return Plot("parallel", figure, caption, 460, is_wide=True, min_width=72 * (len(names) + 1))


def _slices(history: History, ranked: list[Trial]) -> Plot:
    drawn, metric = (
        sorted(ranked[:_MOST_POINTS], key=lambda trial: trial.number),
        history.spec.metric,
    )
    study, names = study_to_draw(history, drawn, text), _names(drawn)
    from optuna.visualization import plot_slice

    figure = _in_rows(plot_slice(study, names, target_name=metric), metric)
    which = f"the best {len(drawn)} of {len(ranked)}" if len(drawn) < len(ranked) else "all"
    rows = math.ceil(len(names) / _IN_A_ROW)
    caption = (
        f"Best score against each setting, {which} trials with a score; the redder, the later."
    )
    height = 40 + _ROW_HEIGHT * rows
    return Plot("slices", figure, caption, height, is_wide=True, min_width=760)


def _in_rows(figure: Figure, metric: str) -> Figure:
    """Optuna sets its slices in one row, 300 pixels each: here they stand in rows of four, each
    below its parameter's name.
    """
    num_rows = math.ceil(len(figure.data) / _IN_A_ROW)
    num_columns = min(len(figure.data), _IN_A_ROW)
    wide, high = 1 / num_columns, 1 / num_rows
    for place, trace in enumerate(figure.data):
        row, column = divmod(place, _IN_A_ROW)
        left, bottom = column * wide, 1 - (row + 1) * high
        suffix = "" if place == 0 else str(place + 1)
        x_axis, y_axis = figure.layout[f"xaxis{suffix}"], figure.layout[f"yaxis{suffix}"]
        figure.add_annotation(
            text=f"<b>{x_axis.title.text}</b>",
            x=left + 0.02 * wide,
            y=bottom + 0.93 * high,
            xref="paper",
            yref="paper",
            xanchor="left",
            yanchor="bottom",
            showarrow=False,
        )
        x_axis.update(domain=(left + 0.02 * wide, left + 0.95 * wide), title={"text": ""})
        if x_axis.categoryarray:
            shown = [_choice(one) for one in x_axis.categoryarray]
            x_axis.update(tickvals=list(x_axis.categoryarray), ticktext=shown)
            x_axis.update(tickangle=30 if len("  ".join(shown)) > _ACROSS else 0)
        elif x_axis.type == "log":
            x_axis.update(dtick=1, exponentformat="power")
        y_axis.update(
            domain=(bottom + 0.3 * high, bottom + 0.92 * high),
            showticklabels=column == 0,
            title={"text": metric if column == 0 else ""},
        )
        look = {"size": 5, "line": {"width": 0}, "colorscale": _SCALE, "showscale": False}
        trace.marker.update(**look)
        trace.update(
            customdata=trace.marker.color,
            hovertemplate="trial %{customdata}: %{y:.4f}, at %{x}<extra></extra>",
        )
    figure.update_layout(width=None, showlegend=False)
    return figure


def _choice(shown: str) -> str:
    """Optuna puts choices that are text into quotes."""
    is_quoted = len(shown) > 1 and shown[0] == shown[-1] and shown[0] in "'\""
    bare = shown[1:-1] if is_quoted else shown
    return bare if len(bare) <= _LONGEST else f"{bare[: _LONGEST - 1]}…"
