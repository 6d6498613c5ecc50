"""Faults told once a kind: with how many rows have it, and the first of them."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmm.manifest import ManifestError


@dataclass
class _Kind:
    what: str
    advice: str
    places: list[str]
    is_same: bool = True  # in every row, to the letter


class Faults:
    """Collects faults in the order in which each kind was first met."""

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {}

    def add(self, what: str, place: str, advice: str = "", *, kind: str | None = None) -> None:
        """`place` such as `line 7`; `advice` is what is expected, or what to type. Faults of one
        `kind` are told by the first of them; by default those are of one that say the same.
        """
        known = self._kinds.setdefault(what if kind is None else kind, _Kind(what, advice, []))
        known.places.append(place)
        known.is_same = known.is_same and known.what == what

    def __bool__(self) -> bool:
        return bool(self._kinds)

    def texts(self) -> list[str]:
        """`unknown emotion 'calm' in 192 rows, the first: line 7; expected ...`, and of one row
        `line 7: unknown emotion 'calm'; expected ...`; where rows of a kind say different things
        `turn 'x' is not a whole number (5 rows alike, the first: line 7)`.
        """
        found = []
        for one in self._kinds.values():
            if len(one.places) == 1:
                what = f"{one.places[0]}: {one.what}"
            elif one.is_same:
                what = f"{one.what} in {told(one.places)}"
            else:
                what = f"{one.what} ({len(one.places):,} rows alike, the first: {one.places[0]})"
            found.append(f"{what}; {one.advice}" if one.advice else what)
        return found

    def stop(self, source: Path) -> None:
        """Raises ManifestError about `source` where there is any."""
        if self:
            raise ManifestError(source, self.texts())


def csv_fault(
    error: csv.Error, text: str, line: int, header: Sequence[str], delimiter: str = ","
) -> str:
    """What is wrong with the row of a CSV that begins on `line`, at which the reader stopped; with
    its column, where a field is longer than the csv module takes.
    """
    what = f"not CSV ({error})"
    if "field limit" in str(error):
        most = csv.field_size_limit()
        rest = io.StringIO(text, newline="")
        for _ in range(line - 1):
            rest.readline()
        csv.field_size_limit(len(text))
        try:
            fields = next(csv.reader(rest, delimiter=delimiter))
        finally:
            csv.field_size_limit(most)
        place = max(range(len(fields)), key=lambda place: len(fields[place]))
        name = repr(header[place]) if place < len(header) else place + 1
        what = f"column {name} holds {len(fields[place]):,} characters, of at most {most:,}"
    return f"line {line}: {what}; is a quote not closed, or not doubled?"


def told(places: list[str]) -> str:
    """`192 rows, the first: line 7`."""
    many = f"{len(places):,} rows, the first" if len(places) > 1 else "1 row"
    return f"{many}: {places[0]}"
