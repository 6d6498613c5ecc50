"""What a fault cost, by the ledger of the sweep that it was done to."""

from collections.abc import Iterable, Sequence

from search.ledger.records import Event


def trained_again(events: Iterable[Event]) -> str:
    """How many reports of an epoch there were that had been reported before."""
    reports = [(event.trial, event.body.epoch) for event in events if event.kind == "epoch"]
    return f"{len(reports) - len(set(reports))} of {len(reports)} reported epochs trained again"


def gone_on(events: Sequence[Event], place: int) -> str:
    """What it cost a trial to lose its worker at `events[place]`, of its own events."""
    saved = max(
        (event.body.epoch for event in events[:place] if event.kind == "checkpoint"), default=0
    )
    before = [event.body for event in events[:place] if event.kind == "epoch"]
    after = [event.body for event in events[place:] if event.kind == "epoch"]
    lost = [entry for entry in before if entry.epoch > saved]
    last = before[-1].ended if before else events[place].time
    return (
        f"{len(lost)} of {len(before)} reported epochs ({sum(entry.seconds for entry in lost):.1f}"
        f" s) trained again, {after[0].started - last:.1f} s until it was trained on"
    )
