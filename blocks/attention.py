"""Multi-head self-attention over all tokens.

Paper: Vaswani et al., "Attention Is All You Need", section 3.2, https://arxiv.org/abs/1706.03762, as placed in vision
transformers by Dosovitskiy et al., "An Image is Worth 16x16 Words", appendix A, https://arxiv.org/abs/2010.11929.
`broadcast_heads` is row (A) of table 1 of Hyeon-Woo et al., "Scratching Visual Transformer's Back with Uniform
Attention", https://arxiv.org/abs/2210.08457: heads that hand on the mean token in place of a learned attention.

Differences:
- The paper does not say what a broadcasting head reads. Here it reads the channels of the mixer's input that stand
  where the head stands, and needs no query, key or value, which gives the 21 M parameters that the paper reports.

B images, N tokens (class tokens included), C channels, h learned heads of d channels each.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from archspec.checks import divides
from archspec.errors import OptionError
from archspec.registry import register

from .context_broadcast import ContextBroadcast


@register("mixer", "attention", tags=("attention",))
class Attention(nn.Module):
    """Multi-head self-attention over all tokens."""

    def __init__(
        self,
        width: int,
        *,
        heads: Annotated[int, Field(ge=1, le=1024, description="attention heads; divides the width")] = 8,
        qkv_bias: Annotated[bool, Field(description="bias of the query, key and value projection")] = True,
        proj_bias: Annotated[bool, Field(description="bias of the output projection")] = True,
        broadcast_heads: Annotated[
            int,
            Field(ge=0, le=1023, description="how many of the heads, the last ones, hand on the mean token instead"),
        ] = 0,
    ) -> None:
        super().__init__()
        divides("heads", heads, "the width", width)
        if broadcast_heads >= heads:
            raise OptionError(
                "broadcast_heads", broadcast_heads, f"leaves none of the {heads} heads to learn", f"at most {heads - 1}"
            )
        self.head_shape = (3, heads - broadcast_heads, width // heads)
        self.learned_width = (heads - broadcast_heads) * (width // heads)
        self.qkv = nn.Linear(width, 3 * self.learned_width, bias=qkv_bias)
        self.broadcast = ContextBroadcast(width - self.learned_width) if broadcast_heads else None
        self.proj = nn.Linear(width, width, bias=proj_bias)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, self.head_shape).permute(2, 0, 3, 1, 4).unbind(0)  # each (B, h, N, d)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # (B, N, h*d)
        if self.broadcast is not None:
            y = torch.cat((y, self.broadcast(x[..., self.learned_width :])), dim=-1)  # (B, N, C)
        return self.proj(y)
