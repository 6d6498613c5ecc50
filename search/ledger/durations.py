"""Durations as people write them: 90s, 20m, 2h, 1h30m."""

import re

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: str) -> float:
    """`90`, `45m`, `2h`, `1h30m` -> seconds. Raises ValueError."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip().lower())
    if not parts or "".join(number + unit for number, unit in parts) != text.strip().lower():
        raise ValueError(
            f"duration {text!r} is not understood; expected for example 90s, 45m, 2h or 1h30m"
        )
    total = sum(float(number) * _UNITS_S[unit or "s"] for number, unit in parts)
    if total <= 0:
        raise ValueError(f"duration {text!r} must be longer than nothing")
    return total


def duration(seconds: float) -> str:
    """`45s`, `12m`, `12m30s`, `2h`, `1h05m`: what `parse_duration` reads, to three digits or so."""
    minutes, rest = divmod(int(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60}h{minutes % 60:02d}m" if minutes % 60 else f"{minutes // 60}h"
    if minutes == 0:
        return f"{rest}s"
    return f"{minutes}m{rest:02d}s" if rest else f"{minutes}m"
