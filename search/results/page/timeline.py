"""Who trained what and when: a line a worker, made of the epochs in the ledger."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from plotly.graph_objects import Bar, Figure, Scatter

from search.ledger.history import History
from search.results.page.plots import (
    RED,
    Plot,
    colour,
    compute_unit,
    floats,
    integers,
    system_of,
    systems_of,
    text,
)

_SAME_PACK_S = 0.05  # within which trials of a pack report an epoch that they were trained in
_OVERLAP_S = 0.25  # of a worker's epochs, whose beginnings are reckoned back from their ends
_PAUSE = 0.1  # of all that was trained: a longer one is cut short in the plot


@dataclass(frozen=True)
class Stretch:
    """A worker's time with one trial, or with one pack of them; times in seconds since 1970."""

    started: float
    ended: float
    trials: tuple[int, ...]


def stretches(history: History) -> list[list[Stretch]]:
    """Of each worker, in order. The ledger does not name workers: an epoch goes to the one that had
    the same trials before, or else to the first that is free.
    """
    lanes: list[list[Stretch]] = []
    for epoch in _epochs(history):
        free = [lane for lane in lanes if lane[-1].ended <= epoch.started + _OVERLAP_S]
        lane = next((lane for lane in free if lane[-1].trials == epoch.trials), None)
        if lane is not None and epoch.started - lane[-1].ended < max(2.0, _length(epoch)):
            lane[-1] = replace(lane[-1], ended=epoch.ended)
        elif free:
            (lane or free[0]).append(epoch)
        else:
            lanes.append([epoch])
    return lanes


def _length(one: Stretch) -> float:
    return one.ended - one.started


def _epochs(history: History) -> Iterable[Stretch]:
    """Each as it was trained: those of a pack are one."""
    found = sorted(
        (
            entry.started if entry.started is not None else entry.ended - entry.seconds,
            entry.ended,
            trial.number,
            entry.together or 1,
        )
        for trial in history.trials.values()
        for entry in trial.all_epochs
        if entry.copied_from is None
    )
    pack: list[tuple[float, float, int, int]] = []
    for one in found:
        is_same = (
            pack
            and one[3] > 1
            and one[3] == pack[0][3]
            and len(pack) < one[3]
            and one[0] - pack[0][0] < _SAME_PACK_S
            and one[2] not in {other[2] for other in pack}
        )
        if not is_same:
            if pack:
                yield _of_pack(pack)
            pack = []
        pack.append(one)
    if pack:
        yield _of_pack(pack)


def _of_pack(pack: Sequence[tuple[float, float, int, int]]) -> Stretch:
    numbers = tuple(sorted(number for _, _, number, _ in pack))
    return Stretch(pack[0][0], max(ended for _, ended, _, _ in pack), numbers)


def timeline(history: History) -> Plot | None:
    """Bars of what each worker trained, and where one died; None where nothing was trained."""
    lanes = stretches(history)
    if not lanes:
        return None
    clock = _Clock([one for lane in lanes for one in lane])
    unit, name = compute_unit(clock.total)
    figure = Figure()
    trials = history.trials
    shown = [(place, one) for place, lane in enumerate(lanes, start=1) for one in lane]
    for system in systems_of(trials[one.trials[0]] for _, one in shown):
        own = [pair for pair in shown if system_of(trials[pair[1].trials[0]]) == system]
        figure.add_trace(
            Bar(
                base=floats(clock.shown(one.started) / unit for _, one in own),
                x=floats(
                    (clock.shown(one.ended) - clock.shown(one.started)) / unit for _, one in own
                ),
                y=integers(place for place, _ in own),
                customdata=integers(one.trials[0] for _, one in own),
                text=[_trials(one.trials) for _, one in own],
                textposition="none",
                orientation="h",
                marker={"color": colour(system), "line": {"width": 0}},
                name=text(system),
                hovertemplate="%{text}",
            )
        )
    if history.dead:
        when = floats(clock.shown(time) / unit for time, _ in history.dead)
        cross = {"symbol": "x", "size": 9, "color": RED}
        of = [text(f"trial {dead.trial}: {dead.reason[:120]}") for _, dead in history.dead]
        figure.add_trace(
            Scatter(
                x=when,
                y=[len(lanes) + 0.6] * len(history.dead),
                text=of,
                mode="markers",
                marker=cross,
                name="a worker died",
                hovertemplate="%{text}<extra></extra>",
            )
        )
    for pause in clock.pauses:
        dash = {"color": RED, "width": 1, "dash": "dot"}
        figure.add_vline(x=pause / unit, line=dash)
    figure.update_layout(
        barmode="overlay",
        bargap=0.25,
        xaxis_title=f"{name} since the first epoch",
        yaxis={"title": {"text": "worker"}, "dtick": 1, "autorange": "reversed"},
    )
    cut = "; a dotted line is a pause that was cut short" if clock.pauses else ""
    caption = (
        "What was trained when, a bar a trial or a pack of trials, in the colour of its system;"
        f" which worker it was is inferred from the times{cut}."
    )
    return Plot("timeline", figure, caption, 150 + 34 * min(len(lanes), 16), is_wide=True)


def _trials(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")
    return f"trial {shown}" if len(numbers) == 1 else f"pack of trials {shown}"


class _Clock:
    """Seconds since the first epoch, without long pauses between sessions."""

    def __init__(self, found: Sequence[Stretch]) -> None:
        busy: list[tuple[float, float]] = []
        for one in sorted(found, key=lambda one: one.started):
            if busy and one.started <= busy[-1][1]:
                busy[-1] = busy[-1][0], max(busy[-1][1], one.ended)
            else:
                busy.append((one.started, one.ended))
        longest = max(1.0, _PAUSE * sum(ended - started for started, ended in busy))
        # Real time, and the time shown for it, at the beginning of each stretch.
        self._marks = [(busy[0][0], 0.0)]
        self.pauses: list[float] = []
        for (_, before), (started, _) in itertools.pairwise(busy):
            at = self.shown(before)
            if started - before > longest:
                self.pauses.append(at + longest / 2)
            self._marks.append((started, at + min(started - before, longest)))
        self.total = self.shown(busy[-1][1])

    def shown(self, when: float) -> float:
        real, at = next((mark for mark in reversed(self._marks) if mark[0] <= when), self._marks[0])
        return at + max(0.0, when - real)
