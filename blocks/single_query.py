"""Single-query attention: one token looks at many, and what it sees becomes one vector for all of them.

Papers: PartialFormer, in Vo's dissertation "Efficient Vision Transformers with Multi-Scale and Partial Attentions for
Object Recognition", 5.3.2, equations 5.6 and 5.7; Vo et al., "Efficient Vision Transformers with Partial Attention",
https://ecva.net/papers/eccv_2024/papers_ECCV/html/11047_ECCV_2024_paper.php.

Differences:
- The channel MLP has `reduction` times fewer hidden channels, but 8 at least; the paper names no number. At a hidden
  width of 1, which the first stages would have, its LayerNorm would be constant.
- Tokens that shall not be seen are masked, not taken out: the same result, without a copy of all keys and values.

B images, N tokens, C channels, h heads of d channels each.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

NARROWEST = 8


class ChannelMLP(nn.Sequential):
    """Linear to few channels, LayerNorm, ReLU, linear back."""

    def __init__(self, width: int, reduction: int) -> None:
        hidden = max(NARROWEST, width // reduction)
        super().__init__(nn.Linear(width, hidden), nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, width))


class SingleQueryAttention(nn.Module):
    """Attention of one query, linear in the number of tokens, then the channel MLP."""

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.mlp = ChannelMLP(width, reduction)

    def forward(self, query: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
        """Query (B, 1, C), keys and values (B, h, N, d), seen (B, N), true where a token takes part -> (B, 1, C)."""
        q = query.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, h, 1, d)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None, None])
        return self.mlp(y.transpose(1, 2).flatten(2))
