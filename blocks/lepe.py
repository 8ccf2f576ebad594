"""Attention with a local branch: what attention gives to a map, and a depthwise convolution beside it.

Papers: Ren et al., "SG-Former: Self-guided Transformer with Evolving Token Reallocation",
https://arxiv.org/abs/2308.12216, as released; after the locally-enhanced positional encoding of Dong et al., "CSWin
Transformer", https://arxiv.org/abs/2107.00652.

Differences:
- CSWin's branch convolves the values; here it has a linear of its own, as SG-Former was released.

B images, C channels, H x W map, N = H*W tokens, h heads of d channels each.
"""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from archspec.checks import divides
from archspec.registry import register


class Lepe(nn.Module):
    """The local branch: a linear, then a depthwise 3×3 convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.conv = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        y = self.linear(x).permute(0, 3, 1, 2)  # (B, C, H, W)
        return self.conv(y).permute(0, 2, 3, 1)


@register("mixer", "attention_lepe", layout="map", tags=("attention", "global", "convolution"))
class LepeAttention(nn.Module):
    """Multi-head self-attention over all tokens, with a local branch."""

    def __init__(
        self,
        width: int,
        *,
        heads: Annotated[int, Field(ge=1, le=1024, description="attention heads; divides the width")] = 8,
        qkv_bias: Annotated[bool, Field(description="bias of the query, key and value projection")] = True,
    ) -> None:
        super().__init__()
        divides("heads", heads, "the width", width)
        self.head_shape = (heads, width // heads)
        self.q = nn.Linear(width, width, bias=qkv_bias)
        self.kv = nn.Linear(width, 2 * width, bias=qkv_bias)
        self.lepe = Lepe(width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        x = x.permute(0, 2, 3, 1)
        q = self.q(x).flatten(1, 2).unflatten(-1, self.head_shape).transpose(1, 2)  # (B, h, N, d)
        kv = self.kv(x).flatten(1, 2).unflatten(-1, (2, *self.head_shape))  # (B, N, 2, h, d)
        k, v = kv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, h, N, d) each
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)  # (B, N, h, d)
        return self.proj(y.reshape(x.shape) + self.lepe(x)).permute(0, 3, 1, 2)
