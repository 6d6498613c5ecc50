"""A corpus report as one HTML file with pictures (mmm/page.py)."""

import colorsys
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.patches import Ellipse, Patch
from matplotlib.ticker import MaxNLocator

from mmm.corpora.report import Group, Report, percentile, tables
from mmm.manifest import SPLITS
from mmm.page import MANY, NARROW, Picture, draw_matrix, picture, render

_KNOWN = {
    "neutral": "#bbbbbb",
    "happy": "#ccbb44",
    "surprise": "#aa3377",
    "angry": "#ee6677",
    "sad": "#4477aa",
    "disgust": "#228833",
    "fear": "#66ccee",
}
_GOLDEN = 0.618  # of the circle of hues between two labels: each far from those before it
_SPLIT_COLOURS = {"train": "#444444", "dev": "#e08214", "test": "#8073ac"}
_WIDE = (11.4, 3.3)
_MOST_BARS = 50  # of a histogram
_MOST_NAMES = 48  # below bars
_MOST_NARROW = 12  # bars in a narrow figure
_BAR = 0.94  # of the room for one


def colours(labels: Sequence[str]) -> dict[str, str]:
    """A colour for each label, the same for the seven of most corpora in every report."""
    found: dict[str, str] = {}
    for name in labels:
        number = len(found.keys() - _KNOWN.keys())
        lightness = (0.45, 0.65, 0.3)[number % 3]
        red, green, blue = colorsys.hls_to_rgb(0.08 + _GOLDEN * number % 1.0, lightness, 0.55)
        other = "#" + "".join(f"{round(255 * part):02x}" for part in (red, green, blue))
        found[name] = _KNOWN.get(name, other)
    return found


def _classes(found: Report) -> Picture:
    classes, height = found.labels, 0.85 / len(found.splits)

    def draw(axes: Axes) -> None:
        for number, group in enumerate(found.splits):
            shares = [group.share(name) for name in classes]
            places = np.arange(len(classes)) + (number - (len(found.splits) - 1) / 2) * height
            colour = _SPLIT_COLOURS[group.name]
            bars = axes.barh(places, shares, 0.85 * height, color=colour, label=group.name)
            said = [
                f"{share:.1%}  {group.classes[name]}"
                for name, share in zip(classes, shares, strict=True)
            ]
            axes.bar_label(bars, said, padding=3, fontsize=7, color="#555")
        axes.set_yticks(range(len(classes)), list(classes))
        axes.invert_yaxis()
        axes.margins(x=0.18)
        axes.xaxis.set_major_formatter("{x:.0%}")
        axes.legend()

    return picture(
        draw,
        "Classes: share of each split and number of utterances. An utterance with several emotions"
        " counts for each.",
        (NARROW[0], 0.6 + 0.14 * len(classes) * (len(found.splits) + 1)),
    )


def bar_edges(
    values: Sequence[float], step: float = 0.0, is_whole: bool = False
) -> npt.NDArray[np.float64]:
    """Edges of a histogram's bars, `step` wide; 0: a round number that gives many of them. Just
    below its multiples, so that a value that is one counts in the bar that begins with it.
    """
    if not step:
        rounded = MaxNLocator(_MOST_BARS, steps=[1, 2, 5, 10], integer=is_whole)
        first, second = rounded.tick_values(min(values), max(values))[:2]
        step = float(second - first)
    low, high = (math.floor(value / step + 1e-9) for value in (min(values), max(values)))
    return (np.arange(low, high + 2, dtype=np.float64) - 1e-9) * step


def _histogram(
    values: Sequence[float], unit: str, caption: str, marks: dict[str, float], step: float = 0.0
) -> Picture:
    edges = bar_edges(values, step, is_whole=unit == "turns")

    def draw(axes: Axes) -> None:
        axes.hist(values, edges.tolist(), color="#4477aa", edgecolor="white", linewidth=0.4)
        for name, value in marks.items():
            axes.axvline(value, color="#ee6677", linestyle="--", label=f"{name} {value:.4g}")
        axes.set(xlabel=unit, ylabel="utterances" if unit != "turns" else "dialogues")
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.legend(labelcolor="#b33")

    return picture(draw, caption)


def _stacked(groups: Sequence[Group], colour_of: Mapping[str, str], what: str) -> Picture:
    """A bar a group, its classes above each other, its split below."""
    strip = 0.04 * max(sum(group.classes.values()) for group in groups)
    boxes: list[tuple[float, float, float, float, str]] = []  # left, bottom, width, height, colour
    for place, group in enumerate(groups):
        bottom, part = 0, _BAR / len(group.splits)
        for name, colour in colour_of.items():
            boxes.append((place, bottom, _BAR, group.classes[name], colour))
            bottom += group.classes[name]
        for number, split in enumerate(group.splits):
            boxes.append((place + number * part, -1.3 * strip, part, strip, _SPLIT_COLOURS[split]))
    named = list(colour_of.items())
    for split in SPLITS:
        if any(split in group.splits for group in groups):
            named.append((split, _SPLIT_COLOURS[split]))
    is_wide = len(groups) > _MOST_NARROW

    def draw(axes: Axes) -> None:
        left, bottom, width, height = np.array([box[:4] for box in boxes]).T
        corners = [(left, bottom), (left + width, bottom)]
        corners += [(left + width, bottom + height), (left, bottom + height)]
        drawn = PolyCollection(
            list(np.array(corners).transpose(2, 0, 1)),
            facecolors=[box[4] for box in boxes],
            rasterized=len(boxes) > MANY,
        )
        axes.add_collection(drawn)
        axes.autoscale_view()
        every = math.ceil(len(groups) / _MOST_NAMES)
        names = [one.name if len(one.name) <= 12 else f"...{one.name[-10:]}" for one in groups]
        places = np.arange(len(groups)) + _BAR / 2
        axes.set_xticks(places[::every], names[::every], rotation=60, ha="right", fontsize=7)
        axes.set_ylabel("utterances")
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.margins(x=0.01)
        axes.figure.legend(
            handles=[Patch(color=colour, label=name) for name, colour in named],
            loc="outside upper left",
            ncols=10 if is_wide else 5,
        )

    caption = f"{what}: utterances by class; the strip below tells the split."
    return picture(draw, caption, _WIDE if is_wide else NARROW)


