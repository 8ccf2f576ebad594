"""Patch merging: each 2×2 patch of tokens becomes one token.

Paper: Liu et al., "Swin Transformer", section 3.1, https://arxiv.org/abs/2103.14030. The channels of a patch stand in
the order top left, bottom left, top right, bottom right, as released.

Differences: none known. A map of odd height or width is padded with zeros below or on the right.

B images, C channels, H x W map.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from archspec.layout import Grid
from archspec.registry import register

from .window_attention import pad_to_windows


@register("downsample", "patch_merging", layout="map")
class PatchMerging(nn.Module):
    """LayerNorm and a linear without bias over the channels of each 2×2 patch."""

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * in_width)
        self.reduction = nn.Linear(4 * in_width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_width, H, W) -> (B, C, ceil(H/2), ceil(W/2))."""
        x = pad_to_windows(x.permute(0, 2, 3, 1), 2)
        patches = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).permute(0, 1, 3, 4, 2, 5)  # (B, H/2, W/2, x, y, C)
        return self.reduction(self.norm(patches.flatten(3))).permute(0, 3, 1, 2)

    @staticmethod
    def output_grid(grid: Grid, options: Mapping[str, Any]) -> Grid:
        """(height, width) of the map it makes of this one."""
        return -(-grid[0] // 2), -(-grid[1] // 2)
