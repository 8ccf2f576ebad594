"""Global filters: every channel of the map is multiplied by a learned filter in the frequency domain.

Rao et al. 2021, "Global Filter Networks for Image Classification", section 3.2, https://arxiv.org/abs/2107.00645
"""

from math import log2
from typing import Any

import torch
from torch import Tensor, nn

from archspec import register_formula
from archspec.registry import register


@register("mixer", "global_filter", layout="map", tags=("filter",))
class GlobalFilter(nn.Module):
    """Mixes all tokens of the map by a product of spectra."""

    def __init__(self, width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        height, length = grid
        self.filter = nn.Parameter(0.02 * torch.randn(width, height, length // 2 + 1, 2))

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W)
        spectrum = torch.fft.rfft2(x, norm="ortho")  # (B, C, H, W // 2 + 1)
        return torch.fft.irfft2(spectrum * torch.view_as_complex(self.filter), s=x.shape[-2:], norm="ortho")


def fourier(args: tuple[Any, ...], out: Tensor) -> int:
    """n log2(n) multiply-accumulates for each map of n pixels; of the two tensors, the map is the real one."""
    maps = out if args[0].is_complex() else args[0]
    return round(maps.numel() * log2(maps.shape[-2] * maps.shape[-1]))


register_formula(torch.ops.aten._fft_r2c, fourier)
register_formula(torch.ops.aten._fft_c2r, fourier)
