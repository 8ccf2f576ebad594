"""Hybrid-scale attention: each group of heads sees the map at a scale of its own; what is looked at is significant.

Paper: Ren et al., "SG-Former: Self-guided Transformer with Evolving Token Reallocation", section 3.3,
https://arxiv.org/abs/2308.12216. At scale s every s x s tokens are merged to one key and value by a convolution, and
attention runs in windows of M x M keys, which sM x sM tokens query. With the default options it is as released: a
coarse group, whose queries see all merged tokens, and a fine one in windows.

The significance of a token is the attention that it receives: the mean over the queries of its window and the heads of
a group, given to all tokens that were merged, and summed over the groups (equation 5). It is detached.

Differences:
- A map that s or M does not divide is padded on the right and at the bottom: with zeros before the convolution; the
  keys that padding alone makes are masked, and queries that it makes count nowhere.
- Merging is convolution, LayerNorm, GELU, as released; the paper speaks of the convolution alone.

B images, C channels, H x W map, h heads of d channels each in a group, K x L merged map, n windows of q queries
and k keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from archspec.checks import divides
from archspec.errors import OptionError
from archspec.layout import Grid
from archspec.registry import register

from .lepe import Lepe

Significance = Literal["hybrid", "local", "global", "uniform"]


class Windows(NamedTuple):
    """A map cut into windows; what the last ones lack on the right and at the bottom is padding."""

    grid: Grid
    height: int
    width: int

    @property
    def counts(self) -> Grid:
        """Windows from top to bottom and from left to right."""
        return -(-self.grid[0] // self.height), -(-self.grid[1] // self.width)

    def pad(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H', W', C) with zeros, where windows do not cover the map evenly."""
        down, right = -self.grid[0] % self.height, -self.grid[1] % self.width
        return F.pad(x, (0, 0, 0, right, 0, down)) if down or right else x

    def split(self, x: Tensor, parts: int, heads: int) -> Tensor:
        """(B, H, W, parts*h*d) -> (parts, B*n, h, q, d) in one copy; without any for a single window."""
        Y, X = self.counts
        x = self.pad(x).view(-1, Y, self.height, X, self.width, parts, heads, x.shape[-1] // (parts * heads))
        return x.permute(5, 0, 1, 3, 6, 2, 4, 7).reshape(parts, -1, heads, self.height * self.width, x.shape[-1])

    def join(self, x: Tensor) -> Tensor:
        """(B*n, h, q, d) -> (B, H, W, h, d) in one copy; without any for a single window."""
        (Y, X), (heads, _, d) = self.counts, x.shape[1:]
        x = x.reshape(-1, Y, X, heads, self.height, self.width, d).permute(0, 1, 4, 2, 5, 3, 6)
        return x.reshape(-1, Y * self.height, X * self.width, heads, d)[:, : self.grid[0], : self.grid[1]]

    def real(self, batch: int, device: torch.device) -> Tensor | None:
        """(B*n, q), False at padding; None where there is none."""
        if self.grid[0] % self.height == 0 and self.grid[1] % self.width == 0:
            return None
        real = torch.ones(1, *self.grid, 1, dtype=torch.bool, device=device)
        return self.split(real, 1, 1)[0, :, 0, :, 0].repeat(batch, 1)


class Merge(nn.Module):
    """Every s×s tokens to one: convolution, LayerNorm, GELU; zeros stand for tokens beyond the map."""

    def __init__(self, width: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.conv = nn.Conv2d(width, width, scale, stride=scale)
        self.norm = nn.LayerNorm(width, eps=1e-5)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, K, L, C)."""
        padded = Windows((x.shape[1], x.shape[2]), self.scale, self.scale).pad(x)
        y = self.conv(padded.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.act(self.norm(y))


def attend(q: Tensor, k: Tensor, v: Tensor, real_q: Tensor | None, real_k: Tensor | None) -> tuple[Tensor, None]:
    """Attention whose map nobody reads. real_q, real_k: (B*n, q) and (B*n, k), False at padding; None without any."""
    mask = None if real_k is None else real_k[:, None, None]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask), None


def attend_and_tell(
    q: Tensor, k: Tensor, v: Tensor, real_q: Tensor | None, real_k: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The same, and the attention that each key receives, (B*n, k): the mean over heads and real queries."""
    scores = q @ (k * q.shape[-1] ** -0.5).mT  # (B*n, h, q, k)
    if real_k is not None:
        scores = scores.masked_fill(~real_k[:, None, None], float("-inf"))
    attention = scores.softmax(-1)
    seen = attention.detach()
    if real_q is None:
        return attention @ v, seen.mean((1, 2))
    weights = real_q.to(seen.dtype)[..., None]  # (B*n, q, 1)
    return attention @ v, (seen.mean(1) * weights).sum(1) / weights.sum(1)


class ScaleGroup(nn.Module):
    """The heads of one scale: keys and values of their own, and attention to them."""

    def __init__(self, width: int, heads: int, head_width: int, scale: int, window: int | None, tell: bool) -> None:
        super().__init__()
        self.heads, self.scale, self.window = heads, scale, window
        self.merge = Merge(width, scale) if scale > 1 else nn.Identity()
        self.q = nn.Linear(width, heads * head_width)
        self.kv = nn.Linear(width, 2 * heads * head_width)
        self.attend = attend_and_tell if tell else attend

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, H, W, C) -> output (B, H, W, h, d), and the significance (B, H, W) if it tells."""
        B, H, W, _ = x.shape
        merged = self.merge(x)  # (B, K, L, C)
        K, L = merged.shape[1:3]
        keys = Windows((K, L), min(self.window or K, K), min(self.window or L, L))
        queries = Windows((H, W), keys.height * self.scale, keys.width * self.scale)
        k, v = keys.split(self.kv(merged), 2, self.heads)  # (B*n, h, k, d) each
        q = queries.split(self.q(x), 1, self.heads)[0]  # (B*n, h, q, d)
        y, received = self.attend(q, k, v, queries.real(B, x.device), keys.real(B, x.device))
        told = None if received is None else self.spread(keys.join(received[:, None, :, None]), (H, W))
        return queries.join(y), told

    def spread(self, received: Tensor, grid: Grid) -> Tensor:
        """What keys received, (B, K, L, 1, 1), to each of the tokens that they were made of: (B, H, W)."""
        B, K, L = received.shape[:3]
        x = received.view(B, K, 1, L, 1).expand(B, K, self.scale, L, self.scale)
        return x.reshape(B, K * self.scale, L * self.scale)[:, : grid[0], : grid[1]]


@register("mixer", "hybrid_scale", layout="map", side=True, tags=("attention", "local", "global"))
class HybridScaleAttention(nn.Module):
    """Attention at several scales, with a local branch; gives a significance map."""

    def __init__(
        self,
        width: int,
        *,
        heads: Annotated[int, Field(ge=1, le=1024, description="attention heads; divides the width")] = 8,
        scales: Annotated[
            tuple[Annotated[int, Field(ge=1, le=64)], ...],
            Field(min_length=1, max_length=16, description="side of the squares merged to one key, by group of heads"),
        ] = (8, 1),
        window: Annotated[int, Field(ge=1, le=64, description="side of a window, in keys")] = 7,
        reach: Annotated[
            Literal["map", "window"],
            Field(
                description="what queries see at scales above 1: all keys, as released, or a window, as in the paper"
            ),
        ] = "map",
        significance: Annotated[
            Significance,
            Field(description="attention that counts: of all groups, of scale 1, of the largest scale; or all equal"),
        ] = "hybrid",
    ) -> None:
        super().__init__()
        divides("heads", heads, "the width", width)
        divides("scales", len(scales), "the heads", heads)
        counted = _counted(significance, scales)
        self.groups = nn.ModuleList(
            ScaleGroup(
                width,
                heads // len(scales),
                width // heads,
                scale,
                window if reach == "window" or scale == 1 else None,
                scale in counted,
            )
            for scale in scales
        )
        self.lepe = Lepe(width)
        self.proj = nn.Linear(width, width)

    @staticmethod
    def provides(options: Mapping[str, Any]) -> tuple[str, ...]:
        """What it hands to later mixers."""
        return ("significance",)

    def forward(self, x: Tensor, side: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """(B, C, H, W) -> (B, C, H, W); adds the significance (B, N) to `side`."""
        x = x.permute(0, 2, 3, 1)
        outputs, told = zip(*(group(x) for group in self.groups), strict=True)
        y = torch.cat(outputs, dim=3).flatten(3)  # (B, H, W, heads, d), (B, H, W, C)
        significance = sum((one for one in told if one is not None), start=x.new_zeros(x.shape[:3]))
        y = self.proj(y + self.lepe(x)).permute(0, 3, 1, 2)
        return y, {**side, "significance": significance.flatten(1)}


def _counted(significance: Significance, scales: tuple[int, ...]) -> set[int]:
    """The scales whose attention makes the significance map."""
    if significance == "local" and 1 not in scales:
        raise OptionError("significance", significance, "needs a group of scale 1", "try hybrid")
    if significance == "global" and max(scales) == 1:
        raise OptionError("significance", significance, "needs a group of a scale above 1", "try hybrid")
    return {"hybrid": set(scales), "local": {1}, "global": {max(scales)}, "uniform": set[int]()}[significance]
