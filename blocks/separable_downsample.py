"""Downsampling by a depthwise convolution between two 1×1 convolutions.

Paper: Ren et al., "SG-Former: Self-guided Transformer with Evolving Token Reallocation", section 3.5,
https://arxiv.org/abs/2308.12216 ("convolution patch embedding"), as released.

Differences: none known.

B images, C channels, H x W map.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor, nn

from archspec.layout import Grid
from archspec.registry import register

from .norms import map_norm
from .stems import ACTS, Bias, Norm, patch_grid


@register("downsample", "separable", layout="map")
class SeparableDownsample(nn.Module):
    """1×1, depthwise 3×3 of stride 2, 1×1 convolution, each with a norm, and activations between."""

    def __init__(
        self,
        in_width: int,
        width: int,
        *,
        bias: Bias = False,
        norm: Norm = "group",
        act: Annotated[Literal["none", "relu", "gelu"], Field(description="activation between")] = "gelu",
    ) -> None:
        super().__init__()
        self.expand = nn.Conv2d(in_width, width, 1, bias=bias)
        self.norm1 = map_norm(norm, width)
        self.act1 = ACTS[act]()
        self.reduce = nn.Conv2d(width, width, 3, stride=2, padding=1, groups=width, bias=bias)
        self.norm2 = map_norm(norm, width)
        self.act2 = ACTS[act]()
        self.mix = nn.Conv2d(width, width, 1, bias=bias)
        self.norm3 = map_norm(norm, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_width, H, W) -> (B, C, ceil(H/2), ceil(W/2))."""
        x = self.act1(self.norm1(self.expand(x)))
        x = self.act2(self.norm2(self.reduce(x)))
        return self.norm3(self.mix(x))

    @staticmethod
    def output_grid(grid: Grid, options: Mapping[str, Any]) -> Grid:
        """(height, width) of the map it makes of this one."""
        return patch_grid(grid, kernel=3, stride=2, padding=1)
