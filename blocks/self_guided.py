"""Self-guided attention: all tokens query few, merged from many where little matters and from few where much does.

Paper: Ren et al., "SG-Former: Self-guided Transformer with Evolving Token Reallocation", section 3.2,
https://arxiv.org/abs/2308.12216, as released.

The tokens are sorted by significance, ascending, and the list is cut into parts. In each part every r consecutive
tokens become one by a learned linear map of r inputs, shared over the channels. This is done twice, by a stable sort of
the map read row by row and of the map read column by column: without ties both merge the same tokens. Half of the heads
take keys and values from the one, half from the other.

Differences:
- At another input size r follows from the tokens that a part shall become (`into`), rounded up; so merging maps of
  another size do not load. Run on a larger image than the spec's, r stays and there are more merged tokens.
- Where r does not divide a part, zeros stand for the tokens that its last group lacks.

B images, C channels, H x W map, N = H*W tokens, h heads of d channels each, M merged tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from archspec.checks import divides
from archspec.errors import OptionError
from archspec.layout import Grid
from archspec.registry import register

from .lepe import Lepe

Number = Annotated[int, Field(ge=1, le=65_536)]
Numbers = tuple[Number, ...]


def part_ends(tokens: int, shares: Sequence[int]) -> list[int]:
    """Where the parts of a list of tokens begin and end: one number more than there are parts."""
    return [tokens * done // sum(shares) for done in accumulate(shares, initial=0)]


def orders(significance: Tensor, grid: Grid) -> Tensor:
    """(B, N) -> (2, B, N): tokens by ascending significance, ties by rows, and then by columns."""
    H, W = grid
    by_columns = significance.unflatten(1, grid).mT.flatten(1)
    order = torch.stack((significance, by_columns), dim=0).argsort(dim=-1, stable=True)
    rows, columns = order.unbind(0)
    return torch.stack((rows, columns % H * W + columns // H), dim=0)  # both count the tokens row by row


class Merge(nn.Linear):
    """Every `rate` consecutive tokens to one: (2, B, n, C) -> (2, B, ceil(n / rate), C)."""

    def __init__(self, rate: int) -> None:
        super().__init__(rate, 1)

    def forward(self, x: Tensor) -> Tensor:
        rate = self.in_features
        if x.shape[2] % rate:
            x = F.pad(x, (0, 0, 0, -x.shape[2] % rate))
        groups = x.reshape(-1, rate, x.shape[-1])
        # As products of matrices, since a linear would first move the tokens behind the channels.
        merged = torch.baddbmm(self.bias, self.weight.expand(groups.shape[0], 1, rate), groups)
        return merged.view(*x.shape[:2], -1, x.shape[-1])


class MergeOne(nn.Linear):
    """Merge at rate 1, where as many products of 1×1 matrices would be slow."""

    def __init__(self) -> None:
        super().__init__(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[..., None])[..., 0]


@register("mixer", "self_guided", layout="map", side=True, tags=("attention", "global"))
class SelfGuidedAttention(nn.Module):
    """Attention to tokens that are merged by their significance, with a local branch."""

    def __init__(
        self,
        width: int,
        grid: Grid,
        *,
        heads: Annotated[int, Field(ge=2, le=1024, description="attention heads; even, divides the width")] = 8,
        shares: Annotated[
            Numbers, Field(min_length=1, max_length=16, description="sizes of the parts, the least significant first")
        ] = (1, 2, 1),
        into: Annotated[
            Numbers | None, Field(description="tokens that each part is merged into, at the spec's size")
        ] = (4, 28, 28),
        rates: Annotated[
            Numbers | None, Field(description="tokens of each part that become one, in place of `into`")
        ] = None,
    ) -> None:
        super().__init__()
        divides("heads", heads, "the width", width)
        if heads % 2:
            raise OptionError("heads", heads, "is odd, but each reading order of the map has half of the heads", "even")
        self.head_shape = (heads, width // heads)
        self.shares = shares
        self.merges = nn.ModuleList(
            Merge(rate) if rate > 1 else MergeOne() for rate in _rates(grid, shares, into, rates)
        )
        self.q = nn.Linear(width, width)
        self.kv_rows = nn.Linear(width, width)
        self.kv_columns = nn.Linear(width, width)
        self.lepe = Lepe(width)
        self.proj = nn.Linear(width, width)

    @staticmethod
    def needs(options: Mapping[str, Any]) -> tuple[str, ...]:
        """What guides it."""
        return ("significance",)

    def forward(self, x: Tensor, side: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """(B, C, H, W) -> (B, C, H, W); `side` has the significance (B, N)."""
        order = orders(side["significance"], (x.shape[2], x.shape[3]))
        x = x.permute(0, 2, 3, 1)
        q = self.q(x).flatten(1, 2).unflatten(-1, self.head_shape).transpose(1, 2)  # (B, h, N, d)
        k, v = self.keys_and_values(self.merged(x.flatten(1, 2), order))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)  # (B, N, h, d)
        return self.proj(y.reshape(x.shape) + self.lepe(x)).permute(0, 3, 1, 2), side

    def merged(self, x: Tensor, order: Tensor) -> Tensor:
        """Tokens (B, N, C) in two orders (2, B, N) -> merged tokens (2, B, M, C)."""
        B, N, C = x.shape
        place = order + N * torch.arange(B, device=x.device)[:, None]  # in the list of all images' tokens
        flat = x.reshape(B * N, C)
        parts = []
        for (start, end), merge in zip(pairwise(part_ends(N, self.shares)), self.merges, strict=True):
            tokens = flat.index_select(0, place[:, :, start:end].flatten())
            parts.append(merge(tokens.view(2, B, end - start, C)))
        return torch.cat(parts, dim=2)

    def keys_and_values(self, merged: Tensor) -> tuple[Tensor, Tensor]:
        """Merged tokens (2, B, M, C) -> keys and values (B, h, M, d), the first half of the heads by rows."""
        rows, columns = merged.unbind(0)
        kv = torch.stack((self.kv_rows(rows), self.kv_columns(columns)), dim=2)  # (B, M, 2, C)
        kv = kv.unflatten(-1, (2, -1, self.head_shape[1]))  # (B, M, 2, 2, h/2, d)
        k, v = kv.permute(3, 0, 2, 4, 1, 5).flatten(2, 3).unbind(0)
        return k, v


def _rates(grid: Grid, shares: Numbers, into: Numbers | None, rates: Numbers | None) -> list[int]:
    """How many tokens become one, in each part."""
    option, given = ("into", into) if into is not None else ("rates", rates)
    if given is None:
        raise OptionError("into", "null", "leaves open how tokens are merged", "give into or rates")
    if into is not None and rates is not None:
        raise OptionError("rates", list(rates), "and `into` are both given", "into: null")
    if len(given) != len(shares):
        raise OptionError(option, list(given), f"has not one number for each of the {len(shares)} shares")
    if rates is not None:
        return list(rates)
    ends = part_ends(grid[0] * grid[1], shares)
    return [max(1, -(-(end - start) // count)) for (start, end), count in zip(pairwise(ends), given, strict=True)]
