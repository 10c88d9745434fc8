"""The most memory that some work holds at a time, beyond what was held before it."""

import ctypes
import gc
import sys
from collections.abc import Callable
from pathlib import Path

import torch

PEAK_RESET = "5"
"""Written to ``clear_refs``, it sets the highest resident size to the present one (Linux, proc(5))."""


def peak_bytes(work: Callable[[], object], device: torch.device) -> int | None:
    """Bytes that ``work`` needs on a device, or of this process's memory on the CPU.

    Returns:
        None where the system does not say.
    """
    gc.collect()
    if device.type == "cuda":
        return _on_cuda(work, device)
    if device.type == "cpu" and sys.platform == "linux":
        return _on_linux(work)
    return None


def _on_cuda(work: Callable[[], object], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _on_linux(work: Callable[[], object]) -> int | None:
    # What earlier work has freed would otherwise be there before, and hide what this work takes.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    try:
        Path("/proc/self/clear_refs").write_text(PEAK_RESET)
    except OSError:
        return None
    before = _status_bytes("VmRSS")
    work()
    return _status_bytes("VmHWM") - before


def _status_bytes(field: str) -> int:
    """A size in ``/proc/self/status``, which has it in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
