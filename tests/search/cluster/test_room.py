"""Which clusters have room for a sweep's trials; without Ray."""

import sys

import pytest

from search.cluster.look import Cluster, Node
from search.cluster.room import all_slots, check_room, slots

ONE_GPU = {"CPU": 4.0, "GPU": 1.0, "memory": 1e10}
NO_GPU = {"CPU": 2.0, "memory": 1e10}


def cluster(
    *nodes: dict[str, float],
    grows: bool = False,
    may_add: tuple[dict[str, float], ...] | None = (),
) -> Cluster:
    seen = tuple(Node(f"10.0.0.{number}", node) for number, node in enumerate(nodes, start=1))
    return Cluster("10.0.0.1:6379", "2.60.0", "3.11.7", True, seen, grows, may_add)


def test_what_two_nodes_have_together_is_no_room_for_a_trial() -> None:
    assert slots(ONE_GPU, {"CPU": 1.0, "GPU": 0.25}) == 4
    assert slots(ONE_GPU, {"CPU": 1.0, "GPU": 0.1}) == 4
    assert slots({"CPU": 16.0, "GPU": 0.3}, {"CPU": 1.0, "GPU": 0.1}) == 3  # not 2.9999999999999996
    assert slots(ONE_GPU, {"CPU": 1.0, "GPU": 2.0}) == 0
    assert slots(NO_GPU, {"CPU": 1.0, "GPU": 0.0}) == 2
    assert slots(NO_GPU, {"GPU": 0.5}) == 0
    assert slots({}, {}) == sys.maxsize
    assert all_slots([ONE_GPU, ONE_GPU, NO_GPU], {"CPU": 1.0, "GPU": 0.5}) == 4


def test_what_can_never_fit_any_node_is_refused() -> None:
    with pytest.raises(ValueError) as refused:
        check_room(cluster(ONE_GPU, ONE_GPU), {"CPU": 1.0, "GPU": 2.0}, 1)
    assert str(refused.value) == (
        "each trial wants 1 CPU and 2 GPU, and no node of the cluster at 10.0.0.1:6379 has that"
        " much (2 nodes, with at most 4 CPU and 1 GPU)"
    )
    with pytest.raises(ValueError, match=r"\(0 nodes, with at most 0 CPU\)"):
        check_room(cluster(), {"CPU": 1.0}, 1)


def test_trials_that_wait_for_room_are_told() -> None:
    wanted = {"CPU": 1.0, "GPU": 0.5}
    assert check_room(cluster(ONE_GPU, ONE_GPU), wanted, 4) is None
    assert check_room(cluster(ONE_GPU, ONE_GPU), wanted, 8) == (
        "the cluster has room for 4 trials at a time (1 CPU and 0.5 GPU each), 8 are wanted; the"
        " others start when there is room, or when nodes are added"
    )


def test_actors_that_may_not_wait_are_refused_with_the_number_that_finds_room() -> None:
    with pytest.raises(ValueError) as refused:
        check_room(cluster(NO_GPU), {"CPU": 1.0}, 3, "actor", may_wait=False)
    assert str(refused.value) == (
        "the cluster has room for 2 actors at a time (1 CPU each), 3 are wanted; run it with"
        " --workers 2"
    )
    grows = cluster(NO_GPU, grows=True, may_add=None)
    assert check_room(grows, {"CPU": 1.0}, 3, "actor", may_wait=False) is not None


@pytest.mark.parametrize("may_add", [None, (NO_GPU, ONE_GPU)], ids=["unknown", "known"])
def test_a_cluster_that_grows_from_nothing_is_not_refused(
    may_add: tuple[dict[str, float], ...] | None,
) -> None:
    told = check_room(cluster({}, grows=True, may_add=may_add), {"CPU": 1.0, "GPU": 1.0}, 2)
    assert told is not None
    assert told.startswith("the cluster has room for 0 trials at a time")
    assert told.endswith("; the cluster is asked for more nodes")


def test_nor_is_one_refused_less_that_cannot_grow_to_what_is_wanted() -> None:
    grows = cluster({}, grows=True, may_add=(NO_GPU, ONE_GPU))
    with pytest.raises(ValueError, match=r", and none that its autoscaler may add has$"):
        check_room(grows, {"CPU": 1.0, "GPU": 2.0}, 1)


def test_what_was_seen_crosses_to_the_process_that_asked() -> None:
    for may_add in (None, (), (NO_GPU,)):
        seen = cluster(ONE_GPU, NO_GPU, grows=may_add != (), may_add=may_add)
        assert Cluster.from_json(seen.as_json()) == seen