def _transitions(found: Report) -> Picture:
    classes, shares, said = tuple(found.transitions), [], []
    for before in classes:
        total = sum(found.transitions[before].values())
        row = [found.transitions[before][after] / max(1, total) for after in classes]
        shares.append(row)
        said.append([f"{share:.0%}" if total else "" for share in row])

    def draw(axes: Axes) -> None:
        draw_matrix(axes, classes, shares, said)
        axes.set(xlabel="next turn", ylabel="turn")

    return picture(
        draw,
        "How emotions follow each other from turn to turn of a dialogue (rows sum to 100 %; train"
        " and dev, turns with one emotion).",
    )


def _affect(found: Report) -> Picture | None:
    """Mean valence and arousal of each class."""
    rated: dict[str, list[tuple[float, float]]] = {name: [] for name in found.labels}
    for one in found.manifest.utterances:
        if (
            one.split != "test"
            and one.valence is not None
            and one.arousal is not None
            and len(one.emotions) == 1
        ):
            rated[one.emotions[0]].append((one.valence, one.arousal))
    points = {name: np.array(pairs) for name, pairs in rated.items() if pairs}
    if not points:
        return None
    order = sorted(points, key=lambda name: float(points[name].mean(axis=0)[1]))
    colour_of = colours(found.labels)

    def draw(axes: Axes) -> None:
        for place, name in enumerate(order):
            colour = colour_of[name]
            valence, arousal = points[name].mean(axis=0)
            spread = 2 * points[name].std(axis=0)
            axes.add_patch(
                Ellipse((valence, arousal), *spread, facecolor=f"{colour}40", edgecolor=colour)
            )
            axes.plot(valence, arousal, "o", color=colour)
            axes.annotate(
                f"{name} ({len(points[name])})",
                (valence, arousal),
                (1.05, (place + 0.5) / len(order)),
                textcoords="axes fraction",
                va="center",
                arrowprops={"arrowstyle": "-", "color": colour},
            )
        values = np.concatenate(list(points.values()))
        low, high = math.floor(values.min()), max(math.ceil(values.max()), values.min() + 1)
        axes.set(xlim=(low, high), ylim=(low, high), xlabel="valence", ylabel="arousal")
        axes.set_aspect("equal")
        axes.grid(color="#eee")
        axes.set_axisbelow(True)

    return picture(
        draw,
        "Raters' valence and arousal: mean and one standard deviation of each class (train and dev,"
        " one emotion).",
    )


def page(found: Report) -> str:
    """The report as one self-contained HTML page."""
    total, seconds, colour_of = found.total, found.seconds, colours(found.labels)
    numbers = {
        "utterances": f"{total.num_utterances:,}",
        "dialogues": f"{total.num_dialogues:,}",
        "sessions": str(total.num_sessions),
        "speakers": str(total.num_speakers),
        "hours of speech": f"{total.hours:.2f}",
        "tied votes": f"{total.num_tied:,}",
        "majority, dev macro F1": f"{found.majority['dev']['macro_f1']:.4f}",
    }
    pictures = [
        _classes(found),
        _histogram(
            seconds,
            "seconds",
            f"Durations: {min(seconds):.2f} to {max(seconds):.2f} s.",
            {"median": percentile(seconds, 50), "95 %": percentile(seconds, 95)},
        ),
        _transitions(found),
        _affect(found),
    ]
    if found.turns[-1] > 1:
        marks = {"median": percentile(found.turns, 50)}
        pictures.append(_histogram(found.turns, "turns", "Turns of each dialogue.", marks))
    if found.agreement:
        caption = (
            "Agreement: the share of an utterance's votes that its most voted class has (train and"
            " dev)."
        )
        marks = {"median": percentile(found.agreement, 50)}
        pictures.append(_histogram(found.agreement, "share of votes", caption, marks, 0.05))
    pictures.append(_stacked(found.sessions, colour_of, "Sessions"))
    pictures.append(_stacked(found.speakers, colour_of, "Speakers"))
    return render(
        Path(__file__).with_suffix(".html.j2"),
        title=f"corpus report: {found.manifest.path.name}",
        manifest=found.manifest,
        numbers=numbers,
        leaks=found.leaks,
        notes=found.notes,
        pictures=[one for one in pictures if one is not None],
        tables=tables(found),
    )
