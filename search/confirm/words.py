"""A confirmation in words and as a table, for terminal and page."""

import itertools
from collections.abc import Iterator, Sequence

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


def cells(found: Confirmation) -> list[list[str]]:
    """The rows of the table: finalists best first, then the baselines."""
    pairs = zip(found.finalists, [None, *found.to_leader], strict=True)
    rows = [_cells_of(*pair) for pair in pairs]
    if found.baseline is not None:
        rows.append([*_cells_of(found.baseline, None)[:-1], ""])
    rows.append([*_cells_of(found.majority, None)[:-1], ""])
    if found.opening is not None:
        by_name = {one.finalist: short(one.mean) for one in found.opening.finalists}
        names = [one.name for one in found.finalists]
        for row, name in itertools.zip_longest(rows, names):
            row.append(by_name.get(name, ""))
    return rows


def _cells_of(one: Confirmed, to_leader: Compared | None) -> list[str]:
    """A row of the table: finalist, n, mean, sd, interval, difference, its interval, p, P(beats),
    verdict.
    """
    label = one.name.removeprefix("trial ")
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
        "" if to_leader.wins is None else f"{to_leader.wins:.2f}".removeprefix("0"),
        to_leader.verdict,
    ]


def columns(found: Confirmation) -> list[str]:
    percent = f"{100 * found.level:g} %"
    return [
        *("finalist", "n", "mean", "sd", percent, "to 1st", percent, "p", "P", "verdict"),
        *(["test"] if found.opening else []),
    ]


