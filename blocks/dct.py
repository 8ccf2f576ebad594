"""Block DCT: the orthonormal two-dimensional DCT-II of each N×N block of a map, lowest frequencies only, and back.

B batch, C channels, H × W the map, N block, l kept frequencies per axis, h × w = H/N × W/N the blocks.

Paper: NomMer, section 3.2.1, equations 1-4 and 6, https://arxiv.org/abs/2111.12994. Coefficient (v, u) of a block F is
    f(v, u) = sum over i, j of F(i, j) a(v, i) a(u, j),  a(k, i) = c(k) cos((i + 1/2) k pi / N),
    c(0) = sqrt(1/N), c(k) = sqrt(2/N) otherwise
and the inverse is the same sum over v, u. Coefficients are channel-major: C, then row frequency v, then column
frequency u.

Two forms give the same values. "conv", as released: fixed depthwise kernels, one copy per channel, that count as
parameters and stand in the state dict. "matmul": one l×N basis, applied along rows and columns; nothing is stored.

Differences:
- The inverse takes the l×l kept coefficients, the dropped ones being zero, as released (the paper says N×N).
- A map that N does not divide is padded with zeros on the right and at the bottom; the inverse crops.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.layout import Grid

Form = Literal["conv", "matmul"]


def dct_basis(block: int, kept: int) -> Tensor:
    """The first `kept` orthonormal DCT-II basis vectors, (kept, block), computed in float64."""
    return _exact_basis(block, kept).to(torch.get_default_dtype())


def _exact_basis(block: int, kept: int) -> Tensor:
    frequency = torch.arange(kept, dtype=torch.float64)[:, None]
    place = torch.arange(block, dtype=torch.float64) + 0.5
    basis = torch.cos(frequency * place * (math.pi / block)) * math.sqrt(2 / block)
    return torch.where(frequency == 0, math.sqrt(1 / block), basis)


def _kernels(block: int, kept: int) -> Tensor:
    """Basis images (kept*kept, block*block), (v, u) by (i, j), in the default dtype."""
    basis = _exact_basis(block, kept)
    return torch.kron(basis, basis).to(torch.get_default_dtype())


class BlockDct(nn.Module):
    """(B, C, H, W) -> (B, C*kept*kept, ceil(H/block), ceil(W/block)), channel-major, then v, then u."""

    def __init__(self, width: int, block: int, kept: int, form: Form) -> None:
        super().__init__()
        self.block = block
        self.transform = ConvDct(width, block, kept) if form == "conv" else MatmulDct(block, kept)

    def forward(self, x: Tensor) -> Tensor:
        """Pad to whole blocks and transform."""
        H, W = x.shape[2:]
        if H % self.block or W % self.block:
            x = F.pad(x, (0, -W % self.block, 0, -H % self.block))
        return self.transform(x)


class InverseBlockDct(nn.Module):
    """(B, C*kept*kept, h, w) and the size (H, W) to crop to -> (B, C, H, W), in channels-last memory."""

    def __init__(self, width: int, block: int, kept: int, form: Form) -> None:
        super().__init__()
        self.transform = ConvInverseDct(width, block, kept) if form == "conv" else MatmulInverseDct(block, kept)

    def forward(self, coefficients: Tensor, size: Grid) -> Tensor:
        """Transform back and crop what `BlockDct` padded."""
        return self.transform(coefficients)[:, :, : size[0], : size[1]]


class ConvDct(nn.Module):
    """The DCT as a depthwise convolution of stride `block`; `weight` (C*kept*kept, 1, block, block) is not trained."""

    def __init__(self, width: int, block: int, kept: int) -> None:
        super().__init__()
        self.width, self.block = width, block
        weight = _kernels(block, kept).view(kept * kept, 1, block, block).repeat(width, 1, 1, 1)
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C*l*l, h, w)."""
        return F.conv2d(x, self.weight, stride=self.block, groups=self.width)


class ConvInverseDct(nn.Module):
    """The inverse as a grouped 1×1 convolution; `weight` (C*block*block, kept*kept, 1, 1) is not trained."""

    def __init__(self, width: int, block: int, kept: int) -> None:
        super().__init__()
        self.width, self.block = width, block
        weight = _kernels(block, kept).t().repeat(width, 1)[:, :, None, None]
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, coefficients: Tensor) -> Tensor:
        """(B, C*l*l, h, w) -> (B, C, H, W)."""
        pixels = F.conv2d(coefficients, self.weight, groups=self.width)  # (B, C*N*N, h, w)
        pixels = pixels.unflatten(1, (self.width, self.block, self.block))  # (B, C, N, N, h, w)
        # Like pixel_shuffle, but into channels-last memory.
        return pixels.permute(0, 4, 2, 5, 3, 1).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


class MatmulDct(nn.Module):
    """The DCT by rows, then by columns; in channels-last memory both read the map as it lies."""

    basis: Tensor

    def __init__(self, block: int, kept: int) -> None:
        super().__init__()
        self.block, self.kept = block, kept
        self.register_buffer("basis", dct_basis(block, kept), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C*l*l, h, w)."""
        B, C, H, W = x.shape
        h, w = H // self.block, W // self.block
        rows = self.basis @ x.permute(0, 2, 3, 1).reshape(B * h, self.block, W * C)  # (B*h, l, W*C)
        both = self.basis @ rows.view(-1, self.block, C)  # (B*h*l*w, l, C)
        both = both.view(B, h, self.kept, w, self.kept, C).permute(0, 1, 3, 5, 2, 4)  # (B, h, w, C, l, l)
        return both.flatten(3).permute(0, 3, 1, 2)


class MatmulInverseDct(nn.Module):
    """The inverse by columns, then by rows; the result lies in channels-last memory without a copy."""

    basis: Tensor

    def __init__(self, block: int, kept: int) -> None:
        super().__init__()
        self.block, self.kept = block, kept
        self.register_buffer("basis", dct_basis(block, kept), persistent=False)

    def forward(self, coefficients: Tensor) -> Tensor:
        """(B, C*l*l, h, w) -> (B, C, H, W)."""
        B, _, h, w = coefficients.shape
        H, W = h * self.block, w * self.block
        blocks = coefficients.unflatten(1, (-1, self.kept, self.kept)).permute(0, 4, 2, 5, 3, 1)  # (B, h, l, w, l, C)
        C = blocks.shape[-1]
        columns = self.basis.t() @ blocks.reshape(-1, self.kept, C)  # (B*h*l*w, N, C)
        pixels = self.basis.t() @ columns.view(B * h, self.kept, W * C)  # (B*h, N, W*C)
        return pixels.view(B, H, W, C).permute(0, 3, 1, 2)
