"""`confirm.html`: one file, verdict first, with a forest plot."""

from pathlib import Path

from matplotlib.axes import Axes

from mmm.page import Picture, picture, render
from search.confirm.result import Confirmation, Confirmed
from search.confirm.words import (
    called,
    cells,
    columns,
    explained,
    sentences,
    short,
)

_BLUE, _GREY = "#4477aa", "#777"
_ROW = 0.42  # inches


def page_of(found: Confirmation, searched: str, command: str) -> str:
    """The page; `searched` and `command` are the command lines of sweep and confirmation."""
    comparisons = [
        (
            one.first,
            one.second,
            short(one.difference, signed=True),
            "" if one.low is None else short(one.low, signed=True),
            "" if one.high is None else short(one.high, signed=True),
            "" if one.p_units is None else f"{one.p_units:.4f}",
            "" if one.p is None else f"{one.p:.4f}",
            "" if one.wins is None else f"{one.wins:.2f}",
            one.verdict,
            "" if one.seeds_to_decide is None else one.seeds_to_decide,
        )
        for one in (*found.to_leader, *found.to_baseline, *found.to_majority)
    ]
    baselines = [*([found.baseline] if found.baseline else []), found.majority]
    everyone = [*found.finalists, *baselines]
    return render(
        Path(__file__).with_name("confirm.html.j2"),
        title=f"{found.sweep}, confirmed",
        found=found,
        sentences=list(sentences(found)),
        forest=_forest(found, everyone),
        columns=columns(found),
        rows=cells(found),
        explained=explained(found),
        comparisons=comparisons,
        runs=[
            (called(one), seed, f"{score:.4f}")
            for one in found.finalists
            for seed, score in zip(one.seeds, one.scores, strict=True)
        ],
        searched=searched,
        command=command,
    )


def _forest(found: Confirmation, everyone: list[Confirmed]) -> Picture:
    """Every finalist's runs, mean and interval, and the search's own score, in rows."""

    def draw(axes: Axes) -> None:
        for place, one in enumerate(everyone):
            colour = _BLUE if one in found.finalists else _GREY
            if one.low is not None and one.high is not None:
                axes.plot([one.low, one.high], [place, place], color=colour, linewidth=2)
            axes.plot(one.scores, [place] * len(one.scores), "|", color=colour, markersize=9)
            axes.plot([one.mean], [place], "o", color=colour, markersize=6)
            if one.search_score is not None:
                axes.plot([one.search_score], [place], "x", color="#c33", markersize=6)
        axes.axvline(found.leader.mean, color="#bbb", linewidth=1, linestyle=":")
        axes.set_yticks(range(len(everyone)), [called(one) for one in everyone])
        axes.set_ylim(len(everyone) - 0.5, -0.5)
        axes.set(xlabel=f"{found.metric} on {'all folds' if found.folds else 'validation'}")

    caption = (
        f"Mean over seeds (dot), {100 * found.level:g} % interval (line), each run (ticks), and the"
        " score that the search gave, after fewer epochs where it stopped the trial (cross)."
        if found.units
        else "Mean over seeds (dot), each run (ticks), and the score that the search gave (cross)."
    )
    return picture(draw, caption, (8.6, 1.0 + _ROW * len(everyone)))
