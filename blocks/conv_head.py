"""Heads with a hidden layer between the last map and the classifier.

- conv: a 1×1 convolution, batch norm and activation on the map, then its mean (MAT: Vo, "Efficient Vision Transformers
  with Multi-Scale and Partial Attentions for Object Recognition", dissertation, 2023, chapter 4).
- mlp: the mean, a LayerNorm, a linear and an activation (PartialFormer: the same, chapter 5).

Differences:
- The text does not describe the heads of its networks; these were fitted to the published parameter counts.

B images, P class tokens, N map tokens, C channels, D hidden channels, K classes.
"""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from archspec.registry import register

from .norms import BatchNorm

Hidden = Annotated[int, Field(ge=1, le=65_536, description="channels of the hidden layer")]


@register("head", "conv")
class ConvHead(nn.Module):
    """A 1×1 convolution, batch norm and GELU on the map; their mean through one linear."""

    def __init__(self, width: int, classes: int, prefix_tokens: int, *, hidden: Hidden = 1280) -> None:
        super().__init__()
        self.skipped = prefix_tokens
        self.conv = nn.Linear(width, hidden)  # of tokens, which is a 1×1 convolution of their map
        self.norm = BatchNorm(hidden)
        self.classifier = nn.Linear(hidden, classes) if classes else nn.Identity()

    def features(self, x: Tensor) -> Tensor:
        """(B, P+N, C) -> (B, D), what the classifier sees."""
        return F.gelu(self.norm(self.conv(x[:, self.skipped :]))).mean(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))  # (B, K)


@register("head", "mlp")
class MlpHead(nn.Module):
    """The mean over the map, LayerNorm, linear and GELU, through one more linear."""

    def __init__(self, width: int, classes: int, prefix_tokens: int, *, hidden: Hidden = 1280) -> None:
        super().__init__()
        self.skipped = prefix_tokens
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, hidden)
        self.classifier = nn.Linear(hidden, classes) if classes else nn.Identity()

    def features(self, x: Tensor) -> Tensor:
        """(B, P+N, C) -> (B, D), what the classifier sees."""
        return F.gelu(self.hidden(self.norm(x[:, self.skipped :].mean(dim=1))))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))  # (B, K)
