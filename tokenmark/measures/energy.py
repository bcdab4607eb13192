"""Energy per image of a GPU, by NVML: the board's own counter, or its power sampled while it works.

Needs the extra `tokenmark[energy]` (nvidia-ml-py) and an NVIDIA device; without them there is no meter, and nothing is
recorded. What is measured is the whole board, its idle power and other people's work included.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tokenmark.measures.throughput import synchronize

MILLI = 1e-3
SHORTEST = 2.0
"""Seconds of one measurement: counters move only every tenth of a second or so."""


class Meter:
    """One device's meter. `nvml` is the module `pynvml`, initialised; `handle` is its device."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml, self._handle = nvml, handle
        try:
            nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
            self.counts = True
        except nvml.NVMLError:  # older than Volta: power alone
            nvml.nvmlDeviceGetPowerUsage(handle)
            self.counts = False

    def joules_per_call(self, call: Callable[[Tensor], Tensor], images: Tensor, seconds: float) -> float:
        """Mean joules of a call over at least this many seconds of nothing but such calls, queued without a pause."""
        synchronize(images.device)
        begun = self._joules()
        start = now = time.perf_counter()
        watts, sampled, calls = self._watts(), 0.0, 0
        while now - start < max(seconds, SHORTEST):
            call(images)
            calls += 1
            before, now = now, time.perf_counter()
            last, watts = watts, self._watts()
            sampled += (last + watts) / 2 * (now - before)
        synchronize(images.device)
        sampled += watts * (time.perf_counter() - now)
        return (self._joules() - begun if self.counts else sampled) / calls

    def _joules(self) -> float:
        return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) * MILLI if self.counts else 0.0

    def _watts(self) -> float:
        return 0.0 if self.counts else float(self._nvml.nvmlDeviceGetPowerUsage(self._handle)) * MILLI


def meter(device: torch.device) -> Meter | None:
    """The meter of a device; None where there is no such device, no NVML, or no permission to read it."""
    if device.type != "cuda":
        return None
    try:
        import pynvml  # noqa: PLC0415  an extra
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        # by UUID: NVML does not know CUDA_VISIBLE_DEVICES, and counts devices its own way
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        return Meter(pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid))
    except (pynvml.NVMLError, AttributeError):
        return None
