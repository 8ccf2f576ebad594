"""Downsamplers: from the map of one stage to the smaller, wider one of the next.

- conv_pool: Liu et al., "NomMer: Nominate Synergistic Context in Vision Transformer for Visual Recognition",
  https://arxiv.org/abs/2111.12994, the reduction between stages.
- pit_pool: Heo et al., "Rethinking Spatial Dimensions of Vision Transformers", section 3.2,
  https://arxiv.org/abs/2103.16302.
- patch: a strided convolution, as between the stages of most pyramids.

Differences: none known.

B images, P class tokens, C channels, H x W map.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn

from archspec.errors import OptionError
from archspec.layout import Grid
from archspec.registry import register

from .norms import MapLayerNorm, map_norm
from .stems import Bias, Kernel, Norm, Padding, patch_grid


@register("downsample", "patch", layout="map")
class PatchDownsample(nn.Module):
    """One strided convolution, then a norm if wanted."""

    def __init__(
        self,
        in_width: int,
        width: int,
        *,
        kernel: Kernel = 3,
        stride: Annotated[int, Field(ge=1, le=64, description="step")] = 2,
        padding: Padding = 1,
        bias: Bias = True,
        norm: Norm = "none",
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_width, width, kernel, stride, padding, bias=bias)
        self.norm = map_norm(norm, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))

    @staticmethod
    def output_grid(grid: Grid, options: Mapping[str, Any]) -> Grid:
        """(height, width) of the map it makes of this one."""
        return patch_grid(grid, options["kernel"], options["stride"], options["padding"])


@register("downsample", "conv_pool", layout="map")
class ConvPool(nn.Module):
    """3x3 convolution, 2x2 max pooling, LayerNorm over the channels (NomMer)."""

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_width, width, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.norm = MapLayerNorm(width, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.pool(self.conv(x)))

    @staticmethod
    def output_grid(grid: Grid, options: Mapping[str, Any]) -> Grid:
        """(height, width) of the map it makes of this one."""
        if min(grid) < 2:
            raise OptionError(
                "type", "conv_pool", f"cannot halve a {grid[0]}×{grid[1]} map", "leave it out, or take a larger input"
            )
        return grid[0] // 2, grid[1] // 2


@register("downsample", "pit_pool", layout="map", prefix=True)
class PitPool(nn.Module):
    """Depthwise 3x3 convolution of stride 2; class tokens go through a linear (PiT)."""

    def __init__(self, in_width: int, width: int, prefix_tokens: int = 0) -> None:
        super().__init__()
        if width % in_width:
            multiple = in_width * max(1, round(width / in_width))
            rule = f"makes a multiple of the {in_width} channels before, which {width} is not"
            raise OptionError("type", "pit_pool", rule, f"try width {multiple}")
        self.conv = nn.Conv2d(in_width, width, 3, stride=2, padding=1, groups=in_width)
        self.fc = nn.Linear(in_width, width) if prefix_tokens else nn.Identity()  # no class token, no weights for it

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)

    def prefix_tokens(self, x: Tensor) -> Tensor:
        """The class tokens at the new width."""
        return self.fc(x)

    @staticmethod
    def output_grid(grid: Grid, options: Mapping[str, Any]) -> Grid:
        """(height, width) of the map it makes of this one."""
        return patch_grid(grid, kernel=3, stride=2, padding=1)
