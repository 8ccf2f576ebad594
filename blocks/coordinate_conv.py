"""Coordinate depthwise convolution: along the rows, then along the columns.

Paper: Vo, dissertation on efficient vision networks (EMSNet), section 3.7.1 and equation 3.11: a k×k depthwise
convolution taken apart into 1×k and k×1. There it stands inside the `ems` mixer; it is a mixer of its own here, too.

Differences: none known; neither convolution has a bias, which fits the published parameters.

B images, C channels, H x W map.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from archspec.errors import OptionError
from archspec.registry import register

OddKernel = Annotated[int, Field(ge=1, le=63, description="length of each kernel, odd")]


def check_odd(option: str, kernel: int) -> None:
    """An even kernel has no middle. Raises OptionError."""
    if kernel % 2 == 0:
        raise OptionError(option, kernel, "is even, so the kernel has no middle", f"try {kernel + 1}")


@register("mixer", "coordinate_conv", layout="map", tags=("convolution", "local"))
class CoordinateConv(nn.Module):
    """Depthwise 1×k convolution, then depthwise k×1."""

    def __init__(self, width: int, *, kernel: OddKernel = 7) -> None:
        super().__init__()
        check_odd("kernel", kernel)
        reach = kernel // 2
        self.along_rows = nn.Conv2d(width, width, (1, kernel), padding=(0, reach), groups=width, bias=False)
        self.along_columns = nn.Conv2d(width, width, (kernel, 1), padding=(reach, 0), groups=width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return self.along_columns(self.along_rows(x))
