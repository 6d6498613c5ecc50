"""`--gpus-per-trial auto`: how many trials share a GPU, measured where the sweep will train."""

import functools
import math
from dataclasses import replace

from mmm.console import PlainConsole
from mmm.training.config import Params
from search.ledger.spec import SweepSpec


def with_measured_share(spec: SweepSpec, given: Params, console: PlainConsole) -> SweepSpec:
    """A new sweep's specification with the share of a GPU that was measured. `given`: the
    options; on this machine there are no more workers than find room.

    Raises ValueError where there is no GPU, and for all that keeps the sweep from running.
    """
    from mmm.device import cpus_here
    from search.plan.checks import check
    from search.plan.gpu_cases import job_of
    from search.plan.gpu_share import MOST, gpus_here, limit, measure, measure_there, with_share

    workers = given.get("workers")
    assert workers is None or isinstance(workers, int)
    num_gpus = gpus_here() if spec.address is None else None
    job = job_of(check(replace(spec, gpus_per_trial=1.0, workers=1)))
    wanted = min(spec.trials, workers or spec.trials)
    with console.status("measuring how many trials a GPU carries"):
        if num_gpus is not None:
            share = measure(job, limit(wanted, num_gpus, cpus_here()))
        else:
            from search.cluster.one_gpu import on_a_gpu, place_with_a_gpu

            place, there = place_with_a_gpu(spec)
            # Of its cores a node knows best.
            most = MOST if math.isinf(there) else limit(wanted, there, MOST * there)
            given_there = job, most, spec.features_url, spec.cache
            share = on_a_gpu(place, spec, functools.partial(measure_there, *given_there))
    console.say(str(share))
    return with_share(spec, share, workers, num_gpus)
