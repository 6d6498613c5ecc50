"""How many seats a cluster has room for while its nodes come and go and others use it, and asking
for more of them where it grows when it is asked.
"""

import time
from collections.abc import Callable
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group

from search.cluster.deaths import leaving
from search.cluster.fitness import Fitness
from search.cluster.room import Resources, all_slots, slots

_NODES_S = 2.0  # between looks at the nodes
_FITNESS_S = 0.1  # while the answer of one is awaited
_FREE_S = 0.2  # between looks at what is free on them
# After which what a seat has taken is seen to be taken; Tune may sleep for a second before that.
_SEEN_S = 2.0
_TELL_S = 10.0  # of waiting


class Growing:
    """Follows the nodes of the cluster that is connected.

    What is asked for is asked for by placement groups, which end with this process however it ends.
    `ray.autoscaler.sdk.request_resources` would go on asking, and its nodes go on costing, until
    somebody takes it back.
    """

    def __init__(
        self,
        wanted: Resources,
        most: int,
        grows: bool,
        fitness: Fitness,
        tell: Callable[[str], None],
    ) -> None:
        """`most` seats that want so much each; `tell` is told whenever there is room for another
        number of them, and when they wait for what others have.
        """
        self.wanted = {kind: number for kind, number in wanted.items() if number}
        self.most, self.grows, self.fitness, self.tell = most, grows, fitness, tell
        self.unfit: list[str] = []  # ids of nodes that are not to be used, or not yet
        self._fit: set[str] = set()
        self._asked: list[Any] = []
        self._slots = self._free = 0
        self._nodes_seen = self._free_seen = -_NODES_S
        self._told: int | None = None
        self._begun: list[float] = []
        self._waits_since: float | None = None
        self._told_of_waiting: int | None = None

    def may_begin(self, num_seats: int) -> bool:
        """Whether there is room for one more beside `num_seats`; if so it is taken to be begun."""
        now = time.monotonic()
        if now - self._nodes_seen > (_FITNESS_S if self.fitness.is_looking else _NODES_S):
            self._nodes_seen = now
            self._look_at_nodes()
        if num_seats >= self._slots:
            self._waits_since = None
            return False
        if now - self._free_seen > _FREE_S:
            self._free_seen = now
            free = ray._private.state.available_resources_per_node()
            fit = [have for node, have in free.items() if node in self._fit]
            self._free = all_slots(fit, self.wanted)
        self._begun = [begun for begun in self._begun if now - begun < _SEEN_S]
        if self._free > len(self._begun):
            self._begun.append(now)
            self._waits_since = None
            return True
        if not self._begun:
            self._wait(now, num_seats)
        return False

    def wait(self) -> None:
        """Until one node is known to be fit, or of each node whether it is."""
        self._look_at_nodes()
        while self.fitness.is_looking and not self._slots:
            self.fitness.wait()
            self._look_at_nodes()

    @property
    def is_hopeless(self) -> bool:
        """Whether there are nodes, none of which may train, and no others can be had."""
        return bool(self.unfit and not self._fit and not self.grows and not self.fitness.is_looking)

    def _look_at_nodes(self) -> None:
        nodes = ray.nodes()
        gone = leaving(nodes)
        nodes = [
            node
            for node in nodes
            if node["NodeID"] not in gone and slots(node["Resources"], self.wanted)
        ]
        fit = self.fitness.fit(nodes)
        self._fit = {node["NodeID"] for node in fit}
        self.unfit = [node["NodeID"] for node in nodes if node["NodeID"] not in self._fit]
        self._slots = min(self.most, all_slots([node["Resources"] for node in fit], self.wanted))
        if self.fitness.is_looking:
            return  # more may be known in a moment
        if self.grows:
            self._ask(self.most - self._slots)
        if self._told is None:  # before the first trial it has been told
            self._told = self._slots
        if self._slots != self._told:
            self._told = self._slots
            self.tell(f"the cluster has room for {self._slots} of {self.most} trials now")

    def _wait(self, now: float, num_seats: int) -> None:
        if self._waits_since is None:
            self._waits_since = now
        elif now - self._waits_since > _TELL_S and self._told_of_waiting != num_seats:
            self._told_of_waiting = num_seats
            self.tell(
                f"{num_seats} trials at a time are trained, {self._slots} would find room:"
                f" {self._slots - num_seats} wait for CPUs or GPUs that others have"
            )

    def _ask(self, number: int) -> None:
        """Ask for room for so many seats more than there is room for."""
        while len(self._asked) < number:
            self._asked.append(placement_group([dict(self.wanted)]))
        while len(self._asked) > number:
            # One that has got its room gives it to a seat, one that has not asks no more.
            remove_placement_group(self._asked.pop(0))
