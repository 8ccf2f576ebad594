"""A stem of two strided 3×3 convolutions.

Paper: Vo, dissertation on efficient vision networks (EMSNet), section 3.3.3 ("a stem block including two 3×3
convolution layers ... to down-sample the input image by 4 times").

Differences: none known. The norms, the activation between and the absence of biases fit the published counts.

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


@register("stem", "conv2", layout="map")
class TwoConvStem(nn.Module):
    """Two 3×3 convolutions of stride 2, each with a norm, and an activation between."""

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        bias: Bias = False,
        norm: Norm = "batch",
        act: Annotated[Literal["none", "relu", "gelu"], Field(description="activation between")] = "gelu",
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride=2, padding=1, bias=bias)
        self.norm1 = map_norm(norm, width)
        self.act = ACTS[act]()
        self.conv2 = nn.Conv2d(width, width, 3, stride=2, padding=1, bias=bias)
        self.norm2 = map_norm(norm, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, C, H/4, W/4), rounded up."""
        x = self.act(self.norm1(self.conv1(x)))
        return self.norm2(self.conv2(x))

    @staticmethod
    def output_grid(grid: Grid, options: Mapping[str, Any]) -> Grid:
        """(height, width) of the map for an image of this size."""
        return patch_grid(patch_grid(grid, 3, 2, 1), 3, 2, 1)
