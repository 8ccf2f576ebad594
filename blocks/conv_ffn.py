"""Feed-forward network with a depthwise convolution in its middle.

Papers: Wang et al., "PVT v2", section 3.2 (convolutional feed-forward), https://arxiv.org/abs/2106.13797. With a
residual around the convolution it is the "detail-specific feedforward layer" of Ren et al., "Shunted Self-Attention via
Multi-Scale Token Aggregation", section 3.2, https://arxiv.org/abs/2111.15193, which SG-Former uses.

Differences: none known.

B images, C channels, D hidden channels, H x W map.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from archspec.registry import register


class Pointwise(nn.Conv2d):
    """A 1×1 convolution of a map whose channels stand last: (B, H, W, C) -> (B, H, W, D)."""

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__(in_width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Depthwise(nn.Conv2d):
    """A depthwise 3×3 convolution of a map whose channels stand last."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width, 3, padding=1, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class ResidualDepthwise(Depthwise):
    """x + convolution(x), in one convolution: its kernel has one more in the middle."""

    identity: Tensor

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.register_buffer("identity", F.pad(torch.ones(1, 1, 1, 1), (1, 1, 1, 1)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self._conv_forward(x.permute(0, 3, 1, 2), self.weight + self.identity, self.bias)
        return y.permute(0, 2, 3, 1)


@register("ffn", "conv_mlp", layout="map", tags=("mlp", "convolution"))
class ConvMLP(nn.Module):
    """Linear, depthwise 3×3 convolution, activation, linear."""

    def __init__(
        self,
        width: int,
        act: Callable[[], nn.Module],
        *,
        ratio: Annotated[float, Field(ge=0.1, le=64, description="hidden width as a multiple of the width")] = 4.0,
        depthwise: Annotated[bool, Field(description="the convolution in the middle")] = True,
        residual: Annotated[bool, Field(description="whether the convolution adds to its input")] = False,
        pointwise: Annotated[
            Literal["linear", "conv"],
            Field(description="the outer layers as linears or as 1×1 convolutions: the same, but for initial values"),
        ] = "linear",
    ) -> None:
        super().__init__()
        self.hidden_width = max(1, int(width * ratio))
        layer = nn.Linear if pointwise == "linear" else Pointwise
        middle = ResidualDepthwise if residual else Depthwise
        self.fc1 = layer(width, self.hidden_width)
        self.depthwise = middle(self.hidden_width) if depthwise else nn.Identity()
        self.act = act()
        self.middle = nn.Identity()
        self.fc2 = layer(self.hidden_width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        y = self.fc1(x.permute(0, 2, 3, 1))  # (B, H, W, D)
        y = self.depthwise(y)  # on lines of their own, so that the memory of each is free for the next but one
        y = self.act(y)
        y = self.middle(y)
        return self.fc2(y).permute(0, 3, 1, 2)
