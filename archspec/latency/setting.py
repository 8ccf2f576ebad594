"""On what and how a network runs while it is timed. Times of different settings are never put together."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

import torch

import archspec
from archspec.errors import UsageError

Mode = Literal["eval", "train"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Device, threads and step. `archspec` and `torch` are versions: other code takes another time."""

    device: str  # "cpu", or "cuda:0"
    device_name: str
    threads: int
    mode: Mode
    batch: int
    dtype: str = "float32"
    torch: str
    archspec: str

    def __str__(self) -> str:
        step = "evaluation" if self.mode == "eval" else "training step"
        threads = f"{self.threads} thread{'s' * (self.threads != 1)}"
        device = f"{self.device_name} ({self.device})"
        return f"{device}, {threads}, {step}, batch {self.batch}, {self.dtype}, torch {self.torch}"

    @property
    def is_cuda(self) -> bool:
        """Whether it runs on one of NVIDIA's GPUs (or AMD's, which torch calls by the same name)."""
        return self.device.startswith("cuda")

    def differences(self, other: Setting) -> list[str]:
        """`threads: 2, not 4` for each thing in which the other differs; which of several equal GPUs it is, is none."""
        ours, theirs = asdict(self), asdict(other)
        if self.is_cuda and other.is_cuda:
            theirs["device"] = self.device
        names = [field.name for field in fields(self) if ours[field.name] != theirs[field.name]]
        return [f"{name}: {ours[name]}, not {theirs[name]}" for name in names]


def setting_here(*, device: str = "auto", threads: int | None = None, mode: Mode = "eval", batch: int = 1) -> Setting:
    """The setting on this machine. threads: torch's own number when left out.

    Raises UsageError for a device that is not here, or that cannot be timed.
    """
    found = _find_device(device)
    return Setting(
        device=str(found),
        device_name=_cpu_name() if found.type == "cpu" else torch.cuda.get_device_name(found),
        threads=threads or torch.get_num_threads(),
        mode=mode,
        batch=batch,
        torch=torch.__version__,
        archspec=archspec.__version__,
    )


@contextmanager
def applied(setting: Setting) -> Iterator[None]:
    """Inside, torch uses the setting's threads and, where it has one, its GPU."""
    threads = torch.get_num_threads()
    torch.set_num_threads(setting.threads)
    try:
        with torch.cuda.device(torch.device(setting.device)) if setting.is_cuda else nullcontext():
            yield
    finally:
        torch.set_num_threads(threads)


def _find_device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.empty(1, device=name).device  # with its index, for a GPU
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise UsageError(f"device: {name!r} cannot be used here: {reason} (try auto or cpu)") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"device: {name!r} cannot be timed; there are clocks for cpu and cuda")
    return device


def _cpu_name() -> str:
    """As Linux tells it, or what Python knows."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine() or "CPU"
