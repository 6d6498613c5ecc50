"""One HTML file with figures, for reports: templates by Jinja, figures by matplotlib as SVG in the
page, sharp at any size and their text can be found. Nothing is fetched.
"""

import html
import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

NARROW = (5.2, 3.3)  # inches; two beside each other in a wide window
_CELLS = 120  # points of letters above each other in a matrix of this height
MANY = 300  # marks in a figure, above which they are drawn as pixels: SVG would take megabytes
# Names of speakers and parameters are no mathematics, whatever dollar signs they have.
_STYLE: dict[Any, object] = {
    "axes.edgecolor": "#999",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "text.parse_math": False,
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawn figure."""

    svg: str  # markup
    caption: str
    is_wide: bool  # takes a row of the page for itself


def picture(
    draw: Callable[[Axes], None], caption: str, size: tuple[float, float] = NARROW
) -> Picture:
    """What `draw` draws, on `size` inches."""
    # The same figure is the same text, and what one names is not another's.
    style = {**_STYLE, "svg.hashsalt": caption}
    with warnings.catch_warnings(), mpl.rc_context(style):
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # the browser has more letters
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        written = io.StringIO()
        unsaid = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(written, format="svg", dpi=160, transparent=True, metadata=unsaid)
    svg = written.getvalue()
    svg = svg[svg.index("<svg ") :]
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(caption)}" ', 1)
    return Picture(svg, caption, size[0] > 1.5 * NARROW[0])


def draw_matrix(
    axes: Axes,
    names: Sequence[str],
    shares: Sequence[Sequence[float]],
    said: Sequence[Sequence[object]],
) -> None:
    """A square table of `said`, a row and a column a name, shaded by `shares` from 0 to 1; letters
    are the smaller, the more names there are. Names are text, dollar signs and all.
    """
    size = min(float(mpl.rcParams["font.size"]), _CELLS / max(1, len(names)))
    axes.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1, edgecolors="white")
    for row, (row_shares, row_said) in enumerate(zip(shares, said, strict=True)):
        for column, (share, text) in enumerate(zip(row_shares, row_said, strict=True)):
            colour = "white" if share > 0.5 else "#222"
            axes.text(
                column + 0.5,
                row + 0.5,
                str(text),
                ha="center",
                va="center",
                color=colour,
                size=size,
            )
    middles = [place + 0.5 for place in range(len(names))]
    axes.set_xticks(middles, list(names), rotation=45, ha="right", size=size, parse_math=False)
    axes.set_yticks(middles, list(names), size=size, parse_math=False)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def render(template: Path, **values: object) -> str:
    """The page that a template makes of `values`; markup in them is shown as text."""
    folders = jinja2.FileSystemLoader([template.parent, Path(__file__).parent])
    environment = jinja2.Environment(
        loader=folders,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(values)
