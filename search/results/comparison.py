"""Several sweeps side by side: what each found, what it cost, and how the settings of their winners
differ. `mmm-search compare` prints it and makes a page of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from matplotlib.axes import Axes
from rich.table import Table

from mmm.console import plain
from mmm.page import Picture, picture, render
from mmm.training.config import ParamValue
from search.ledger.data import Changes
from search.ledger.durations import duration
from search.ledger.history import History
from search.ledger.spec import SweepSpec
from search.results.page.forest import Confirmed, Finalist
from search.results.page.paths import command_without_folders, last_part
from search.results.summary import Winner, summary

_BLUE, _GREY, _RED = "#4477aa", "#777", "#c33"
_ROW = 0.5  # inches
COLUMNS = (
    *("sweep", "best", "trial", "system", "baseline", "confirmed", "interval", "seeds"),
    *("trials", "compute", "speech", "text"),
)
TEXTS = [0, 3, 10, 11]  # columns that are no numbers


@dataclass(frozen=True)
class Side:
    """A sweep of a comparison; scores are of `score_name`, higher is better."""

    sweep: str
    space: str
    score_name: str
    trials: int
    trained_s: float  # of all workers together
    best: Winner | None
    baseline: float | None
    leader: Finalist | None  # of its confirmation, on fresh seeds; None: not confirmed
    level: float | None  # of the leader's interval
    speech: tuple[str, ...]  # encoders that trials used
    text: tuple[str, ...]
    data_sha256: str | None  # of the manifest; None where an early ledger does not say
    other_data: tuple[str, ...]  # how its corpus differs from the first sweep's
    command: str


@dataclass(frozen=True)
class Comparison:
    """Sweeps in the order they were named."""

    sweeps: tuple[Side, ...]
    same_data: bool | None  # None: an early ledger does not say
    sentences: tuple[str, ...]
    # Of the winners, a setting that is not the same in all; None where one does not have it.
    settings: Mapping[str, tuple[ParamValue, ...]]

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def compare(opened: Sequence[tuple[History, Confirmed | None]]) -> Comparison:
    """Of each sweep its history and, where it was confirmed, what came of that. Raises ValueError
    for fewer than two.
    """
    if len(opened) < 2:
        raise ValueError("compare needs two sweeps at least: mmm-search compare A B")
    first = opened[0][0]
    sides = tuple(_side(history, confirmed, first) for history, confirmed in opened)
    known = all(side.data_sha256 is not None for side in sides)
    same = not any(side.other_data for side in sides)
    winners = [{} if side.best is None else side.best.settings for side in sides]
    names = dict.fromkeys(name for one in winners for name in one)
    values = {name: tuple(one.get(name) for one in winners) for name in names}
    return Comparison(
        sides,
        same if known else None,
        tuple(_sentences(sides, known)),
        {name: row for name, row in values.items() if any(one != row[0] for one in row)},
    )


def _side(history: History, confirmed: Confirmed | None, first: History) -> Side:
    found, spec = summary(history, confirmed, rows=0), history.spec
    note = history.data[-1][1] if history.data else None
    return Side(
        sweep=found.sweep,
        space=last_part(spec.space),
        score_name=found.score_name,
        trials=len(history.trials),
        trained_s=found.trained_s,
        best=found.best,
        baseline=found.baseline,
        leader=None if confirmed is None else confirmed.finalists[0],
        level=None if confirmed is None else confirmed.level,
        speech=_encoders(history, "speech", spec),
        text=_encoders(history, "text", spec),
        data_sha256=None if note is None else note.manifest.sha256,
        other_data=tuple(_other_data(first, history)),
        command=command_without_folders(spec.command),
    )


def _encoders(history: History, kind: str, spec: SweepSpec) -> tuple[str, ...]:
    """That trials used by name; where they name none, the only one that was there."""
    used = {str(t.settings[kind]) for t in history.trials.values() if t.settings.get(kind)}
    there = spec.speech_encoders if kind == "speech" else spec.text_encoders
    return tuple(sorted(used or set(there or ())))


def _other_data(first: History, other: History) -> list[str]:
    """How the rows, texts and labels of another sweep differ from those of the first."""
    if not first.data or not other.data:
        return []
    was, now = (replace(one.data[-1][1], stores=()) for one in (first, other))
    has_folds = bool(first.spec.folds and other.spec.folds)
    return Changes(was, now, has_folds=has_folds).what


def _sentences(sides: Sequence[Side], known: bool) -> Iterator[str]:
    others = [side for side in sides if side.other_data]
    for side in others:
        yield (
            f"{side.sweep} was run on other data than {sides[0].sweep}"
            f" ({'; '.join(side.other_data)}): their scores do not compare."
        )
    if not known:
        yield "An early ledger does not say what it was trained on: whether scores compare is open."
    elif not others:
        yield (
            "All are of the same utterances, texts, labels and splits"
            f" (SHA-256 of the manifest {str(sides[0].data_sha256)[:16]})."
            if len({side.data_sha256 for side in sides}) == 1
            else "All are of the same utterances, texts, labels and splits, from manifests that"
            " differ in what no trial reads."
        )
    if len({side.score_name for side in sides}) > 1:
        named = "; ".join(f"{side.sweep}: {side.score_name}" for side in sides)
        yield f"They were scored differently ({named}), so best scores do not compare."
    else:
        yield f"Scores are {sides[0].score_name}, higher is better."
    if missing := [side.sweep for side in sides if side.leader is None]:
        yield (
            "A best score is the best of many trials and promises more than new data will keep, the"
            " more so the more trials; not confirmed with fresh seeds yet: "
            + ", ".join(missing)
            + f" (mmm-search confirm {missing[0]})."
        )
    else:
        yield (
            "Confirmed means are of fresh seeds of each sweep's leader; whether one sweep's beats"
            " another's was not tested, and overlapping intervals decide nothing."
        )


def rows_of(found: Comparison) -> list[tuple[str, ...]]:
    """A row a sweep under `COLUMNS`."""
    return [
        (
            side.sweep,
            f"{side.best.score:.4f}" if side.best else "",
            str(side.best.trial) if side.best else "",
            side.best.architecture if side.best else "",
            "" if side.baseline is None else f"{side.baseline:.4f}",
            f"{side.leader.mean:.4f}" if side.leader else "",
            _interval(side.leader),
            str(len(side.leader.scores)) if side.leader else "",
            str(side.trials),
            duration(side.trained_s),
            ", ".join(side.speech),
            ", ".join(side.text),
        )
        for side in found.sweeps
    ]


def _interval(leader: Finalist | None) -> str:
    if leader is None or leader.low is None or leader.high is None:
        return ""
    return f"{leader.low:.4f} to {leader.high:.4f}"


def settings_rows(found: Comparison) -> list[tuple[str, ...]]:
    """A row a setting of the winners that differs, a column a sweep; empty: it does not have it."""
    return [(name, *map(_shown, values)) for name, values in found.settings.items()]


def _shown(value: ParamValue) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else last_part(str(value))


def tables(found: Comparison) -> Iterator[Table]:
    """For the terminal: the sweeps, then where their winners differ."""
    yield _table(COLUMNS, rows_of(found), TEXTS)
    if found.settings:
        names = ("setting of the winner", *(side.sweep for side in found.sweeps))
        yield _table(names, settings_rows(found), [0])


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], texts: Sequence[int]) -> Table:
    table = Table()
    for place, name in enumerate(columns):
        table.add_column(
            plain(name), justify="left" if place in texts else "right", overflow="fold"
        )
    for row in rows:
        table.add_row(*map(plain, row))
    return table


def page_of(found: Comparison) -> str:
    """The same as one HTML file, with a figure."""
    names = ("setting", *(side.sweep for side in found.sweeps))
    return render(
        Path(__file__).with_name("comparison.html.j2"),
        title=" and ".join(side.sweep for side in found.sweeps),
        found=found,
        figure=_figure(found),
        columns=COLUMNS,
        rows=rows_of(found),
        texts=TEXTS,
        setting_columns=names,
        settings=settings_rows(found),
    )


def _figure(found: Comparison) -> Picture:
    def draw(axes: Axes) -> None:
        for place, side in enumerate(found.sweeps):
            if side.best is not None:
                axes.plot([side.best.score], [place], "x", color=_RED, markersize=7)
            if side.baseline is not None:
                axes.plot([side.baseline], [place], "|", color=_GREY, markersize=14)
            if (leader := side.leader) is not None:
                if leader.low is not None and leader.high is not None:
                    ends = [leader.low, leader.high]
                    axes.plot(ends, [place, place], color=_BLUE, linewidth=2)
                axes.plot([leader.mean], [place], "o", color=_BLUE, markersize=6)
        names = [side.sweep for side in found.sweeps]
        axes.set_yticks(range(len(names)), names, parse_math=False)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set(xlabel=found.sweeps[0].score_name)

    levels = sorted({100 * side.level for side in found.sweeps if side.level is not None})
    line = f" with its {levels[0]:g} % interval" if levels else ""
    caption = (
        "Best score of the search (cross), linear baseline (tick), mean of the confirmed leader"
        f" over fresh seeds (dot){line}."
    )
    return picture(draw, caption, (6.4, 1.2 + _ROW * len(found.sweeps)))
