"""`--gpus-per-trial auto` on a cluster: measured by a task on a node that has a GPU to give. The
GPU here is a logical one, so that what is measured ends in words.
"""

import platform
from pathlib import Path

import pytest
import torch

from search.cluster.one_gpu import on_a_gpu, place_with_a_gpu
from tests.conftest import Corpus, names_in
from tests.search.cluster.ray_parts import ray_head
from tests.sweep_parts import call_inside, small_spec

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="as Ray finds its processes"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU would be measured"),
]


def test_a_node_with_a_gpu_measures_and_what_fails_there_is_said_here(
    corpus: Corpus, tmp_path: Path
) -> None:
    with ray_head("--num-cpus=6", "--num-gpus=2") as address:
        spec = small_spec(corpus, address=address, insecure=True)
        place, num_gpus = place_with_a_gpu(spec)
        assert num_gpus == 2
        assert on_a_gpu(place, spec, str) == "3.0"  # cores for each of them
        done = call_inside(
            *("search", "run", "quick", corpus.manifest.path, "--features", corpus.features_dir),
            *("--name", "none", "--runs", tmp_path / "runs", "--workers", 4),
            *("--address", address, "--insecure", "--gpus-per-trial", "auto"),
            status=2,
        )
    assert done.stderr == (
        f"error: --gpus-per-trial auto: PyTorch sees no GPU on {platform.node()}; name a share to"
        " go without, for example --gpus-per-trial 0.25\n"
    )
    assert names_in(tmp_path) == []
