"""What every plot of the report shares: colours that are told apart on white and on black, texts
that plotly takes as text, and JSON for the page, where search/results/page/report.js draws it.
"""

import html
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from plotly.graph_objects import Figure, Scatter

from mmm.metrics import value_of
from search.ledger.history import History
from search.ledger.trial import Trial
from search.results.baseline import baseline_of

INK = "#010203"  # the page's script puts the colour of letters in its place, light or dark
GREY = "#8a8f98"
BLUE = "#4f8fd0"
RED = "#d9534f"
_OTHER = "other"
_COLOURS = {
    "vanilla_concat": BLUE,
    "three_way_concat": "#3fb6d9",
    "cross_attention": "#2f9e5b",
    "mlp_mixer": "#e8697a",
    "gated_fusion": "#b065b5",
    "late_fusion": "#c4a52c",
    _OTHER: GREY,
}
# Of systems of the user's own, each its own as far as they go.
_MORE_COLOURS = ("#b0588a", "#3aa394", "#6d6fd0", "#97983a")


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure of the page."""

    name: str  # of its place in the page
    figure: Figure
    caption: str
    height: int  # CSS pixels
    is_wide: bool = False  # takes a row of the page for itself
    min_width: int = 0  # CSS pixels, below which it is scrolled in its place


def text(given: object) -> str:
    """As plotly shows it: it would obey `<b>` and `<a>` in a name."""
    return html.escape(str(given), quote=False)


def system_of(trial: Trial) -> str:
    """As in the legends."""
    is_named = trial.architecture in _COLOURS or "system_sha256" in trial.settings
    return trial.architecture if is_named else _OTHER


def systems_of(trials: Iterable[Trial]) -> list[str]:
    """Those that there are, ours first."""
    there = {system_of(trial) for trial in trials}
    return [name for name in (*_COLOURS, *sorted(there - set(_COLOURS))) if name in there]


def colour(system: str) -> str:
    own = _MORE_COLOURS[zlib.crc32(system.encode()) % len(_MORE_COLOURS)]
    return _COLOURS.get(system, own)


def floats(values: Iterable[float]) -> NDArray[np.float32]:
    """Seven digits are enough for a pixel, and take half the room."""
    return np.fromiter(values, dtype=np.float32)


def integers(values: Iterable[int]) -> NDArray[np.int32]:
    return np.fromiter(values, dtype=np.int32)


def compute_unit(seconds: float) -> tuple[float, str]:
    """Seconds of a unit in which so many are a number to read, and its name."""
    for size, name in ((3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * size:
            return size, name
    return 1.0, "seconds"


def add_baseline(figure: Figure, history: History) -> None:
    """A dashed line at the score of the linear baseline, where there is one."""
    if (found := baseline_of(history)) is None:
        return
    score = value_of(found.metrics, history.spec.metric)
    figure.add_hline(y=score, line={"color": INK, "width": 1, "dash": "dash"})
    dash = {"color": INK, "width": 1, "dash": "dash"}
    figure.add_trace(
        Scatter(x=[None], y=[None], mode="lines", line=dash, name=f"linear baseline {score:.4f}")
    )


def points(
    trials: Sequence[Trial], x: Iterable[float], y: Iterable[float], system: str, what: str
) -> Scatter:
    """Dots of trials of one system, which the page opens where they are clicked; `what` says what x
    is.
    """
    return Scatter(
        x=floats(x),
        y=floats(y),
        customdata=integers(trial.number for trial in trials),
        mode="markers",
        marker={"color": colour(system), "size": 6, "opacity": 0.8},
        name=text(system),
        hovertemplate=f"trial %{{customdata}}<br>{what}<br>score %{{y:.4f}}",
    )


def as_json(plots: Sequence[Plot]) -> str:
    """Figures by name, for a script block: nothing in it ends the block or begins a comment."""
    parts = []
    for plot in plots:
        plot.figure.update_layout(template=None, title=None, margin=None, paper_bgcolor=None)
        parts.append(f'"{plot.name}":{plot.figure.to_json(validate=False)}')
    return in_script(f"{{{','.join(parts)}}}")


def in_script(json: str) -> str:
    """JSON that may stand in a script block."""
    return json.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
