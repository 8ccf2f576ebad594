"""A stem of three 3×3 convolutions: small steps in place of one patch embedding.

Paper: Ren et al., "SG-Former: Self-guided Transformer with Evolving Token Reallocation", section 3.5,
https://arxiv.org/abs/2308.12216 ("convolution patch embedding"), as released; after Xiao et al., "Early Convolutions
Help Transformers See Better", https://arxiv.org/abs/2106.14881.

With `narrowing: 2` and `depthwise: true` it is the stem of MAT: Vo, "Efficient Vision Transformers with Multi-Scale and
Partial Attentions for Object Recognition", dissertation (2023), table 4.12.

Differences:
- MAT's table gives kernels, strides and widths alone. That its convolutions have biases, all of them a batch norm, and
  the first two an activation, was fitted to the published parameter counts, or is the custom.

B images, C channels, H x W map.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor, nn

from archspec.checks import divides
from archspec.layout import Grid
from archspec.registry import register

from .norms import map_norm
from .stems import ACTS, Bias, Norm, patch_grid


@register("stem", "conv3", layout="map")
class ConvStem(nn.Module):
    """Three 3×3 convolutions, each with a norm, and activations between them; then a norm of its own if wanted."""

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        strides: Annotated[
            tuple[Annotated[int, Field(ge=1, le=8)], ...],
            Field(min_length=3, max_length=3, description="step of each convolution"),
        ] = (2, 1, 2),
        bias: Bias = False,
        norm: Norm = "batch",
        act: Annotated[Literal["none", "relu", "gelu"], Field(description="activation between")] = "gelu",
        norm_out: Norm = "none",
        narrowing: Annotated[
            int, Field(ge=1, le=64, description="width over the width of the first two convolutions; divides the width")
        ] = 1,
        depthwise: Annotated[bool, Field(description="whether the second convolution is depthwise")] = False,
    ) -> None:
        super().__init__()
        divides("narrowing", narrowing, "the width", width)
        inner = width // narrowing
        widths = (in_channels, inner, inner, width)
        groups = (1, inner if depthwise else 1, 1)
        self.convs = nn.ModuleList(
            nn.Conv2d(*ends, 3, stride, padding=1, groups=group, bias=bias)
            for ends, stride, group in zip(pairwise(widths), strides, groups, strict=True)
        )
        self.norms = nn.ModuleList(map_norm(norm, given) for given in widths[1:])
        self.acts = nn.ModuleList((ACTS[act](), ACTS[act](), nn.Identity()))
        self.norm_out = map_norm(norm_out, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, C, H', W')."""
        for conv, norm, act in zip(self.convs, self.norms, self.acts, strict=True):
            x = conv(x)  # on lines of their own, so that the memory of each is free for the next but one
            x = norm(x)
            x = act(x)
        return self.norm_out(x)

    @staticmethod
    def output_grid(grid: Grid, options: Mapping[str, Any]) -> Grid:
        """(height, width) of the map for an image of this size."""
        return reduce(lambda size, stride: patch_grid(size, 3, stride, 1), options["strides"], grid)
