"""Context broadcasting: the mean token is added to every token.

Paper: Hyeon-Woo et al., "Scratching Visual Transformer's Back with Uniform Attention", section 3.2, equation 1,
https://arxiv.org/abs/2210.08457. It stands at the front, in the middle or at the end of the feed-forward network, or at
the mixer; in the paper's networks at the end of the feed-forward network, before the residual is added, in the upper
half of the blocks. Where it stands is said in the spec; this module only does the sum.

Differences:
- The paper does not say how the scale of CB_S starts: `initial`, by default 0, so that a network starts as the one
  without it and the scale learns from there.

B images, N tokens (class tokens included), C channels.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from archspec.registry import register


@register("modifier", "context_broadcast")
class ContextBroadcast(nn.Module):
    """The mean of all tokens, added to each: CB, or CB_S with a learned scale per channel."""

    def __init__(
        self,
        width: int,
        *,
        scaled: Annotated[bool, Field(description="CB_S: scale the mean by a learned figure per channel")] = False,
        initial: Annotated[float, Field(ge=-10.0, le=10.0, description="of CB_S: what every scale starts from")] = 0.0,
    ) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((width,), initial)) if scaled else None

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=1, keepdim=True)  # (B, 1, C)
        return (x + mean) / 2 if self.scale is None else x + self.scale * mean
