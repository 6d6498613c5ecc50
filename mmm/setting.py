"""What a field of a record of settings means to people: its help and the values it takes, written
once, beside the field. mmm/cli/options.py makes options of it, and checks hold values against it.
"""

import dataclasses
import functools
import math
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

_LOWEST = -(2**63)
_LONGEST = 60  # letters of a value that are shown


def shown(value: object) -> str:
    """A value as Python writes it, where that is short enough to be read."""
    if isinstance(value, int) and not _LOWEST <= value < -_LOWEST:
        return f"a whole number of {value.bit_length():,} bits"
    if isinstance(value, str) and len(value) > _LONGEST:
        return f"{value[:_LONGEST]!r}... ({len(value):,} letters)"
    try:
        return repr(value)
    except Exception:  # of a class of the user's own
        return f"<{type(value).__name__}>"


@dataclass(frozen=True)
class Setting:
    """As in `trials: Annotated[int, Setting("Settings to try.", 1)]`."""

    help: str = ""
    low: float = -math.inf
    high: float = math.inf
    above: bool = False  # `low` itself is too low
    choices: tuple[str, ...] = ()
    wrong: str = ""  # instead of what is said of a value out of range
    # Of an option: what a new run takes where a record that lacks the field means something else,
    # how it is written, and what becomes of a text.
    default: Any = ...
    flag: str = ""
    metavar: str | None = None
    parse: Callable[[str], object] | None = None

    def takes(self, value: float) -> bool:
        if isinstance(value, int) and not _LOWEST <= value < -_LOWEST:  # more than 64 bits
            return False
        is_low = value <= self.low if self.above else value < self.low
        return math.isfinite(value) and not is_low and value <= self.high

    @property
    def expected(self) -> str:
        """`above 0`, `at least 1 and at most 5`."""
        end = f" and at most {self.high:g}" if self.high < math.inf else ""
        return f"{'above' if self.above else 'at least'} {self.low:g}{end}"


@dataclass(frozen=True)
class Field:
    """A field that has a Setting: its type without None, and what it is where nobody says."""

    kind: type
    default: Any
    setting: Setting


@functools.cache
def fields_of(record: type) -> dict[str, Field]:
    """Those fields of a dataclass that people set, by their names."""
    hints = get_type_hints(record, include_extras=True)
    found = {}
    for field in dataclasses.fields(record):
        if get_origin(hints[field.name]) is Annotated:
            kind, setting = get_args(hints[field.name])
            if get_origin(kind) in (Union, types.UnionType):
                kind = get_args(kind)[0]
            found[field.name] = Field(kind, field.default, setting)
    return found


def option_faults(record: object) -> Iterator[str]:
    """What is wrong with each value of a record by itself, in the words of a command line."""
    kind: type = type(record)
    for name, field in fields_of(kind).items():
        value, setting, option = getattr(record, name), field.setting, f"--{name.replace('_', '-')}"
        if setting.choices and value is not None and value not in setting.choices:
            yield f"unknown {option} {shown(value)}; expected one of {', '.join(setting.choices)}"
        if field.kind in (int, float) and value is not None and not setting.takes(value):
            usual = "is out of range" if setting.above else "is too small"
            if isinstance(value, int) and value >= -_LOWEST:
                usual = "is too large"
            number = shown(value) if isinstance(value, int) else f"{value:g}"
            yield f"{option} {number} {setting.wrong or f'{usual}; expected {setting.expected}'}"
