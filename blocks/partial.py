"""Partial attention: the few tokens that matter attend to one another, the others through a single query.

Papers: PartialFormer, in Vo's dissertation "Efficient Vision Transformers with Multi-Scale and Partial Attentions for
Object Recognition", section 5.3.2; Vo et al., "Efficient Vision Transformers with Partial Attention",
https://ecva.net/papers/eccv_2024/papers_ECCV/html/11047_ECCV_2024_paper.php.

The tokens of the highest means over their channels, the foreground, attend to one another and to a learned token, with
heads that mix. The learned token, which has seen the foreground, then queries the others, the background; what it sees
is added to each of them.

Differences. No code was released: this is one consistent reading, fitted to the parameters and costs in the tables.
- The score is the mean of the branch's input before the LayerNorm; behind it, every mean would be zero up to rounding.
- The foreground is a share of the tokens, rounded down, but one at least. Of equal tokens the first are chosen.
- The learned token is each block's own. It has a row in the query, key and value projection, and stays behind.
- Queries, keys and values are made of all tokens, though nobody reads the background's queries, and the output
  projection takes all tokens, which fits the tables; the paper's own formulas (5.8 to 5.10) give less.
- The background's result is added to the normalised token, and the foreground's stands in place of its token.
- Where all tokens are in the foreground there is no background: the learned token is one more key and value, no more,
  and with a share of 1 there is no channel MLP.
- What else is arbitrary stands in `mixed_attention` (biases) and `single_query` (channel MLP). Class tokens have no
  place: the paper has none, and whether they are foreground would be a guess.

B images, N tokens, F of them in the foreground, C channels, h heads of d channels each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from archspec.checks import divides
from archspec.registry import register

from .mixed_attention import Expansion, HeadMixing, Heads, split_heads
from .single_query import SingleQueryAttention

Side = dict[str, Tensor]


def context(side: Side) -> Tensor:
    """The score of the paper, (B, N): a token's mean over its channels, before the norm."""
    return side["input"].mean(dim=-1)


def significance(side: Side) -> Tensor:
    """What an earlier mixer found significant, (B, N)."""
    return side["significance"]


SCORES = {"context": context, "significance": significance}


def foreground_size(tokens: int, share: float) -> int:
    """How many tokens are in the foreground."""
    return max(1, int(share * tokens))


def highest(score: Tensor, size: int) -> Tensor:
    """(B, N) -> (B, F): which have the highest scores; of equal ones the first.

    A stable sort would begin with the same ones, but takes as long as a projection where N is large.
    """
    N = score.shape[1]
    least = score.topk(size, dim=1).values.amin(dim=1, keepdim=True)  # (B, 1)
    in_order = torch.arange(N, 0, -1, device=score.device)
    rank = (score >= least) * in_order + (score > least) * N  # no two are equal, but for zeros
    return rank.topk(size, dim=1).indices


@register("mixer", "partial", prefix=False, side=True, tags=("attention", "global"))
class PartialAttention(nn.Module):
    """Attention among the tokens of the highest scores; the others take part through a single query."""

    def __init__(
        self,
        width: int,
        *,
        heads: Heads = 8,
        share: Annotated[float, Field(ge=1e-6, le=1.0, description="share of the tokens in the foreground")] = 0.25,
        expansion: Expansion = 4,
        reduction: Annotated[
            int, Field(ge=1, le=1024, description="width over hidden width of the channel MLP, which has 8 at least")
        ] = 32,
        foreground: Annotated[
            Literal["context", "significance"],
            Field(description="chosen by the tokens' mean over the channels, or by what an earlier mixer gives"),
        ] = "context",
    ) -> None:
        super().__init__()
        divides("heads", heads, "the width", width)
        self.heads, self.share, self.score = heads, share, SCORES[foreground]
        self.token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, width), std=0.02))
        self.qkv = nn.Linear(width, 3 * width)
        self.mixing = HeadMixing(heads, expansion)
        self.single_query = SingleQueryAttention(width, heads, reduction) if share < 1 else None
        self.proj = nn.Linear(width, width)

    @staticmethod
    def needs(options: Mapping[str, Any]) -> tuple[str, ...]:
        """What chooses the foreground, where the mixer does not itself."""
        return ("significance",) if options["foreground"] == "significance" else ()

    def forward(self, x: Tensor, side: Side) -> tuple[Tensor, Side]:
        """(B, N, C) -> (B, N, C); `side` is handed on as it is."""
        size = foreground_size(x.shape[1], self.share)
        chosen = highest(self.score(side), size)  # (B, F)
        place = (torch.arange(len(x), device=x.device)[:, None], chosen)
        qkv = self.qkv(x)  # (B, N, 3*C)
        front, query = self.attend(qkv[place])
        y = self.background(x, qkv, chosen, query)
        return self.proj(y.index_put(place, front.to(y.dtype))), side

    def attend(self, qkv: Tensor) -> tuple[Tensor, Tensor]:
        """Projected foreground (B, F, 3*C) -> its result (B, F, C) and the learned token's (B, 1, C)."""
        token = self.qkv(self.token).expand(len(qkv), 1, -1)
        y = self.mixing(*split_heads(torch.cat((qkv, token), dim=1), self.heads))
        return y[:, :-1], y[:, -1:]

    def background(self, x: Tensor, qkv: Tensor, chosen: Tensor, query: Tensor) -> Tensor:
        """Tokens (B, N, C) plus what the query sees of the background; as they are where there is none."""
        if self.single_query is None or chosen.shape[1] == x.shape[1]:
            return x
        seen = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device).scatter(1, chosen, 0)
        _, k, v = split_heads(qkv, self.heads)
        return x + self.single_query(query, k, v, seen)
