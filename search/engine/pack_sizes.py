"""How many trials of one shape a worker trains as one batched model (mmm/training/pack.py)."""

from mmm.training.config import Params, ParamValue
from search.ledger.spec import SweepSpec

_LARGEST, _LARGEST_ON_GPU = 16, 256
_SHARE = 0.5  # of the trials still to come to a worker, at most
# Of a sweep's trials that packs may give to one shape. Without a limit 56 of 60 trials had one
# shape, for a pack is filled up again whenever a trial leaves it (docs/LOG.md, 2026-11-26).
_SHARE_OF_SHAPE = 0.125
_Key = tuple[ParamValue, ParamValue, ParamValue]


class PackSizes:
    """`--packs`: so many, or as many as a worker has measured to be worth it, for each
    architecture, batch size and width.

    Without an option a sweep of one worker without a GPU trains one trial after the other: the next
    suggestion then depends on everything before it. So does one that limits what a trial may take,
    which is measured alone.
    """

    def __init__(self, spec: SweepSpec) -> None:
        self.spec = spec
        on_gpu = spec.gpus_per_trial > 0
        # One worker on a GPU: alone, a small head leaves nearly all of it idle.
        is_worth_it = spec.workers > 1 or on_gpu
        self.is_measured = spec.packs is None and is_worth_it and not spec.limits_cost
        self._largest = _LARGEST_ON_GPU if on_gpu else _LARGEST
        self._sizes: dict[_Key, int] = {}
        self._asked: set[_Key] = set()  # a worker is measuring
        self._failed: set[_Key] = set()

    def _key(self, settings: Params) -> _Key:
        """What one measurement speaks for."""
        return settings.get("architecture"), settings.get("batch_size"), settings.get("width")

    def _allowed(self, num_left: int) -> int:
        return 1 + int(_SHARE * num_left / self.spec.workers)

    def size(self, settings: Params, num_left: int) -> int:
        """How many trials like this a worker takes, where `num_left` more may be suggested."""
        key = self._key(settings)
        if key in self._failed or settings.get("in_packs") is False:
            return 1
        if self.spec.packs is not None:
            # The others want work too.
            return min(self.spec.packs, 1 + num_left // self.spec.workers)
        return min(self._sizes.get(key, 1), self._allowed(num_left)) if self.is_measured else 1

    def may_add(self, num_of_shape: int) -> bool:
        """Whether a companion may be suggested for trials of a shape that the sweep has had so many
        of; where N was asked for, always.
        """
        return self.spec.packs is not None or num_of_shape < self._most_of_shape

    @property
    def _most_of_shape(self) -> float:
        return max(2, _SHARE_OF_SHAPE * self.spec.trials)

    def to_measure(self, settings: Params, num_left: int) -> int:
        """The largest pack that the worker which trains this is to try; 1 where nothing is to be
        measured, or another does.
        """
        key = self._key(settings)
        largest = min(self._largest, self._allowed(num_left))
        is_known = key in self._sizes or key in self._asked
        if not self.is_measured or largest == 1 or is_known or settings.get("in_packs") is False:
            return 1
        self._asked.add(key)
        return largest

    def at_first(self, settings: Params) -> tuple[int, int]:
        """What a worker does with the first trial like this: how large a pack it trains, and up to
        which size it measures what is worth it (1: it does not).
        """
        num_left = self.spec.trials
        largest = min(self.to_measure(settings, num_left), int(self._most_of_shape))
        return self.size(settings, num_left), largest

    def measured(self, settings: Params, size: int) -> None:
        self._sizes[self._key(settings)] = size

    def not_measured(self, settings: Params) -> None:
        """A trial failed, maybe the one that measured: the next one may."""
        self._asked.discard(self._key(settings))

    def failed(self, settings: Params) -> None:
        """A pack of these went wrong: no more of them in this session."""
        self._failed.add(self._key(settings))
