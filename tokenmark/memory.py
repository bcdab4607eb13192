"""Peak memory of one run: the device's own count, or the process's resident high-water mark."""

import gc
from pathlib import Path

import psutil
import torch


def reset_peak(device: torch.device) -> None:
    """Begin to count anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:  # Linux: "5" resets the process's high-water mark, see proc(5)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def peak(device: torch.device) -> int:
    """Bytes at the highest point since the last reset (since the process began, where it cannot be reset)."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        return int(psutil.Process().memory_info().rss)


def release() -> None:
    """Give back what can be given back, before a second try."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
