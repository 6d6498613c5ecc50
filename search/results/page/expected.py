"""What so many trials of each system are expected to find."""

from collections.abc import Sequence

from plotly.graph_objects import Figure, Scatter

from search.ledger.history import History
from search.results.expected_best import SystemExpected
from search.results.page.plots import Plot, add_baseline, colour, compute_unit, floats, text

_BAND = 0.15  # opacity


def expected_plots(history: History, found: Sequence[SystemExpected]) -> list[Plot]:
    """Against trials, and against the training that they take; none of a single system."""
    if len(found) < 2:
        return []
    longest = max(one.seconds * one.num_trials for one in found)
    unit, name = compute_unit(longest)
    score = f"expected best {history.spec.score_name}"
    by_trials = _drawn(history, found, [1.0] * len(found))
    by_trials.update_layout(xaxis_title="trials of a system", yaxis_title=score)
    by_compute = _drawn(history, found, [one.seconds / unit for one in found])
    by_compute.update_layout(xaxis_title=f"{name} of training", yaxis_title=score)
    caption = (
        "The best score that so many trials of a system find in the mean, without bias"
        " (arXiv:2004.13705), with 95 % bands over trials. Those that were stopped count with the"
        " final score that the sweep's model expects of them ("
        + ", ".join(f"{text(one.system)} {one.num_stopped} of {one.num_trials}" for one in found)
        + "). Of trials as this search drew them."
    )
    whole = "The same against the training of so many trials, each to its last epoch."
    return [
        Plot("expected-by-trials", by_trials, caption, 380),
        Plot("expected-by-compute", by_compute, whole, 380),
    ]


def _drawn(history: History, found: Sequence[SystemExpected], steps: Sequence[float]) -> Figure:
    figure = Figure()
    for one, step in zip(found, steps, strict=True):
        x = floats(one.numbers * step)
        shade = colour(one.system)
        edge = {"width": 0, "color": shade}
        same = {"legendgroup": one.system, "hoverinfo": "skip", "showlegend": False}
        figure.add_trace(Scatter(x=x, y=floats(one.high), mode="lines", line=edge, **same))
        figure.add_trace(
            Scatter(
                x=x,
                y=floats(one.low),
                mode="lines",
                line=edge,
                fill="tonexty",
                fillcolor=_faint(shade),
                **same,
            )
        )
        figure.add_trace(
            Scatter(
                x=x,
                y=floats(one.scores),
                mode="lines",
                line={"color": shade, "width": 2},
                name=text(one.system),
                legendgroup=one.system,
                hovertemplate="%{y:.4f} after %{x:.3g}<extra>%{fullData.name}</extra>",
            )
        )
    add_baseline(figure, history)
    figure.update_layout(xaxis_type="log")
    return figure


def _faint(shade: str) -> str:
    red, green, blue = (int(shade[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},{_BAND})"
