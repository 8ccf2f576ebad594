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
from typing import Annotated, Any, Literal

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


def pad_to(x: Tensor, height: int, width: int) -> Tensor:
    """(B, H, W, ...) with zeros on the right and at the bottom until both sides divide."""
    down, right = -x.shape[1] % height, -x.shape[2] % width
    return F.pad(x, (0, 0) * (x.ndim - 3) + (0, right, 0, down)) if down or right else x


def split_windows(x: Tensor, height: int, width: int) -> Tensor:
    """(B, H, W, ..., h, d) -> (..., B*n, h, height*width, d): one copy, or none for a single window."""
    x = x.unflatten(2, (-1, width)).unflatten(1, (-1, height))  # (B, n, height, n, width, ..., h, d)
    between = range(5, x.ndim - 2)
    x = x.permute(*between, 0, 1, 3, -2, 2, 4, -1)
    return x.flatten(-3, -2).flatten(-6, -4)


def join_windows(x: Tensor, height: int, width: int, grid: Grid) -> Tensor:
    """(B*n, h, height*width, d) -> (B, H, W, h, d) with grid = (H, W): one copy, or none for a single window."""
    n = (grid[0] // height, grid[1] // width)
    x = x.unflatten(2, (height, width)).unflatten(0, (-1, *n))  # (B, n, n, h, height, width, d)
    return x.permute(0, 1, 4, 2, 5, 3, 6).flatten(3, 4).flatten(1, 2)


def real_tokens(grid: Grid, height: int, width: int, batch: int, device: torch.device) -> Tensor | None:
    """(B*n, height*width): which tokens of each window padding did not make; None where there is no padding."""
    if grid[0] % height == 0 and grid[1] % width == 0:
        return None
    real = pad_to(torch.ones(1, *grid, dtype=torch.bool, device=device), height, width)
    return split_windows(real[..., None, None], height, width)[:, 0, :, 0].repeat(batch, 1)


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
        y = self.conv(pad_to(x, self.scale, self.scale).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
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
    weights = real_q / real_q.sum(-1, keepdim=True)  # (B*n, q)
    return attention @ v, (seen.mean(1) * weights[..., None]).sum(1)


class ScaleGroup(nn.Module):
    """The heads of one scale: keys and values of their own, and attention to them."""

    def __init__(self, width: int, heads: int, head_width: int, scale: int, window: int | None, tell: bool) -> None:
        super().__init__()
        self.head_shape, self.scale, self.window = (heads, head_width), scale, window
        self.merge = Merge(width, scale) if scale > 1 else nn.Identity()
        self.q = nn.Linear(width, heads * head_width)
        self.kv = nn.Linear(width, 2 * heads * head_width)
        self.attend = attend_and_tell if tell else attend

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, H, W, C) -> output (B, H, W, h, d), and the significance (B, H, W) if it tells."""
        B, H, W, _ = x.shape
        kv = self.kv(self.merge(x)).unflatten(-1, (2, *self.head_shape))  # (B, K, L, 2, h, d)
        merged = (kv.shape[1], kv.shape[2])
        keys = (min(self.window or size, size) for size in merged)
        height, width = keys
        tall, wide = height * self.scale, width * self.scale
        k, v = split_windows(pad_to(kv, height, width), height, width).unbind(0)  # (B*n, h, k, d) each
        q = pad_to(self.q(x).unflatten(-1, self.head_shape), tall, wide)  # (B, H', W', h, d)
        padded = (q.shape[1], q.shape[2])
        real_q = real_tokens((H, W), tall, wide, B, x.device)
        real_k = real_tokens(merged, height, width, B, x.device)
        y, received = self.attend(split_windows(q, tall, wide), k, v, real_q, real_k)
        y = join_windows(y, tall, wide, padded)[:, :H, :W]
        return y, None if received is None else self.spread(received, (height, width), padded)[:, :H, :W]

    def spread(self, received: Tensor, window: Grid, padded: Grid) -> Tensor:
        """What keys received, (B*n, k), to each of the tokens that they were made of: (B, H', W'), padding included."""
        merged = (padded[0] // self.scale, padded[1] // self.scale)
        x = join_windows(received[:, None, :, None], *window, merged)[..., 0, 0]  # (B, K', L')
        return x.repeat_interleave(self.scale, 1).repeat_interleave(self.scale, 2)


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
