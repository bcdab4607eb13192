"""Peak memory of one run: the device's own count, or the process's resident high-water mark."""

import gc
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

_before: dict[torch.device, int] = {}
"""The highest point of a run before its count on the device was set back for a single call."""


def reset_peak(device: torch.device) -> None:
    """Begin to count anew."""
    if device.type == "cuda":
        _before.pop(device, None)
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:  # Linux: "5" resets the process's high-water mark, see proc(5)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def peak(device: torch.device) -> int:
    """Bytes at the highest point since the last reset (since the process began, where it cannot be reset)."""
    if device.type == "cuda":
        return max(int(torch.cuda.max_memory_allocated(device)), _before.get(device, 0))
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        return int(psutil.Process().memory_info().rss)


def of_call(device: torch.device, call: Callable[[], object]) -> int | None:
    """Bytes that one call has at its highest point on top of what lies on the device already.

    None on a processor: the process's high-water mark holds whatever ran before, and says nothing of one call.
    """
    if device.type != "cuda":
        return None
    _before[device] = peak(device)
    torch.cuda.reset_peak_memory_stats(device)
    resting = int(torch.cuda.memory_allocated(device))
    call()
    torch.cuda.synchronize(device)
    return int(torch.cuda.max_memory_allocated(device)) - resting


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on a processor."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return "can't allocate memory" in text or "not enough memory" in text or "out of memory" in text


def release() -> None:
    """Give back what can be given back, before a second try."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
