"""Memory that tensors free stays with the process, and is given back when asked."""

import subprocess
import sys

import pytest

_PROGRAM = """
import resource, sys
import torch
from mmm.memory import give_back, keep_freed_memory

def resident_mb():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) // 1024

def faults_of_a_tensor():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(50_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

kept = keep_freed_memory()
faults_of_a_tensor()
again = faults_of_a_tensor()
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
    assert int(faults) < 1000  # 48,828 pages
    assert int(given_back_mb) > 150
