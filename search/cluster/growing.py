"""How many seats a cluster has room for while its nodes come and go, and asking for more of them
where it grows when it is asked.
"""

import time
from collections.abc import Callable
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group

from search.cluster.room import Resources, all_slots

_LOOK_S = 2.0  # between looks at the nodes


class Growing:
    """Follows the nodes of the cluster that is connected.

    What is asked for is asked for by placement groups, which end with this process however it ends.
    `ray.autoscaler.sdk.request_resources` would go on asking, and its nodes go on costing, until
    somebody takes it back.
    """

    def __init__(
        self, wanted: Resources, most: int, grows: bool, tell: Callable[[str], None]
    ) -> None:
        """`most` seats that want so much each; `tell` is told whenever there is room for another
        number of them.
        """
        self.wanted = {kind: number for kind, number in wanted.items() if number}
        self.most, self.grows, self.tell = most, grows, tell
        self._asked: list[Any] = []
        self._slots, self._looked = 0, 0.0
        self._told: int | None = None

    def slots(self) -> int:
        """How many seats there is room for, whoever has it now; at most two seconds old."""
        if not self._looked or time.monotonic() - self._looked > _LOOK_S:
            self._looked = time.monotonic()
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            self._slots = min(self.most, all_slots(nodes, self.wanted))
            if self.grows:
                self._ask(self.most - self._slots)
            if self._told is None:  # before the first trial it has been told
                self._told = self._slots
            if self._slots != self._told:
                self._told = self._slots
                self.tell(f"the cluster has room for {self._slots} of {self.most} trials now")
        return self._slots

    def _ask(self, number: int) -> None:
        """Ask for room for so many seats more than there is room for."""
        while len(self._asked) < number:
            self._asked.append(placement_group([dict(self.wanted)]))
        while len(self._asked) > number:
            # One that has got its room gives it to a seat, one that has not asks no more.
            remove_placement_group(self._asked.pop(0))
