"""Faults of a table: each kind is told once, with how many rows have it and where the first is."""

from dataclasses import dataclass


@dataclass(slots=True)
class _Kind:
    line: int
    text: str
    num_rows: int = 1


class Faults:
    """What is wrong with the rows of a table, in the order in which it was first found."""

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {}

    def __bool__(self) -> bool:
        return bool(self._kinds)

    def add(self, line: int, text: str, kind: str | None = None) -> None:
        """A fault of the row on `line`. Those of one kind are told by the text of the first; by
        default those of the same text are of one kind.
        """
        kind = text if kind is None else kind
        known = self._kinds.get(kind)
        if known is None:
            self._kinds[kind] = _Kind(line, text)
        else:
            known.num_rows += 1

    def told(self) -> list[str]:
        """A sentence a kind, by the line of the first."""
        return [
            f"line {one.line}: {one.text}"
            if one.num_rows == 1
            else f"{one.text} ({one.num_rows} such rows, the first: line {one.line})"
            for one in sorted(self._kinds.values(), key=lambda one: one.line)
        ]
