"""MAT attention: attention in windows, each with an abstract token that carries news to and from the other windows.

Paper: Vo, "Efficient Vision Transformers with Multi-Scale and Partial Attentions for Object Recognition", dissertation
(2023), section 4.3.1, equations 4.1-4.5. There is no released code. A learned token joins each window in its attention
(token abstraction); what the windows' tokens have become attends to itself (mixing); the image's tokens query the
result, and what they get is added to the window attention (fusion).

Differences:
- What the text leaves open was fitted to the 12 published parameter counts, all of which this reading gives: one
  abstract token a block serves every window, so that any image size works; the mixing has an output projection and
  neither norm nor residual; the fusion has its own linear for keys and values; its queries are those of the windows;
  the one output projection stands behind the sum.
- The token joins queries, keys and values behind their linear; equation 4.2 has it in front, which is 0.4 % more FLOPs
  with the same parameters.
- A map that the window does not divide is padded on the right and at the bottom behind the linear, and the padded keys
  are masked. The text says nothing of such maps.
- Where one window covers the map (stage 4 at 224 pixels) the mixing attends to a single token: its queries and keys
  learn nothing there.

B images, C channels, H x W map, N = H*W tokens, M window, nW windows of a map, h heads of d channels each.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from archspec.checks import divides
from archspec.layout import Grid
from archspec.registry import register

from .attention import Attention
from .window_attention import from_windows, pad_to_windows, windows


@register("mixer", "mat", layout="map", tags=("attention", "local", "global"))
class MatAttention(nn.Module):
    """Window attention whose windows exchange what they know through mixed abstract tokens."""

    def __init__(
        self,
        width: int,
        *,
        heads: Annotated[int, Field(ge=1, le=1024, description="heads of all three attentions; divides the width")] = 8,
        window: Annotated[int, Field(ge=1, le=64, description="side of a window, in tokens")] = 7,
    ) -> None:
        super().__init__()
        divides("heads", heads, "the width", width)
        self.heads, self.window = heads, window
        self.token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, width), std=0.02))
        self.qkv = nn.Linear(width, 3 * width)
        self.mixing = Attention(width, heads=heads)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        qkv = self.qkv(x.permute(0, 2, 3, 1))  # (B, H, W, 3C)
        local, abstract = self.abstraction(qkv)
        y = local + self.fusion(qkv[..., : x.shape[1]], self.mixing(abstract))
        return self.proj(y).permute(0, 3, 1, 2)

    def abstraction(self, qkv: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, W, 3C) -> what attention in windows makes of the map, (B, H, W, C), and of the tokens, (B, nW, C)."""
        B, H, W, _ = qkv.shape
        padded = pad_to_windows(qkv, self.window)
        cut = windows(padded, self.window)  # (B*nW, M*M, 3C)
        joined = torch.cat((self.token.repeat(cut.shape[0], 1, 3), cut), dim=1)
        q, k, v = joined.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)  # (B*nW, h, 1 + M*M, d)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask(B, (H, W), qkv.device))
        y = y.transpose(1, 2).flatten(2)  # (B*nW, 1 + M*M, C)
        local = from_windows(y[:, 1:], self.window, (padded.shape[1], padded.shape[2]))
        return local[:, :H, :W], y[:, 0].unflatten(0, (B, -1))

    def fusion(self, q: Tensor, mixed: Tensor) -> Tensor:
        """Queries (B, H, W, C) and the mixed tokens (B, nW, C) -> (B, H, W, C)."""
        k, v = self.kv(mixed).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)  # (B, h, nW, d)
        heads = q.flatten(1, 2).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, h, N, d)
        return F.scaled_dot_product_attention(heads, k, v).transpose(1, 2).reshape(q.shape)

    def mask(self, batch: int, grid: Grid, device: torch.device) -> Tensor | None:
        """The keys that are none of the padding, (B*nW, 1, 1, 1 + M*M); nothing where there is no padding."""
        if grid[0] % self.window == 0 and grid[1] % self.window == 0:
            return None
        real = pad_to_windows(torch.ones(1, *grid, 1, dtype=torch.bool, device=device), self.window)
        keys = F.pad(windows(real, self.window), (0, 0, 1, 0), value=1)  # (nW, 1 + M*M, 1)
        return keys[:, None].mT.repeat(batch, 1, 1, 1)