def table_of(found: Confirmation) -> Table:
    """At most 80 columns wide."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for place, name in enumerate(columns(found)):
        is_text = place in (0, 9)
        table.add_column(plain(name), justify="left" if is_text else "right", no_wrap=not is_text)
    for row in cells(found):
        table.add_row(*map(plain, row))
    return table


def explained(found: Confirmation) -> str:
    """What the columns are."""
    intervals = "no intervals, for there are too few groups of anything"
    if found.units:
        intervals = f"its interval by a bootstrap over {found.units}, crossed with seeds"
    return (
        f"columns: seeds; mean and standard deviation of {found.metric} over them, on"
        f" {rows_of(found)};"
        f" {intervals}; the difference to the leader, its interval, p (sign flips over the same"
        " units or what counts seeds as well, the larger; Holm's correction), and P, how probably"
        " one of its runs scores above one of the leader's"
        f"{'; test: mean on the test split' if found.opening else ''}"
    )


def rows_of(found: Confirmation) -> str:
    """What is scored."""
    if found.folds:
        return (
            f"the rows of {found.folds} folds, each answered by what was trained without its fold"
        )
    return "the validation rows"


def sentences(found: Confirmation) -> Iterator[str]:
    """The verdict first, then what it rests on."""
    leader = found.leader
    score = f"{found.metric} {leader.mean:.4f}"
    seeds = f"{len(leader.scores)} {'seed' if len(leader.scores) == 1 else 'seeds'}"
    if leader.low is not None and leader.high is not None:
        score += f" ({100 * found.level:g} % interval {leader.low:.4f} to {leader.high:.4f},"
        score += f" {seeds})"
    else:
        score += f" ({seeds})"
    others = list(zip(found.finalists[1:], found.to_leader, strict=True))
    behind = [called(one) for one, pair in others if pair.verdict == "worse"]
    level = [called(one) for one, pair in others if pair.verdict != "worse"]
    if not found.units:
        yield (
            f"Cannot be told: {called(leader)} has the highest mean, {score}, but the"
            f" {found.num_rows} rows that are scored are of too few groups for an interval."
        )
    elif not others:
        yield f"Confirmed alone: {called(leader)} has {score}; there was no other finalist."
    elif not level:
        yield f"Better: {called(leader)}, {score}, beats every other finalist: {_list(behind)}."
    else:
        yield (
            f"Tie: {called(leader)} has the highest mean, {score}, and these runs do not tell it"
            f" from {_list(level)}."
        )
        if behind:
            yield f"It beats {_list(behind)}."
        yield from _to_decide(found)
    yield from _against_baselines(found)
    yield from _default(found)
    yield from _spread(found)
    if (curse := found.curse) is not None:
        above = "above" if curse.excess >= 0 else "below"
        yield (
            f"The search gave {curse.finalist} {curse.search_score:.4f}, {abs(curse.excess):.4f}"
            f" {above} its mean over fresh seeds; the best of {curse.of_trials} trials that differ"
            f" by nothing but the noise of their seeds ({curse.seed_noise:.4f}) would be"
            f" {curse.predicted:.4f} above."
        )
    yield from _opened(found)
    if found.limits:
        yield f"Limits: {'; '.join(found.limits)}."
    yield (
        f"All {'other ' if found.opening else ''}figures are of {rows_of(found)}, on which the"
        " finalists and each run's epoch were chosen."
    )


def _opened(found: Confirmation) -> Iterator[str]:
    if (opening := found.opening) is None:
        return
    scores = [
        f"{one.finalist} {one.mean:.4f}"
        + ("" if one.deviation is None else f" (standard deviation {one.deviation:.4f})")
        for one in opening.finalists
    ]
    times = "once" if opening.num_on_record == 1 else f"{opening.num_on_record} times"
    yield (
        f"On the test split ({opening.num_utterances} utterances, opened on {opening.when[:10]} by"
        f" {opening.who}; on record it was opened {times}, each bundle counted): {_list(scores)}."
    )


def as_json(found: Confirmation) -> dict[str, object]:
    """Figures and sentences: what `confirm.json` holds and `--json` prints."""
    return {**found.as_json(), "sentences": list(sentences(found))}


_MOST_NAMED = 4


def _list(names: list[str]) -> str:
    if len(names) > _MOST_NAMED:
        names = [*names[:_MOST_NAMED], f"{len(names) - _MOST_NAMED} more"]
    return names[0] if len(names) == 1 else f"{'; '.join(names[:-1])} and {names[-1]}"


def _spread(found: Confirmation) -> Iterator[str]:
    if (split := found.variance) is None:
        return
    kinds = (
        (split.settings, "the finalists' settings"),
        (split.seeds, "seeds of one of them"),
        (split.folds, "folds of one run"),
    )
    known = [f"{size:.4f} between {what}" for size, what in kinds if size is not None]
    if len(known) > 1:
        yield f"Standard deviations of the score: {', '.join(known)}."


def _to_decide(found: Confirmation) -> Iterator[str]:
    ties = [pair for pair in found.to_leader if pair.verdict == "tie"]
    needed = [(pair.seeds_to_decide, pair.first) for pair in ties if pair.seeds_to_decide]
    if needed:
        number, name = min(needed)
        yield (
            f"About {number} seeds of each would decide it against {name}, if the difference stays"
            " as large."
        )
    elif ties:
        yield "More seeds would not decide it: that takes more rows to score."


def _against_each(
    found: Confirmation,
    baselines: Sequence[Confirmed],
    of_baselines: Sequence[Sequence[Compared]],
) -> str:
    """Where nobody beats all of them."""
    unbeaten, beaten = [], []
    for one, pairs in zip(baselines, of_baselines, strict=True):
        name = f"the {one.name} ({one.mean:.4f})"
        by = [pair.first for pair in pairs if pair.verdict == "better"]
        if not by:
            unbeaten.append(name)
        elif len(by) == len(found.finalists):
            beaten.append(f"{name} is beaten by all finalists")
        else:
            beaten.append(f"{name} is beaten by {_list(by)}")
    if not beaten:
        return f"Nothing beats the baselines: {' or '.join(unbeaten)}."
    if not unbeaten:
        return f"No finalist beats both baselines: {_list(beaten)}."
    return (
        f"Nothing beats the baselines, for nothing beats {' or '.join(unbeaten)}; {_list(beaten)}."
    )


def _against_baselines(found: Confirmation) -> Iterator[str]:
    if not found.units:
        return
    of_baselines = [found.to_majority, *([found.to_baseline] if found.to_baseline else [])]
    baselines = [found.majority, *([found.baseline] if found.baseline else [])]
    named = [f"the {one.name} ({one.mean:.4f})" for one in baselines]
    above = [
        of_one[0].first
        for of_one in zip(*of_baselines, strict=True)
        if all(pair.verdict == "better" for pair in of_one)
    ]
    if not above:
        yield _against_each(found, baselines, of_baselines)
    elif len(above) == len(found.finalists):
        yield f"All finalists beat the baselines: {_list(named)}."
    else:
        yield (
            f"The baselines, {_list(named)}, are beaten by {_list(above)}, and not by the others."
        )
    if below := [pair.first for pair in found.to_baseline if pair.verdict == "worse"]:
        yield f"The linear one beats {_list(below)}; its bundle is in baseline/."
    if below := [pair.first for pair in found.to_majority if pair.verdict == "worse"]:
        yield f"The majority class beats {_list(below)}."


def _default(found: Confirmation) -> Iterator[str]:
    defaults = [place for place, one in enumerate(found.finalists) if one.is_default]
    if not defaults or not found.units:
        return
    if (place := defaults[0]) == 0:
        yield "The leader is a default of the space: the search found nothing above it."
        return
    pair = found.to_leader[place - 1]
    if pair.verdict == "worse":
        yield f"The search was worth {-pair.difference:.4f} over the default ({pair.first})."
    else:
        yield f"The default ({pair.first}) may do as well."
