"""Learned absolute position embedding.

Paper: Dosovitskiy et al., "An Image is Worth 16x16 Words", section 3.1, https://arxiv.org/abs/2010.11929.

Differences:
- At another input size than the spec's the part of the map is resized bicubically with antialiasing, in place of the
  paper's plain interpolation: this is what timm does with the same weights.

B images, P class tokens, H x W map, C channels.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from archspec.layout import Grid, to_map, to_tokens
from archspec.registry import register


@register("position", "learned")
class LearnedPosition(nn.Module):
    """A learned vector added at each position."""

    def __init__(
        self,
        width: int,
        grid: Grid,
        prefix_tokens: int,
        *,
        class_token: Annotated[bool, Field(description="whether the class tokens get a vector, too")] = True,
        std: Annotated[float, Field(ge=0.0, le=10.0, description="standard deviation of the initial values")] = 0.02,
        distribution: Annotated[
            Literal["trunc_normal", "normal"], Field(description="of the initial values; the first is cut at -2 and 2")
        ] = "trunc_normal",
    ) -> None:
        super().__init__()
        self.grid = grid
        self.embedded = prefix_tokens if class_token else 0  # class tokens that have a vector
        self.skipped = prefix_tokens - self.embedded
        self.embedding = nn.Parameter(torch.empty(1, self.embedded + grid[0] * grid[1], width))
        initialise = nn.init.normal_ if distribution == "normal" else nn.init.trunc_normal_
        initialise(self.embedding, std=std)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        return x + F.pad(self._at(grid), (0, 0, self.skipped, 0))  # zeros for class tokens without a vector

    def _at(self, grid: Grid) -> Tensor:
        """The embedding for a map of this size: (1, embedded + H*W, C)."""
        if tuple(grid) == tuple(self.grid):
            return self.embedding
        first, rest = self.embedding[:, : self.embedded], self.embedding[:, self.embedded :]
        return torch.cat((first, resized(rest, self.grid, grid)), dim=1)

    def fit_weight(self, name: str, value: Tensor, grid: Grid | None) -> tuple[Tensor, str] | None:
        """A checkpoint's embedding, (1, embedded + H*W, C) or (1, C, H, W), at this grid; see archspec.weights.

        Without a grid, tokens are taken to be those of a square map.
        """
        if value.ndim == 4 and not self.embedded:
            value, grid = to_tokens(value), (value.shape[2], value.shape[3])
        if value.ndim != 3 or value.shape[1] <= self.embedded:
            return None
        first, rest = value[:, : self.embedded], value[:, self.embedded :]
        height, width = grid or 2 * (math.isqrt(rest.shape[1]),)
        if height * width != rest.shape[1]:
            return None
        if (height, width) == tuple(self.grid):
            return value, ""
        note = f"{height} x {width} -> {self.grid[0]} x {self.grid[1]}, bicubic"
        return torch.cat((first, resized(rest, (height, width), self.grid)), dim=1), note


def resized(embedding: Tensor, grid: Grid, target: Grid) -> Tensor:
    """The embedding of a map, (1, H*W, C), for a map of another size."""
    precise = embedding.to(torch.promote_types(embedding.dtype, torch.float32))  # half precision is not implemented
    sized = F.interpolate(to_map(precise, grid), size=target, mode="bicubic", antialias=True)  # (1, C, H, W)
    return to_tokens(sized).to(embedding.dtype)
