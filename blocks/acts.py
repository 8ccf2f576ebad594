"""Activations.

Papers: Hendrycks and Gimpel, "Gaussian Error Linear Units", https://arxiv.org/abs/1606.08415 (GELU, SiLU); Howard et
al., "Searching for MobileNetV3", section 5.2, https://arxiv.org/abs/1905.02244 (hard swish).

Differences: none known.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from archspec.registry import register


@register("act", "gelu")
class GELU(nn.GELU):
    """x times the normal distribution function of x."""

    def __init__(
        self,
        *,
        approximate: Annotated[
            Literal["none", "tanh"], Field(description="none: exact, by the error function; tanh: the approximation")
        ] = "none",
    ) -> None:
        super().__init__(approximate)


@register("act", "relu")
class ReLU(nn.ReLU):
    """The larger of x and 0."""

    def __init__(self) -> None:
        super().__init__()


@register("act", "silu")
class SiLU(nn.SiLU):
    """x times the logistic function of x (also called swish)."""

    def __init__(self) -> None:
        super().__init__()


@register("act", "hardswish")
class HardSwish(nn.Hardswish):
    """SiLU made of straight pieces."""

    def __init__(self) -> None:
        super().__init__()
