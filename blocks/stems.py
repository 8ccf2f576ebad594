"""Stems: from the image to the first map.

`patch` is the patch embedding of Dosovitskiy et al., "An Image is Worth 16x16 Words", section 3.1,
https://arxiv.org/abs/2010.11929: a convolution whose stride is its kernel. With a smaller stride its patches overlap
(PiT: Heo et al., https://arxiv.org/abs/2103.16302); a norm and an activation may follow (NomMer, FCViT).

Differences: none known. Where the kernel does not cover the image evenly, the rest at the right and below is left out.

B images, C channels, H x W map.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor, nn

from archspec.errors import OptionError
from archspec.layout import Grid, convolved
from archspec.registry import register

from .norms import MapNorm, map_norm

Kernel = Annotated[int, Field(ge=1, le=64, description="side of the convolution's kernel")]
Padding = Annotated[int, Field(ge=0, le=32, description="zeros added on each side")]
Bias = Annotated[bool, Field(description="bias of the convolution")]
Norm = Annotated[MapNorm, Field(description="normalisation after the convolution")]
ACTS = {"none": nn.Identity, "relu": nn.ReLU, "gelu": nn.GELU}


def patch_grid(grid: Grid, kernel: int, stride: int, padding: int) -> Grid:
    """What a convolution makes of a grid. Raises OptionError when its kernel does not fit."""
    smallest = min(grid) + 2 * padding
    if kernel > smallest:
        raise OptionError("kernel", kernel, f"does not fit into the {grid[0]}×{grid[1]} input", f"at most {smallest}")
    return convolved(grid[0], kernel, stride, padding), convolved(grid[1], kernel, stride, padding)


@register("stem", "patch", layout="map")
class PatchStem(nn.Module):
    """One convolution, then a norm and an activation if wanted."""

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        kernel: Kernel = 16,
        stride: Annotated[int | None, Field(ge=1, le=64, description="step; the kernel when left out")] = None,
        padding: Padding = 0,
        bias: Bias = True,
        norm: Norm = "none",
        act: Annotated[Literal["none", "relu", "gelu"], Field(description="activation at the end")] = "none",
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, kernel, stride or kernel, padding, bias=bias)
        self.norm = map_norm(norm, width)
        self.act = ACTS[act]()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))

    @staticmethod
    def output_grid(grid: Grid, options: Mapping[str, Any]) -> Grid:
        """(height, width) of the map for an image of this size."""
        return patch_grid(grid, options["kernel"], options["stride"] or options["kernel"], options["padding"])
