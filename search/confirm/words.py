"""A confirmation in words and as a table, for terminal and page."""

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.table import Table

from mmm.console import plain
from search.confirm.result import Compared, Confirmation, Confirmed


def short(value: float | None, signed: bool = False) -> str:
    """`.592`, `-.021`: three decimals of what is between -1 and 1."""
    if value is None:
        return ""
    text = f"{value:+.3f}" if signed else f"{value:.3f}"
    return text.replace("0.", ".", 1)


def called(one: Confirmed) -> str:
    """`trial 12, gated_fusion`."""
    return one.name if one.architecture in one.name else f"{one.name}, {one.architecture}"


def rows_of(found: Confirmation) -> list[tuple[Confirmed, Compared | None]]:
    """Finalists best first, the baseline last, each with how it stands to the leader."""
    leader = found.leader
    rows: list[tuple[Confirmed, Compared | None]] = [(leader, None)]
    others = [*found.finalists[1:], *([found.baseline] if found.baseline else [])]
    return rows + [(one, found.between(one.name, leader.name)) for one in others]


def cells_of(one: Confirmed, to_leader: Compared | None) -> list[str]:
    """A row of the table: finalist, n, mean, sd, interval, difference, its interval, p, P(beats),
    verdict.
    """
    label = one.name.removeprefix("trial ").removeprefix("linear ")
    if one.architecture not in label:
        label = f"{label} {one.architecture}"
    first = [
        label,
        str(len(one.scores)),
        short(one.mean),
        short(one.deviation),
        "" if one.low is None else f"{short(one.low)} {short(one.high)}",
    ]
    if to_leader is None:
        return [*first, "", "", "", "", "leads"]
    return [
        *first,
        short(to_leader.difference, signed=True),
        (
            ""
            if to_leader.low is None
            else f"{short(to_leader.low, signed=True)} {short(to_leader.high, signed=True)}"
        ),
        short(to_leader.p),
        "" if to_leader.wins is None else f"{to_leader.wins:.2f}",
        to_leader.verdict,
    ]


def columns(found: Confirmation) -> list[str]:
    percent = f"{100 * found.level:g} %"
    return [
        *("finalist", "n", "mean", "sd", percent, "to 1st", percent, "p", "P", "verdict"),
    ]


def table_of(found: Confirmation) -> Table:
    """At most 80 columns wide."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for place, name in enumerate(columns(found)):
        is_text = place in (0, 9)
        table.add_column(plain(name), justify="left" if is_text else "right", no_wrap=not is_text)
    for row in rows_of(found):
        table.add_row(*map(plain, cells_of(*row)))
    return table


def explained(found: Confirmation) -> str:
    """What the columns are."""
    drawn = found.units or "nothing: too few groups of anything"
    return (
        f"n seeds; mean and standard deviation of validation {found.metric} over them; intervals by"
        f" bootstrap over {drawn}, crossed with seeds; to 1st: difference to the leader, with p"
        " (sign flips over the same units, or what counts seeds as well, the larger; Holm's"
        " correction over all pairs) and P, how probably one of its runs scores above one of the"
        " leader's"
    )


def verdict_paragraph(found: Confirmation) -> str:
    """The verdict first."""
    return " ".join(_sentences(found))


def _sentences(found: Confirmation) -> Iterator[str]:
    leader, metric = found.leader, found.metric
    others = [(one, found.between(leader.name, one.name)) for one in found.finalists[1:]]
    score = f"{metric} {leader.mean:.4f}"
    seeds = f"{len(leader.scores)} {'seed' if len(leader.scores) == 1 else 'seeds'}"
    if leader.low is not None and leader.high is not None:
        score += f" ({100 * found.level:g} % interval {leader.low:.4f} to {leader.high:.4f}"
        score += f", {seeds})"
    else:
        score += f" ({seeds})"
    if not found.units:
        yield (
            f"Cannot be told: {called(leader)} has the highest mean, {score}, but the"
            f" {found.num_rows} validation rows are of too few groups for an interval."
        )
    elif not others:
        yield f"Confirmed alone: {called(leader)} has {score}; there was no other finalist."
    else:
        behind = [called(one) for one, pair in others if pair.verdict == "better"]
        level = [(one, pair) for one, pair in others if pair.verdict != "better"]
        if not level:
            yield (f"Better: {called(leader)} beats {_every(behind)} with {score}.")
        else:
            yield (
                f"Tie: {called(leader)} has the highest mean, {score}, and these runs do not tell"
                f" it from {_list([called(one) for one, _ in level])}."
            )
            if behind:
                yield f"It beats {_list(behind)}."
            yield from _to_decide(level)
    yield from _against_baseline(found)
    yield from _default(found)
    if (curse := found.curse) is not None:
        above = "above" if curse.excess >= 0 else "below"
        yield (
            f"The search gave {curse.finalist} {curse.search_score:.4f},"
            f" {abs(curse.excess):.4f} {above} its mean over fresh seeds; of"
            f" {curse.of_trials} trials that differ by nothing but the seeds' noise"
            f" ({curse.seed_noise:.4f}) the best would be {curse.predicted:.4f} above."
        )
    if found.limits:
        yield f"Limits: {'; '.join(found.limits)}."
    yield (
        "All figures are of the validation rows, on which the finalists and each run's epoch were"
        " chosen."
    )


def _list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{'; '.join(names[:-1])} and {names[-1]}"


def _every(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"every other finalist ({'; '.join(names)})"


def _to_decide(level: list[tuple[Confirmed, Compared]]) -> Iterator[str]:
    needed = [(pair.seeds_to_decide, one) for one, pair in level if pair.verdict == "tie"]
    some = [(number, one) for number, one in needed if number is not None]
    if some:
        number, one = min(some, key=lambda pair: pair[0])
        yield (
            f"About {number} seeds of each would decide it against {one.name} if the difference"
            " stays as large."
        )
    elif needed:
        yield "More seeds would not decide it: that takes more rows to score."


def _against_baseline(found: Confirmation) -> Iterator[str]:
    if (baseline := found.baseline) is None:
        return
    pair = found.between(found.leader.name, baseline.name)
    what = f"the linear baseline ({baseline.mean:.4f})"
    if pair.verdict == "better":
        yield f"It beats {what}."
    elif pair.verdict == "worse":
        yield f"It is worse than {what}, whose bundle is in baseline/."
    elif pair.verdict == "tie":
        yield f"It is not told from {what}: nothing here beats the baselines."


def _default(found: Confirmation) -> Iterator[str]:
    defaults = [one for one in found.finalists if one.is_default]
    if not defaults or not found.units:
        return
    best = defaults[0]
    if best is found.leader:
        yield "The leader is a default of the space: the search found nothing above it."
        return
    pair = found.between(found.leader.name, best.name)
    if pair.verdict == "better":
        yield f"The search was worth {pair.difference:.4f} over the default ({best.name})."
    else:
        yield f"The default ({best.name}) may have done as well."
