"""Random numbers as a function of where the run stands: a run that is taken up needs none of those before.

timm's Mixup draws from NumPy, dropout from torch, others may draw from Python: all three are seeded before each step,
and given back as they were found when the run is over.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from archspec.training.data.stream import seed_of


def seed_all(device: torch.device, *parts: int) -> None:
    """Seed Python's, NumPy's and torch's generators, and the GPU's, from numbers such as seed, epoch and step.

    Not by `torch.manual_seed`: where no GPU has been used yet, it takes note of the whole stack for later.
    """
    seed = seed_of(*parts)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


@contextmanager
def given_back(device: torch.device) -> Iterator[None]:
    """Inside, `seed_all` may be called for that device; afterwards the global generators are as they were."""
    python, arrays = random.getstate(), np.random.get_state()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(arrays)
