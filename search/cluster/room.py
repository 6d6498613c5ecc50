"""How many trials find room on a cluster at a time. A trial has to fit on one node: what two have
together is of no use to it.
"""

import sys
from collections.abc import Iterable, Mapping

from search.cluster.look import Cluster

Resources = Mapping[str, float]
_EPSILON = 1e-6  # a tenth three times is not three tenths


def slots(have: Resources, wanted: Resources) -> int:
    """How many trials that want so much of each resource fit into what one node has."""
    parts = [
        int(have.get(kind, 0.0) / number + _EPSILON) for kind, number in wanted.items() if number
    ]
    return min(parts, default=sys.maxsize)


def all_slots(nodes: Iterable[Resources], wanted: Resources) -> int:
    return min(sys.maxsize, sum(slots(node, wanted) for node in nodes))


def spelt(resources: Resources) -> str:
    """`1 CPU and 0.25 GPU`."""
    return " and ".join(f"{number:g} {kind}" for kind, number in resources.items() if number)


def check_room(cluster: Cluster, wanted: Resources, number: int) -> str | None:
    """What is to be said where `number` trials that want so much each do not find room at a time.
    Raises ValueError where not even one ever will: Ray would wait for it for ever.
    """
    room = all_slots((node.resources for node in cluster.nodes), wanted)
    if room >= number:
        return None
    may_come = cluster.grows and (
        cluster.may_add is None or any(slots(node, wanted) for node in cluster.may_add)
    )
    if not room and not may_come:
        most = {kind: _most(cluster, kind) for kind, number in wanted.items() if number}
        growing = "" if not cluster.grows else ", and none that its autoscaler may add has"
        raise ValueError(
            f"a trial wants {spelt(wanted)}, and no node of the cluster at {cluster.address} has"
            f" that much ({len(cluster.nodes)} nodes, with at most"
            f" {' and '.join(f'{have:g} {kind}' for kind, have in most.items())}){growing}"
        )
    waits = (
        "the cluster is asked for more nodes"
        if may_come
        else "the others start when there is room, or when nodes are added"
    )
    return (
        f"the cluster has room for {room} trials at a time ({spelt(wanted)} each), {number} are"
        f" wanted; {waits}"
    )


def _most(cluster: Cluster, kind: str) -> float:
    return max((node.resources.get(kind, 0.0) for node in cluster.nodes), default=0.0)
