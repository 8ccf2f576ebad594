"""Between tokens (B, N, C) and maps (B, C, H, W). Both are views of the same channels-last memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Grid = tuple[int, int]


def to_map(x: Tensor, grid: Grid) -> Tensor:
    """(B, H*W, C) -> (B, C, H, W), a view in channels-last memory."""
    nhwc: Tensor = x.unflatten(1, grid)
    return nhwc.permute(0, 3, 1, 2)


def to_tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H*W, C), contiguous; no copy when the map is channels-last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2).contiguous()


def convolved(size: int, kernel: int, stride: int, padding: int) -> int:
    """Length of a convolution's output along one axis (zero or less where the input is too small)."""
    return (size + 2 * padding - kernel) // stride + 1
