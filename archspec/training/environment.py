"""On what a run was started: versions, devices, threads. No names of machines, users or folders."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from typing import Any

import torch

import archspec
from archspec.training.distributed import Group

PACKAGES = ("torch", "torchvision", "timm", "numpy", "safetensors")


def describe(group: Group) -> dict[str, Any]:
    """What run folders keep."""
    cuda = group.device.type == "cuda"
    return {
        "archspec": archspec.__version__,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(group.device) if cuda else group.device.type,
        "cuda": torch.version.cuda if cuda else None,
        "processes": group.world,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }
