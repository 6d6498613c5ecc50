"""How many trials of one shape a worker trains as one batched model (mmm/pack.py)."""

from collections.abc import Mapping
from typing import Any

from search.config import SweepSpec

_LARGEST = 16
_SHARE = 0.5  # of the trials still to come to a worker, at most: a sweep must not spend itself on one shape


class PackSizes:
    """`--packs`: so many, or as many as a worker has measured to be worth it, for each architecture, batch size and width.

    Without an option a sweep of one worker trains one trial after the other: the next suggestion then depends on
    everything before it. So does one that limits what a trial may take, which is measured alone.
    """

    def __init__(self, spec: SweepSpec) -> None:
        self.spec = spec
        costs = (spec.max_ms_per_utterance, spec.max_memory_mb)
        self.is_measured = spec.packs is None and spec.workers > 1 and not any(cost is not None for cost in costs)
        self._sizes: dict[tuple[Any, ...], int] = {}

    def key(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """What one measurement speaks for."""
        return {name: settings.get(name) for name in ("architecture", "batch_size", "width")}

    def size(self, settings: Mapping[str, Any], num_left: int) -> int:
        """How many trials like this a worker takes, where `num_left` more may be suggested."""
        if not self.is_measured:
            return self.spec.packs or 1
        allowed = 1 + int(_SHARE * num_left / self.spec.workers)
        return min(self._sizes.get(tuple(self.key(settings).values()), 1), allowed)

    def to_measure(self, settings: Mapping[str, Any]) -> int:
        """The largest pack that the worker which trains this is to try; 1 where nothing is to be measured, or another does."""
        key = tuple(self.key(settings).values())
        if not self.is_measured or key in self._sizes:
            return 1
        self._sizes[key] = 1
        return _LARGEST

    def measured(self, settings: Mapping[str, Any], size: int) -> None:
        self._sizes[tuple(self.key(settings).values())] = size
