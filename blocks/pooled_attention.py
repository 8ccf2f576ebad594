"""Attention of all positions to a pooled map.

Paper: "A Close Look at Spatial Modeling: From Attention to Convolution" (FCViT), appendix B, table 9, "self-attention",
https://arxiv.org/abs/2212.12552: keys and values from the map pooled to 7×7 by adaptive means, 4 heads of 32 channels
(`heads: 4, head_width: 32`).

Differences:
- The paper pins nothing else down. Here: linears with biases for the queries, for keys and values together, and for the
  output, and neither position encoding nor norm. In FCViT-Tiny that makes 4.6 Mi parameters and 1.0 Gi multiply-
  accumulates; the paper has 4.8 M and 0.8 G.
- A map smaller than the pooled one is not pooled.

B images, C channels, H x W map, N = H*W positions, M pooled positions, h heads of d channels each.
"""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from archspec.checks import divides
from archspec.layout import to_map, to_tokens
from archspec.registry import register


@register("mixer", "pooled_attention", layout="map", tags=("attention", "global"))
class PooledAttention(nn.Module):
    """Multi-head attention whose keys and values come from a pooled map."""

    def __init__(
        self,
        width: int,
        *,
        heads: Annotated[
            int, Field(ge=1, le=1024, description="attention heads; divides the width unless head_width is given")
        ] = 4,
        head_width: Annotated[
            int | None, Field(ge=1, le=4096, description="channels of a head; width over heads when left out")
        ] = None,
        pool: Annotated[int, Field(ge=1, le=256, description="side of the pooled map")] = 7,
        qkv_bias: Annotated[bool, Field(description="biases of queries, keys and values")] = True,
    ) -> None:
        super().__init__()
        if head_width is None:
            divides("heads", heads, "the width", width)
            head_width = width // heads
        self.pool = pool
        self.head_shape = (heads, head_width)
        self.q = nn.Linear(width, heads * head_width, bias=qkv_bias)
        self.kv = nn.Linear(width, 2 * heads * head_width, bias=qkv_bias)
        self.proj = nn.Linear(heads * head_width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        H, W = x.shape[2:]
        pooled = F.adaptive_avg_pool2d(x, (min(H, self.pool), min(W, self.pool)))
        q = self.q(to_tokens(x)).unflatten(-1, self.head_shape).transpose(1, 2)  # (B, h, N, d)
        kv = self.kv(to_tokens(pooled)).unflatten(-1, (2, *self.head_shape))  # (B, M, 2, h, d)
        k, v = kv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, h, M, d) each
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # (B, N, h*d)
        return to_map(self.proj(y), (H, W))
