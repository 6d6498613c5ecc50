"""Faults of a corpus told once a kind: with how many rows have it, and the first of them."""

from pathlib import Path

from mmm.manifest import ManifestError


class Faults:
    """Collects faults in the order in which each kind was first met."""

    def __init__(self) -> None:
        self._places: dict[str, list[str]] = {}
        self._advice: dict[str, str] = {}

    def add(self, kind: str, place: str, advice: str = "") -> None:
        """`place` such as `line 7`; `advice` is what is expected, or what to type."""
        self._places.setdefault(kind, []).append(place)
        self._advice.setdefault(kind, advice)

    def __bool__(self) -> bool:
        return bool(self._places)

    def texts(self) -> list[str]:
        """`unknown emotion 'calm' in 192 rows, the first: line 7; expected ...`, and of one row
        `line 7: unknown emotion 'calm'; expected ...`.
        """
        found = []
        for kind, places in self._places.items():
            what = f"{places[0]}: {kind}" if len(places) == 1 else f"{kind} in {told(places)}"
            found.append(f"{what}; {self._advice[kind]}" if self._advice[kind] else what)
        return found

    def stop(self, source: Path) -> None:
        """Raises ManifestError about `source` where there is any."""
        if self:
            raise ManifestError(source, self.texts())


def told(places: list[str]) -> str:
    """`192 rows, the first: line 7`."""
    many = f"{len(places):,} rows, the first" if len(places) > 1 else "1 row"
    return f"{many}: {places[0]}"
