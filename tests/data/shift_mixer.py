"""A token mixer without attention: a quarter of the channels moves up, one down, one left, one right."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from archspec.errors import OptionError
from archspec.registry import register


@register("mixer", "shift", layout="map", tags=("shift",))
class Shift(nn.Module):
    """Moves channels by a few tokens in four directions, then mixes them."""

    def __init__(
        self,
        width: int,  # dimensions come first: archspec fills them in by name
        *,  # options come behind the star: they are what YAML may say
        step: Annotated[int, Field(ge=1, le=16, description="how far, in tokens")] = 1,
        bias: Annotated[bool, Field(description="bias of the projection")] = True,
    ) -> None:
        super().__init__()
        if width % 4:
            raise OptionError("type", "shift", f"needs a width that 4 divides, which {width} is not", "try 64")
        self.step = step
        self.proj = nn.Conv2d(width, width, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W), because of layout="map"
        up, down, left, right = x.chunk(4, dim=1)
        moved = (up.roll(-self.step, 2), down.roll(self.step, 2), left.roll(-self.step, 3), right.roll(self.step, 3))
        return self.proj(torch.cat(moved, dim=1))
