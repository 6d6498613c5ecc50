"""Most of the memory that tensors free stays with the process, and is given back when asked."""

import subprocess
import sys

import pytest

_PROGRAM = """
import resource, sys
import torch
from mmm.memory import give_back, keep_freed_memory

def resident_mb():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) // 1024

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
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True, timeout=100)
    kept, faults, given_back_mb = done.stdout.split()
    if kept == "False":
        pytest.skip("the C library here is not glibc")
    assert int(faults) < 15_000  # of 58,593 pages
    assert int(given_back_mb) > 150
