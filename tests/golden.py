"""The released networks in small: on this image they must give the logits in tests/data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

DATA = Path(__file__).parent / "data"


def image() -> Tensor:
    """(2, 3, 224, 224) in float64, rounded to float32 and back."""
    i = torch.arange(2 * 3 * 224 * 224, dtype=torch.float64)
    return (torch.sin(0.37 * i) + 0.5 * torch.cos(0.011 * i + 1)).view(2, 3, 224, 224).float().double()


def expected(name: str) -> dict[str, Any]:
    """`params` and `logits` of a network."""
    return json.loads((DATA / f"{name}.json").read_text())
