"""Normalisations of tokens, and of maps where a stem or a downsampler needs one.

Papers: Ba et al., "Layer Normalization", https://arxiv.org/abs/1607.06450; Ioffe and Szegedy, "Batch Normalization",
https://arxiv.org/abs/1502.03167; Wu and He, "Group Normalization", https://arxiv.org/abs/1803.08494.

Differences: none known. Weights and statistics are named as in PyTorch, so those of a BatchNorm2d fit `batch`.

B images, N tokens, C channels, H x W map.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from archspec.checks import divides
from archspec.registry import register

Eps = Annotated[float, Field(ge=1e-12, le=1.0, description="added to the variance")]


@register("norm", "layer")
class LayerNorm(nn.LayerNorm):
    """Each token over its channels."""

    def __init__(self, width: int, *, eps: Eps = 1e-5) -> None:
        super().__init__(width, eps=eps)


@register("norm", "batch")
class BatchNorm(nn.BatchNorm1d):
    """Each channel over the batch and all tokens."""

    def __init__(
        self,
        width: int,
        *,
        eps: Eps = 1e-5,
        momentum: Annotated[float, Field(ge=0.0, le=1.0, description="weight of a batch in the running figures")] = 0.1,
    ) -> None:
        super().__init__(width, eps=eps, momentum=momentum)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1)).reshape(x.shape)  # (B*N, C) in between


@register("norm", "group")
class GroupNorm(nn.Module):
    """Each image over all its tokens and a group of channels."""

    def __init__(
        self,
        width: int,
        *,
        groups: Annotated[int, Field(ge=1, le=1024, description="groups of channels; divides the width")] = 1,
        eps: Eps = 1e-5,
    ) -> None:
        super().__init__()
        divides("groups", groups, "the width", width)
        self.groups, self.eps = groups, eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        # As a map of height 1 it is channels-last, which group_norm on CPU takes without a copy.
        y = x.transpose(1, 2).unsqueeze(2)  # (B, C, 1, N)
        y = F.group_norm(y, self.groups, self.weight, self.bias, self.eps)
        return y.squeeze(2).transpose(1, 2).contiguous()  # (B, N, C)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, groups={self.groups}, eps={self.eps}"


class MapLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of a map (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # (B, H, W, C) in between


MapNorm = Literal["none", "batch", "layer", "group"]


def map_norm(norm: MapNorm, width: int) -> nn.Module:
    """The normalisation of a map by its name in the options of stems and downsamplers; `group` has one group."""
    kinds: dict[str, Callable[..., nn.Module]] = {
        "batch": nn.BatchNorm2d,
        "layer": MapLayerNorm,
        "group": partial(nn.GroupNorm, 1),
    }
    return kinds[norm](width, eps=1e-5) if norm != "none" else nn.Identity()
