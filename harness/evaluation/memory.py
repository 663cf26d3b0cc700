"""The most memory that was held while something ran: the device's on a GPU, this process's elsewhere."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path


def reset_peak(device: str) -> None:
    """Starts measuring anew where the system can: CUDA and Linux. Elsewhere the peak is the process's so far."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        with contextlib.suppress(OSError):  # some containers forbid it
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_bytes(device: str) -> int:
    """Bytes at the peak since :func:`reset_peak`: allocated by torch on a GPU, resident in memory elsewhere."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    if sys.platform == "linux":
        with contextlib.suppress(OSError, StopIteration):
            lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
            return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
    try:
        import resource
    except ImportError:  # Windows
        return 0
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else 1024 * used


def keep_pages() -> None:
    """Lets the C library keep memory that torch has given back, where that can be asked for (glibc).

    By default every tensor beyond a size is mapped anew, and its pages cleared by the kernel: on small models that
    takes as long as the arithmetic.
    """
    import ctypes

    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(-1, 256 * 1024**2)  # M_TRIM_THRESHOLD
            mallopt(-3, 64 * 1024**2)  # M_MMAP_THRESHOLD
