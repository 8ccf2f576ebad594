"""Position embedding that starts as sines and cosines of the coordinates, and then learns.

Paper: Vaswani et al., "Attention Is All You Need", section 3.5, https://arxiv.org/abs/1706.03762, here of two
coordinates; as SG-Former (Ren et al., https://arxiv.org/abs/2308.12216) was released.

Differences:
- At another input size than the spec's the sines and cosines of that size are added, not what was learned.

B images, P class tokens, H x W map, C channels.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from archspec.errors import OptionError
from archspec.layout import Grid
from archspec.registry import register


def waves(length: int, count: int, temperature: float, device: torch.device | None = None) -> Tensor:
    """(length, 2 * count), float64: the sines, then the cosines, of x / temperature^(k / count) for k < count."""
    x = torch.arange(length, dtype=torch.float64, device=device)
    k = torch.arange(count, dtype=torch.float64, device=device)
    angles = x[:, None] / temperature ** (k / count)
    return torch.cat((angles.sin(), angles.cos()), dim=1)


@register("position", "sine")
class SinePosition(nn.Module):
    """A learned vector added at each position of the map; at first sines and cosines of x, then of y."""

    def __init__(
        self,
        width: int,
        grid: Grid,
        prefix_tokens: int,
        *,
        temperature: Annotated[float, Field(ge=1, le=1e9, description="the longest wave over the shortest")] = 10_000.0,
        trainable: Annotated[bool, Field(description="whether it learns")] = True,
    ) -> None:
        super().__init__()
        if width % 4:
            rule = f"needs a width that 4 divides, for sines and cosines of two coordinates; {width} is not"
            raise OptionError("type", "sine", rule, f"try width {width + -width % 4}")
        self.grid, self.skipped = grid, prefix_tokens
        self.width, self.temperature = width, temperature
        initial = self.initial(grid).to(torch.get_default_dtype())
        self.embedding = nn.Parameter(initial, requires_grad=trainable)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        same = tuple(grid) == tuple(self.grid)
        embedding = self.embedding if same else self.initial(grid, x.device).to(self.embedding.dtype)
        return x + F.pad(embedding, (0, 0, self.skipped, 0))  # class tokens have no place on the map

    def fit_weight(self, name: str, value: Tensor, grid: Grid | None) -> tuple[Tensor, str] | None:
        """A checkpoint's embedding, (1, H*W, C); where it is of another size, the initial one. See archspec.weights."""
        if value.ndim != 3 or value.shape[2] != self.width:
            return None
        if value.shape == self.embedding.shape and (grid is None or tuple(grid) == tuple(self.grid)):
            return value, ""
        return self.initial(self.grid).to(value.dtype), "of another size: sines and cosines anew, not what was learned"

    def initial(self, grid: Grid, device: torch.device | None = None) -> Tensor:
        """The sines and cosines for a map of this size, row by row: (1, H*W, C)."""
        H, W = grid
        rows, columns = (waves(size, self.width // 4, self.temperature, device) for size in grid)
        both = (columns.expand(H, W, -1), rows[:, None].expand(H, W, -1))
        return torch.cat(both, dim=-1).reshape(1, H * W, self.width)
