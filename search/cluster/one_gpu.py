"""Something run once, on a node of the cluster that has a GPU to give."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from search.cluster.connect import Place, ray_on, reach, wanted_by
from search.ledger.spec import SweepSpec

_Result = TypeVar("_Result")
_WAIT_S = 600.0  # for a GPU that others use or that is not there yet, and for what is run


def place_with_a_gpu(spec: SweepSpec) -> tuple[Place, float]:
    """The cluster that a sweep names, and how many GPUs it has; without end where it grows. Raises
    ValueError where none of its nodes has one.
    """
    wanted = wanted_by(replace(spec, gpus_per_trial=1.0), threads=1)
    place = reach(spec.address, wanted, 1, insecure=spec.insecure)
    if place.cluster is None or place.cluster.grows:
        return place, math.inf
    return place, sum(node.resources.get("GPU", 0.0) for node in place.cluster.nodes)


def on_a_gpu(place: Place, spec: SweepSpec, what: Callable[[float], _Result]) -> _Result:
    """What `what` returns on a node, where it has a whole GPU and is told how many cores there are
    for each of the node's GPUs.

    Raises ValueError where that takes too long, and what `what` raises of that kind.
    """
    with ray_on(place, replace(spec, gpus_per_trial=1.0, workers=1), threads=1):
        import ray  # which reads an environment that is set by now

        reference = ray.remote(num_cpus=1, num_gpus=1, max_retries=0)(_there).remote(what)
        ready, _ = ray.wait([reference], timeout=_WAIT_S)
        if not ready:
            ray.cancel(reference, force=True)
            raise ValueError(
                f"--gpus-per-trial auto: no GPU of the cluster was measured within {_WAIT_S:g} s;"
                " name a share, for example --gpus-per-trial 0.25"
            )
        try:
            result: _Result = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            raise (
                error.cause if isinstance(error.cause, ValueError | FileNotFoundError) else error
            ) from None
        except ray.exceptions.RayError as error:  # the node died
            raise ValueError(
                "--gpus-per-trial auto: the node that measured is gone"
                f" ({str(error).splitlines()[0]}); run the command again"
            ) from error
    return result


def _there(what: Callable[[float], _Result]) -> _Result:
    """Runs on a node."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    resources = next(node["Resources"] for node in ray.nodes() if node["NodeID"] == here)
    return what(resources["CPU"] / max(1.0, resources["GPU"]))
