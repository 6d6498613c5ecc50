"""What `mmm-search confirm` found, as far as the report shows it: `confirm.json` beside the ledger,
its verdict in words, and a forest plot.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plotly.graph_objects import Figure, Scatter

from search.ledger.files import command_for
from search.results.page.plots import BLUE, GREY, INK, RED, Plot, text


@dataclass(frozen=True)
class Finalist:
    """A row of the forest."""

    label: str
    mean: float
    low: float | None  # None: cannot be told
    high: float | None
    scores: tuple[float, ...]  # of each seed
    search_score: float | None
    verdict: str  # against the leader; "leads" of the leader, empty of the baseline


@dataclass(frozen=True)
class Confirmed:
    """A confirmation; finalists best first."""

    sweep: str  # that trained them
    metric: str
    level: float
    units: str  # what intervals are drawn from; empty where there are none
    finalists: tuple[Finalist, ...]
    baseline: Finalist | None
    trial: int | None  # the leader's in the sweep; None of a default
    sentences: tuple[str, ...]  # the verdict first


def read_confirmed(folder: Path) -> Confirmed | None:
    """That of the sweep in `folder`; None where it was not confirmed. Raises ValueError where the
    file is damaged.
    """
    path = folder / "confirm.json"
    if not path.is_file():
        return None
    try:
        return _confirmed(json.loads(path.read_text(encoding="utf-8")))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: is no confirmation ({type(error).__name__}: {error}); make it again with:"
            f" {command_for('confirm', folder)}"
        ) from None


def _confirmed(found: Mapping[str, Any]) -> Confirmed:
    verdicts = ["leads", *(str(pair["verdict"]) for pair in found["to_leader"])]
    finalists = tuple(map(_finalist, found["finalists"], verdicts))
    baseline = None if found["baseline"] is None else _finalist(found["baseline"], "")
    leader = finalists[0]
    # Earlier versions wrote no sentences.
    plain = f"{leader.label} has the highest mean over fresh seeds, {leader.mean:.4f}."
    return Confirmed(
        str(found["confirmed_in"]),
        str(found["metric"]),
        float(found["level"]),
        str(found["units"]),
        finalists,
        baseline,
        found["finalists"][0]["trial"],
        tuple(map(str, found.get("sentences") or (plain[0].upper() + plain[1:],))),
    )


def _finalist(found: Mapping[str, Any], verdict: str) -> Finalist:
    name, architecture = str(found["name"]), str(found["architecture"])
    return Finalist(
        name if architecture in name else f"{name}, {architecture}",
        float(found["mean"]),
        found["low"],
        found["high"],
        tuple(map(float, found["scores"])),
        found["search_score"],
        verdict,
    )


def forest(found: Confirmed) -> Plot:
    """A row a finalist, the leader above: interval, mean, each run, and the search's own score."""
    rows = [*found.finalists, *([found.baseline] if found.baseline else [])]
    labels = [text(row.label) for row in rows]
    figure = Figure()
    for row, label in zip(rows, labels, strict=True):
        shade = GREY if row is found.baseline else BLUE
        if row.low is not None and row.high is not None:
            figure.add_trace(_of(label, [row.low, row.high], "lines", line={"color": shade}))
        runs = {"symbol": "line-ns", "size": 10, "line": {"color": shade, "width": 1.5}}
        figure.add_trace(_of(label, list(row.scores), "markers", marker=runs))
        figure.add_trace(_of(label, [row.mean], "markers", marker={"color": shade, "size": 10}))
        if row.search_score is not None:
            cross = {"symbol": "x-thin", "size": 8, "line": {"color": RED, "width": 2}}
            figure.add_trace(_of(label, [row.search_score], "markers", marker=cross))
    figure.add_vline(x=rows[0].mean, line={"color": INK, "width": 1, "dash": "dot"}, opacity=0.5)
    order = {"categoryorder": "array", "categoryarray": labels, "autorange": "reversed"}
    figure.update_layout(xaxis_title=f"validation {found.metric}", yaxis=order, showlegend=False)
    line = f", {100 * found.level:g} % interval (line)" if found.units else ""
    caption = (
        f"Mean over fresh seeds (dot){line}, each run (ticks), and the score that the search gave,"
        " after fewer epochs where it stopped the trial (cross)."
    )
    return Plot("forest", figure, caption, 110 + 44 * len(rows), is_wide=True)


def _of(label: str, scores: list[float], mode: str, **look: object) -> Scatter:
    return Scatter(
        x=scores,
        y=[label] * len(scores),
        mode=mode,
        hovertemplate="%{x:.4f}<extra></extra>",
        **look,
    )
