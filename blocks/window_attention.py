"""Window attention: self-attention inside M×M windows, with a learned bias per head and relative position, or without.

B batch, C channels, H × W the map, M window, N = M*M tokens of a window, nW windows of a map, h heads, d = C/h.

Paper: Swin Transformer, section 3.2, equation 4, https://arxiv.org/abs/2103.14030. Query at (y, x) and key at (y', x')
of a window share the bias table's row (y - y' + M - 1) * (2M - 1) + (x - x' + M - 1); windows go row by row.

Differences:
- Windows are not shifted (NomMer, section 3.2.2, uses them so).
- `position_bias: false` leaves the bias out, as a row of MAT's ablation does, by its parameters (Vo, dissertation,
  2023, table 4.9).
- A map that M does not divide, or smaller than M, is padded on the right and at the bottom, and the padded keys are
  masked, so padding never reaches a real token. Swin leaves padded zeros among the keys.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from archspec.checks import divides
from archspec.layout import Grid
from archspec.registry import register


def windows(x: Tensor, window: int) -> Tensor:
    """(B, H, W, C) -> (B*nW, N, C), in one copy; the window divides H and W."""
    x = x.unflatten(2, (-1, window)).unflatten(1, (-1, window))  # (B, H/M, M, W/M, M, C)
    return x.transpose(2, 3).reshape(-1, window * window, x.shape[-1])


def from_windows(tokens: Tensor, window: int, grid: Grid) -> Tensor:
    """(B*nW, N, C) -> (B, H, W, C) with grid = (H, W): the inverse of `windows`, in one copy."""
    H, W = grid
    x = tokens.reshape(-1, H // window, W // window, window, window, tokens.shape[-1])
    return x.transpose(2, 3).reshape(-1, H, W, tokens.shape[-1])


def pad_to_windows(x: Tensor, window: int) -> Tensor:
    """(B, H, W, C) with zeros on the right and at the bottom until the window divides it."""
    H, W = x.shape[1:3]
    return F.pad(x, (0, 0, 0, -W % window, 0, -H % window)) if H % window or W % window else x


def relative_position_index(window: int) -> Tensor:
    """(N, N): the row of the bias table for each pair of query and key."""
    place = torch.arange(window)
    offset = place[:, None] - place + window - 1  # (M, M), from 0 to 2M - 2
    index = offset[:, None, :, None] * (2 * window - 1) + offset[None, :, None, :]  # (y, x, y', x')
    return index.reshape(window * window, window * window)


@register("mixer", "window", layout="map", tags=("attention", "local"))
class WindowAttention(nn.Module):
    """Self-attention inside windows, with a relative position bias."""

    index: Tensor

    def __init__(
        self,
        width: int,
        *,
        heads: Annotated[int, Field(ge=1, le=1024, description="attention heads; divides the width")] = 8,
        window: Annotated[int, Field(ge=1, le=64, description="side of a window, in tokens")] = 7,
        qkv_bias: Annotated[bool, Field(description="bias of the query, key and value projection")] = True,
        position_bias: Annotated[bool, Field(description="the learned bias per head and relative position")] = True,
    ) -> None:
        super().__init__()
        divides("heads", heads, "the width", width)
        self.heads, self.window = heads, window
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)
        self.bias_table: nn.Parameter | None = None
        if position_bias:
            self.bias_table = nn.Parameter(nn.init.trunc_normal_(torch.empty((2 * window - 1) ** 2, heads), std=0.02))
            self.register_buffer("index", relative_position_index(window), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        B, _, H, W = x.shape
        padded = pad_to_windows(x.permute(0, 2, 3, 1), self.window)
        qkv = self.qkv(windows(padded, self.window)).unflatten(-1, (3, self.heads, -1))  # (B*nW, N, 3, h, d)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B*nW, h, N, d) each
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias(B, (H, W)))
        y = self.proj(y.transpose(1, 2).flatten(2))  # (B*nW, N, C)
        y = from_windows(y, self.window, (padded.shape[1], padded.shape[2]))
        return y[:, :H, :W].permute(0, 3, 1, 2)

    def bias(self, batch: int, grid: Grid) -> Tensor | None:
        """What is added to the scores, (1, h, N, N); -inf at padded keys, if any, and then (B*nW, h, N, N).

        Without a position bias: nothing, or which keys are none of the padding, (B*nW, 1, 1, N).
        """
        bias = None
        if self.bias_table is not None:
            bias = self.bias_table[self.index].permute(2, 0, 1)[None].contiguous()
        if grid[0] % self.window == 0 and grid[1] % self.window == 0:
            return bias
        real = pad_to_windows(torch.ones(1, *grid, 1, dtype=torch.bool, device=self.proj.weight.device), self.window)
        real = windows(real, self.window)[:, None].mT  # (nW, 1, 1, N)
        keys = real if bias is None else bias.masked_fill(~real, float("-inf"))
        return keys.repeat(batch, 1, 1, 1)

    def fit_weight(self, name: str, value: Tensor, grid: Grid | None) -> tuple[Tensor, str] | None:
        """A checkpoint's bias table for windows of another size, resized bicubically; see archspec.weights."""
        if name != "bias_table" or value.ndim != 2:
            return None
        side, target = math.isqrt(value.shape[0]), 2 * self.window - 1
        if side == target or side % 2 == 0 or side * side != value.shape[0]:
            return None
        precise = value.to(torch.promote_types(value.dtype, torch.float32))  # half precision is not implemented
        table = precise.t().reshape(1, -1, side, side)  # (1, h, 2M - 1, 2M - 1)
        sized = F.interpolate(table, size=(target, target), mode="bicubic").flatten(2)[0].t()
        return sized.to(value.dtype), f"window {(side + 1) // 2} -> {self.window}, bicubic"
