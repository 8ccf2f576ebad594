"""The memory that a network needs at its peak: its weights, and what a run adds."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path
from typing import Protocol

import torch

from archspec.latency.setting import Setting

_SELF = Path("/proc/self")


class Peak(Protocol):
    """Made before the network is; `bytes` after a run."""

    def bytes(self) -> int | None:
        """The most that was in use since, beyond what was in use at first; None where nobody can tell."""


class CudaPeak:
    """What torch's allocator held at most (`torch.cuda.max_memory_allocated`)."""

    def __init__(self) -> None:
        gc.collect()
        self._before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()

    def bytes(self) -> int | None:
        """Bytes of tensors."""
        return torch.cuda.max_memory_allocated() - self._before


class ProcessPeak:
    """On Linux: the process's peak resident memory. The first network of a process pays for libraries, some 15 MiB."""

    def __init__(self) -> None:
        gc.collect()
        _give_back()
        self._before = _status("VmRSS") if _forget_peak() else None

    def bytes(self) -> int | None:
        """Bytes of pages."""
        peak = _status("VmHWM")
        return None if peak is None or self._before is None else max(peak - self._before, 0)


def peak_of(setting: Setting) -> Peak:
    """Begin to watch the memory of a setting's device."""
    return CudaPeak() if setting.is_cuda else ProcessPeak()


def _forget_peak() -> bool:
    try:
        (_SELF / "clear_refs").write_text("5")  # the peak is counted from here
    except OSError:
        return False
    return True


def _status(key: str) -> int | None:
    try:
        lines = (_SELF / "status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), None)


def _give_back() -> None:
    """What was freed goes back to the system, where the C library can do that, and counts as growth when it returns."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):
        return
