"""Peak memory of the process."""

import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from tokenmark import memory

CPU = torch.device("cpu")
BIG = 256 << 20


def test_peak_remembers_what_was_freed():
    memory.reset_peak(CPU)
    before = memory.peak(CPU)
    block = np.ones(BIG, np.uint8)
    del block
    memory.release()
    grown = memory.peak(CPU) - before
    if sys.platform == "linux":
        assert grown > 0.5 * BIG
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
