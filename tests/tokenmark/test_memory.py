"""Peak memory of the process."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from tokenmark import memory

CPU = torch.device("cpu")
BIG = 256 << 20


FREED = """
import numpy, torch
from tokenmark import memory
cpu = torch.device("cpu")
memory.reset_peak(cpu)
before = memory.peak(cpu)
block = numpy.ones({big}, numpy.uint8)
del block
memory.release()
print(memory.peak(cpu) - before)
"""


def test_peak_remembers_what_was_freed():
    """In a process of its own: one that held more before has room for the block without growing."""
    done = subprocess.run([sys.executable, "-c", FREED.format(big=BIG)], capture_output=True, text=True, check=True)
    if sys.platform == "linux":
        assert int(done.stdout) > 0.5 * BIG
    assert memory.peak(CPU) >= psutil.Process().memory_info().rss * 0.5


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux lets a process reset its peak")
def test_peak_is_of_one_run_alone():
    block = np.ones(BIG, np.uint8)
    del block
    high = memory.peak(CPU)
    memory.reset_peak(CPU)
    rss = psutil.Process().memory_info().rss
    assert memory.peak(CPU) <= max(high, rss * 1.1)
    assert memory.peak(CPU) >= rss * 0.9


class MadeCuda:
    """A device whose allocator counts what a call says that it takes."""

    def __init__(self):
        self.now = self.high = 0

    def hold(self, count):
        self.now += count
        self.high = max(self.high, self.now)

    def use(self, count):
        self.hold(count)
        self.now -= count

    def max_memory_allocated(self, device):
        return self.high

    def memory_allocated(self, device):
        return self.now

    def reset_peak_memory_stats(self, device):
        self.high = self.now

    def synchronize(self, device):
        pass


def test_the_peak_of_a_call_leaves_out_what_lies_there_and_the_run_keeps_its_own(monkeypatch):
    made, device = MadeCuda(), torch.device("cuda", 0)
    monkeypatch.setattr(torch, "cuda", made)
    memory.reset_peak(device)
    made.hold(100)  # weights
    made.use(900)
    assert memory.of_call(device, lambda: made.use(30)) == 30
    assert memory.of_call(device, lambda: made.use(50)) == 50
    assert memory.peak(device) == 1000
    made.use(2000)
    assert memory.peak(device) == 2100
    memory.reset_peak(device)
    assert memory.peak(device) == 100


def test_a_processor_tells_nothing_of_a_single_call():
    assert memory.of_call(CPU, lambda: pytest.fail("called for nothing")) is None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"), True),
        (RuntimeError("shapes cannot be multiplied"), False),
        (KeyError("memory"), False),
    ],
)
def test_what_counts_as_running_out(error, expected):
    assert memory.ran_out(error) is expected
