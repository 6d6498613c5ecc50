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


def check_room(
    cluster: Cluster, wanted: Resources, number: int, what: str = "trial", *, may_wait: bool = True
) -> str | None:
    """What is to be said where `number` of them that want so much each do not find room at a time.
    Raises ValueError where not even one ever will, or where those that do not may not `may_wait`:
    Ray would wait for them for ever.
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
            f"each {what} wants {spelt(wanted)}, and no node of the cluster at {cluster.address}"
            f" has that much ({len(cluster.nodes)} nodes, with at most"
            f" {' and '.join(f'{have:g} {kind}' for kind, have in most.items())}){growing}"
        )
    told = (
        f"the cluster has room for {room} {what}s at a time ({spelt(wanted)} each), {number} are"
        " wanted"
    )
    if may_come:
        return f"{told}; the cluster is asked for more nodes"
    if not may_wait:
        raise ValueError(f"{told}; run it with --workers {room}")
    return f"{told}; the others start when there is room, or when nodes are added"


def _most(cluster: Cluster, kind: str) -> float:
    return max((node.resources.get(kind, 0.0) for node in cluster.nodes), default=0.0)
