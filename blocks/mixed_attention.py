"""Mixed multi-head self-attention: the heads mix their attention maps before and after the softmax.

Papers: PartialFormer, in Vo's dissertation "Efficient Vision Transformers with Multi-Scale and Partial Attentions for
Object Recognition", section 5.3.2, equation 5.5; Vo et al., "Efficient Vision Transformers with Partial Attention",
https://ecva.net/papers/eccv_2024/papers_ECCV/html/11047_ECCV_2024_paper.php.

Differences:
- The mixing layers have biases; the paper does not say. That of the first adds the same to all keys, so the softmax
  takes it out again: it is counted, and learns nothing.

B images, N tokens (class tokens included), C channels, h heads of d channels each, e times as many maps in the middle.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from archspec.checks import divides
from archspec.registry import register

Heads = Annotated[int, Field(ge=1, le=1024, description="attention heads; divides the width")]
Expansion = Annotated[int, Field(ge=1, le=64, description="attention maps between the mixing layers, for each head")]


def split_heads(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """(B, N, 3*C) -> query, key and value, each (B, h, N, d): views."""
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


class HeadMixing(nn.Module):
    """Attention of h heads whose logits become e*h maps, are normalised over the keys, and become h maps again."""

    def __init__(self, heads: int, expansion: int) -> None:
        super().__init__()
        self.expand = nn.Linear(heads, expansion * heads)
        self.reduce = nn.Linear(expansion * heads, heads)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Query, key and value (B, h, N, d) -> (B, N, h*d)."""
        logits = (q * q.shape[-1] ** -0.5) @ k.mT  # (B, h, N, N)
        maps = self.expand(logits.permute(0, 2, 3, 1)).softmax(dim=2)  # (B, N, N, e*h)
        attention = self.reduce(maps).permute(0, 3, 1, 2)  # (B, h, N, N)
        return (attention @ v).transpose(1, 2).flatten(2)


@register("mixer", "mixed_attention", tags=("attention", "global"))
class MixedAttention(nn.Module):
    """Multi-head self-attention over all tokens, with heads that mix."""

    def __init__(self, width: int, *, heads: Heads = 8, expansion: Expansion = 4) -> None:
        super().__init__()
        divides("heads", heads, "the width", width)
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.mixing = HeadMixing(heads, expansion)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.mixing(*split_heads(self.qkv(x), self.heads)))
