"""Convolutional multi-head self-attention (C-MHSA): attention inside overlapping windows, without queries and keys.

Paper: Vo, dissertation on efficient vision networks (EMSNet), section 3.3.2, equations 3.9 and 3.10. At each position
of a smaller map a depthwise convolution of the window gives, for every head, a k²×k² matrix; after a softmax it mixes
the window's k² values, and the windows are added up where they overlap. There it stands inside the `ems` mixer; it is
a mixer of its own here, too.

Differences:
- No code was released. The text does not mention a scale; here the matrix is scaled by d^-1/2 before the softmax.
  Stride 2 and padding k/2, no biases and no output projection fit the published counts.
- The rows of the matrix are ordered by value, head and output, which is faster; learned weights can have any order.
- The 1×1 convolutions are linears over the channels: the same function, with a linear's initial values.

B images, C channels, H x W map, H' x W' windows (a stride apart), h heads of d channels, k kernel.
"""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from archspec.checks import at_most, divides
from archspec.registry import register

from .coordinate_conv import check_odd


class Pointwise(nn.Linear):
    """A 1×1 convolution without bias: (B, C, H, W) -> (B, D, H, W)."""

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__(in_width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@register("mixer", "c_mhsa", layout="map", tags=("attention", "convolution", "local"))
class ConvAttention(nn.Module):
    """Attention inside overlapping windows, its weights made by a convolution (C-MHSA)."""

    def __init__(
        self,
        width: int,
        *,
        heads: Annotated[int, Field(ge=1, le=1024, description="attention heads; divides the width")] = 8,
        kernel: Annotated[int, Field(ge=1, le=15, description="side of a window, odd")] = 3,
        stride: Annotated[int, Field(ge=1, le=15, description="step between windows, at most the kernel")] = 2,
    ) -> None:
        super().__init__()
        divides("heads", heads, "the width", width)
        check_odd("kernel", kernel)
        at_most("stride", stride, "the kernel", kernel)
        self.heads, self.head_width = heads, width // heads
        self.kernel, self.stride, self.padding = kernel, stride, kernel // 2
        self.depthwise = nn.Conv2d(width, width, kernel, stride, self.padding, groups=width, bias=False)
        self.weights = Pointwise(width, heads * kernel**4)
        self.values = Pointwise(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        size, area = x.shape[2:], self.kernel**2
        weights = self.weights(self.depthwise(x)).permute(0, 2, 3, 1)  # (B, H', W', k²*h*k²)
        weights = weights.flatten(1, 2).unflatten(-1, (area, self.heads, area))  # (B, H'*W', values, h, outputs)
        # A softmax over the last axis, of nine, would take ten times as long.
        weights = (weights * self.head_width**-0.5).softmax(dim=2).transpose(2, 3)
        windows = F.unfold(self.values(x), self.kernel, padding=self.padding, stride=self.stride)  # (B, C*k², H'*W')
        windows = windows.mT.unflatten(2, (self.heads, self.head_width, area))  # (B, H'*W', h, d, k²)
        mixed = (windows @ weights).flatten(2).mT  # (B, C*k², H'*W')
        return F.fold(mixed, size, self.kernel, padding=self.padding, stride=self.stride)
