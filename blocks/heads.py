"""Heads: from the last stage's tokens, normalised, to the classes.

Papers: Dosovitskiy et al., "An Image is Worth 16x16 Words", section 3.1, https://arxiv.org/abs/2010.11929 (class
token); Lin et al., "Network In Network", section 3.2, https://arxiv.org/abs/1312.4400 (mean over the map).

Differences: none known.

B images, P class tokens, N map tokens, C channels, K classes.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from archspec.errors import OptionError
from archspec.registry import register


@register("head", "linear")
class LinearHead(nn.Module):
    """The mean over the map, or the class token, through one linear."""

    def __init__(
        self,
        width: int,
        classes: int,
        prefix_tokens: int,
        *,
        pool: Annotated[
            Literal["mean", "token"], Field(description="mean: over the map; token: the first class token")
        ] = "mean",
        bias: Annotated[bool, Field(description="bias of the classifier")] = True,
    ) -> None:
        super().__init__()
        if pool == "token" and not prefix_tokens:
            raise OptionError("pool", pool, "needs a class token, and the last stage has none", "try mean")
        self.pooled = slice(0, 1) if pool == "token" else slice(prefix_tokens, None)  # the mean of one token is itself
        self.classifier = nn.Linear(width, classes, bias=bias) if classes else nn.Identity()

    def features(self, x: Tensor) -> Tensor:
        """(B, P+N, C) -> (B, C), what the classifier sees."""
        return x[:, self.pooled].mean(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))  # (B, K)
