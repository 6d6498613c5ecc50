"""Most of the memory that tensors free stays with the process, is used again, and is given back
when asked.
"""

import os
import platform
import subprocess
import sys

import pytest

from mmm.training.malloc import reusing_holes

_PROGRAM = """
import resource, sys
import torch
from mmm.training.malloc import give_back, keep_freed_memory

def resident_mb():
    lines = open("/proc/self/status")
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) // 1024

def faults_of_a_step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    activations = [torch.ones(10_000_000)]
    for _ in range(5):
        activations.append(activations[-1] * 2)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

kept = keep_freed_memory()
for _ in range(4):
    faults_of_a_step()
again = faults_of_a_step()
held = resident_mb()
give_back()
print(kept, again, held - resident_mb())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_freed_tensors_pages_are_used_again_until_they_are_given_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True, timeout=100
    )
    kept, faults, given_back_mb = done.stdout.split()
    if kept == "False":
        pytest.skip("the C library here is not glibc")
    assert int(faults) < 15_000  # of 58,593 pages
    assert int(given_back_mb) > 150


_TRAINING = """
import random
import torch
from mmm.training.malloc import keep_freed_memory
from mmm.models import ARCHITECTURES

def own_mb():
    lines = open("/proc/self/status")
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024

keep_freed_memory()
torch.set_num_threads(1)
torch.manual_seed(0)
random.seed(0)
model = ARCHITECTURES["mlp_mixer"](
    speech_width=64, text_width=64, speech_positions=300, text_positions=100, num_classes=7,
    width=64, num_blocks=1,
    classifier_hidden=64, masked=True, residual="standard")

def step(longest):
    inputs = []
    for positions in (longest, longest // 3):
        mask = torch.arange(positions) < torch.randint(positions // 2, positions, (16, 1))
        inputs += [torch.ones(16, positions, 64), mask]
    model(*inputs).sum().backward()

step(300)
before = own_mb()
for _ in range(160):
    step(random.randrange(30, 300))
print(own_mb() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library here is not glibc")
def test_training_on_batches_of_many_lengths_does_not_grow() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    environment |= reusing_holes(environment)
    command = [sys.executable, "-c", _TRAINING]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=100, env=environment
    )
    assert float(done.stdout) < 35  # 68 to 76 MB with glibc 2.36 as it comes, 16 so


def test_what_the_user_has_chosen_for_the_heap_stays() -> None:
    ours = "glibc.malloc.tcache_count=0:glibc.malloc.arena_max=1"
    assert reusing_holes({}) == {"GLIBC_TUNABLES": ours}
    assert reusing_holes({"GLIBC_TUNABLES": "glibc.malloc.perturb=1"}) == {
        "GLIBC_TUNABLES": f"glibc.malloc.perturb=1:{ours}"
    }
    chosen = "glibc.malloc.tcache_count=7"
    assert reusing_holes({"GLIBC_TUNABLES": chosen}) == {
        "GLIBC_TUNABLES": f"{chosen}:glibc.malloc.arena_max=1"
    }
    assert reusing_holes({"GLIBC_TUNABLES": ours}) == {}


@pytest.mark.skipif(sys.platform != "linux", reason="nothing to restart for elsewhere")
def test_a_command_starts_again_with_its_own_arguments_once() -> None:
    program = (
        "import os, sys; from mmm.training.malloc import restart_reusing_holes;"
        " print(len(sys.argv),"
        " flush=True); restart_reusing_holes()"
    )
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    done = subprocess.run(
        [sys.executable, "-c", program, "a b", ""],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert done.stdout.split() == ["3", "3"]
