"""Bilinear patch embedding: half of the positions, each sampled where a learned offset points to.

Paper: Vo, "Efficient Vision Transformers with Multi-Scale and Partial Attentions for Object Recognition", dissertation
(2023), section 4.3.2 and figure 4.3. There is no released code.

Differences:
- The text leaves biases, norm and the scale of the offsets open. The first two were fitted to the published parameter
  counts, which this reading gives; the counts say nothing of the scale. Here an offset is (x, y) in units of output
  cells, from the cell's centre; what points out of the map samples its border.

B images, C channels in, H x W map, h = ceil(H/2), w = ceil(W/2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.layout import Grid
from archspec.registry import register

from .stems import patch_grid


def sample(feature: Tensor, offsets: Tensor) -> Tensor:
    """The map (B, C, h, w), bilinearly at each cell's centre plus the offset (B, 2, h, w) in cells, as (x, y)."""
    exact = torch.promote_types(feature.dtype, torch.float32)  # a half-precision coordinate is off by cells
    offsets = offsets.to(exact).permute(0, 2, 3, 1)  # (B, h, w, 2)
    h, w = offsets.shape[1:3]
    rows, columns = (torch.arange(size, dtype=exact, device=offsets.device) + 0.5 for size in (h, w))
    centres = torch.stack((columns.expand(h, w), rows[:, None].expand(h, w)), dim=-1)
    points = (centres + offsets) * offsets.new_tensor([2 / w, 2 / h]) - 1  # from -1 to 1 over the whole map
    sampled = F.grid_sample(feature.to(exact), points, mode="bilinear", padding_mode="border", align_corners=False)
    return sampled.to(feature.dtype)


@register("downsample", "bilinear", layout="map")
class BilinearEmbedding(nn.Module):
    """Depthwise convolution of stride 2, sampled at learned points, then a 1×1 convolution and batch norm."""

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__()
        self.offset = nn.Conv2d(in_width, in_width, 3, stride=2, padding=1, groups=in_width)
        self.offset_proj = nn.Conv2d(in_width, 2, 1, bias=False)
        self.feature = nn.Conv2d(in_width, in_width, 3, stride=2, padding=1, groups=in_width, bias=False)
        self.proj = nn.Conv2d(in_width, width, 1)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, width, h, w)."""
        offsets = self.offset_proj(self.offset(x))  # (B, 2, h, w)
        return self.norm(self.proj(sample(self.feature(x), offsets)))

    @staticmethod
    def output_grid(grid: Grid, options: Mapping[str, Any]) -> Grid:
        """(height, width) of the map it makes of this one."""
        return patch_grid(grid, kernel=3, stride=2, padding=1)
