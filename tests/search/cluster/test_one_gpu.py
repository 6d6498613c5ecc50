"""`--gpus-per-trial auto` on a cluster: measured by a task on a node that has a GPU to give. The
GPUs here are logical, so that what is measured is the CPU.
"""

import functools
from pathlib import Path

import pytest

from search.cluster.one_gpu import on_a_gpu, place_with_a_gpu
from search.plan.checks import check
from search.plan.gpu_cases import job_of
from search.plan.gpu_share import measure_there
from tests.conftest import Corpus, names_in
from tests.search.cluster.ray_parts import ray_head
from tests.sweep_parts import call, small_spec, write_space

SPACE = """
def suggest(trial):
    return {
        "architecture": "vanilla_concat",
        "batch_size": trial.suggest_categorical("batch_size", [2, 8]),
        "classifier_hidden": 12,
    }
"""


@pytest.mark.chaos
@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="as Ray finds its processes")
def test_trials_are_measured_on_a_node(corpus: Corpus, tmp_path: Path) -> None:
    space = write_space(tmp_path / "space.py", SPACE)
    spec = small_spec(corpus, space=space, packs=1)
    job = job_of(check(spec), device="cpu")
    with ray_head("--num-cpus=4", "--num-gpus=2") as address:
        spec = small_spec(corpus, space=space, packs=1, address=address)
        place, num_gpus = place_with_a_gpu(spec)
        assert num_gpus == 2
        found = on_a_gpu(place, spec, functools.partial(measure_there, job, 16, None, None))
        assert found.most_that_fit == 2  # of the node's four cores, for each of its GPUs
        assert [one.case.settings["batch_size"] for one in found.rehearsed[1].taken] == [2, 8]
        done = call(
            *("search", "run", space, corpus.manifest.path, "--features", corpus.features_dir),
            *("--name", "none", "--runs", tmp_path / "runs", "--workers", 4),
            *("--address", address, "--gpus-per-trial", "auto"),
            status=2,
        )
    assert done.stderr == (
        "error: --gpus-per-trial auto: device 'cuda' asked for, but this machine has 0 usable GPUs;"
        " use --device cpu; name a share to go without, for example --gpus-per-trial 0.25\n"
    )
    assert names_in(tmp_path) == ["space.py"]
