"""What the report shows of the winner's answers: tables, and a reliability diagram."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from plotly.graph_objects import Bar, Figure, Scatter

from mmm.calibration import NUM_BINS
from mmm.metrics import LEVEL
from search.results.page.paths import without_folders
from search.results.page.plots import BLUE, INK, Plot, floats
from search.results.winner import MIN_DIALOGUES, ConfidentError, OfClass, Winner

CLASS_COLUMNS = ("class", "utterances", "precision", "recall", "F1", f"{LEVEL:.0%} interval of F1")
SLICE_COLUMNS = (
    *("by", "rows", "utterances", "dialogues", "accuracy"),
    *(f"{LEVEL:.0%} interval of accuracy", "UAR"),
)
ERROR_COLUMNS = (
    "confidence",
    "answered",
    "true",
    "probability of the true",
    "speaker",
    "text",
    "clip",
)
ERROR_TEXTS = (1, 2, 4, 5, 6)
_LONGEST_TEXT = 300  # characters


@dataclass(frozen=True)
class WinnerTables:
    """Cells of the page."""

    sentences: tuple[str, ...]
    classes: list[tuple[object, ...]]
    slices: list[tuple[object, ...]]
    errors: list[tuple[object, ...]]


def winner_tables(found: Winner) -> WinnerTables:
    return WinnerTables(
        tuple(_sentences(found)),
        class_rows(found.classes),
        [
            (
                one.kind,
                one.name,
                one.num_utterances,
                one.num_dialogues,
                f"{one.accuracy:.3f}",
                _span(one.interval),
                f"{one.recall:.3f}",
            )
            for one in found.slices
        ],
        [error_row(one) for one in found.errors],
    )


def class_rows(classes: Sequence[OfClass]) -> list[tuple[object, ...]]:
    """Cells under CLASS_COLUMNS."""
    return [
        (
            one.name,
            one.scores["support"],
            f"{one.scores['precision']:.3f}",
            f"{one.scores['recall']:.3f}",
            f"{one.scores['f1']:.3f}",
            _span(one.interval),
        )
        for one in classes
    ]


def _span(interval: tuple[float, float] | None) -> str:
    if interval is None:
        return f"below {MIN_DIALOGUES} dialogues"
    return f"{interval[0]:.3f} to {interval[1]:.3f}"


def error_row(error: ConfidentError) -> tuple[object, ...]:
    """Cells under ERROR_COLUMNS."""
    is_long = len(error.text) > _LONGEST_TEXT
    return (
        f"{error.confidence:.3f}",
        error.answered,
        error.truth,
        f"{error.share_of_truth:.3f}",
        error.speaker,
        error.text[:_LONGEST_TEXT] + ("..." if is_long else ""),
        without_folders(error.audio),
    )


def _sentences(found: Winner) -> Iterator[str]:
    own = found.calibration
    yield (
        f"Trial {found.trial} on the {found.num_utterances:,} validation rows of"
        f" {found.num_dialogues:,} dialogues; {found.num_errors:,} utterances are answered with"
        " none of their labels. Intervals are of resampled whole dialogues, and of fewer than"
        f" {MIN_DIALOGUES} none can be told. The model was chosen on these rows, so that"
        " all of it looks better than on new ones."
    )
    if own.temperature is None:
        return
    kind = "too sure" if own.temperature > 1 else "not sure enough"
    after = (
        ""
        if own.error_after is None
        else f"; fitted on the other half of the dialogues it leaves {own.error_after:.3f}"
    )
    yield (
        f"Its probabilities are off by {own.error:.3f} in the mean (expected calibration error,"
        f" {NUM_BINS} bins), and it is {kind}: the best temperature is {own.temperature:.2f}"
        f"{after}. A bundle keeps it, and mmm predict --calibrated applies it."
    )


def reliability_plot(found: Winner) -> Plot:
    bins = found.calibration.bins
    figure = Figure(
        [
            Bar(
                x=floats(one.low + 0.5 / NUM_BINS for one in bins),
                y=floats(one.accuracy for one in bins),
                width=0.9 / NUM_BINS,
                marker={"color": BLUE},
                text=[f"{one.num_utterances:,}" for one in bins],
                customdata=floats(one.confidence for one in bins),
                hovertemplate="confidence %{customdata:.3f}, accuracy %{y:.3f}, %{text}"
                " rows<extra></extra>",
            ),
            Scatter(
                x=[0, 1],
                y=[0, 1],
                mode="lines",
                line={"color": INK, "width": 1, "dash": "dash"},
                hoverinfo="skip",
            ),
        ]
    )
    figure.update_layout(
        xaxis={"title": {"text": "probability of what was answered"}, "range": [0, 1]},
        yaxis={"title": {"text": "accuracy"}, "range": [0, 1.05]},
        showlegend=False,
    )
    caption = (
        "Accuracy by confidence, with the number of rows; bars on the dashed line can be taken at"
        f" their word. Expected calibration error {found.calibration.error:.3f}."
    )
    return Plot("reliability", figure, caption, 380)
