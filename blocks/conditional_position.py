"""Conditional position encoding: a depthwise convolution that adds to the map at the start of each block.

Paper: Chu et al., "Conditional Positional Encodings for Vision Transformers", section 3.3,
https://arxiv.org/abs/2102.10882, placed in every block as by MAT and PartialFormer (Vo, dissertation, 2023, chapters 4
and 5).

Differences:
- The paper has one encoding a network, behind the first block.

B images, C channels, H x W map.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from archspec.registry import register


@register("position", "conditional", layout="map", per_block=True)
class ConditionalPosition(nn.Module):
    """x + depthwise convolution(x)."""

    def __init__(
        self,
        width: int,
        *,
        kernel: Annotated[Literal[3, 5, 7, 9], Field(description="side of the convolution's kernel")] = 3,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return x + self.conv(x)
