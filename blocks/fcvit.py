"""FCViT's token mixer: rounds of a global context added to each position, a large convolution and a bottleneck.

Paper: "A Close Look at Spatial Modeling: From Attention to Convolution" (FCViT), sections 3.2.2 and 4.2, appendix B,
tables 2 and 7 to 9, https://arxiv.org/abs/2212.12552. Their ablations are options: `context` and `competition`
(tables 2 and 8), `groups` and `kernel` (section 4.2), `rounds`, and `spatial_attention` (table 7; the channel attention
beside it is the modifier `channel_attention`).

Differences, all as released:
- The similarity is standardised over groups and positions together; the paper says for each group.
- The context's bottleneck has biases, and, without competition, the activation in its middle.
- The pointwise convolution is a bottleneck of at least 16 channels, and the activation follows it.
- The spatial attention has one depthwise convolution where the paper's text has two.

B images, C channels, H x W map, N = H*W positions, g groups of d channels each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from archspec.checks import divides
from archspec.errors import OptionError
from archspec.layout import to_map, to_tokens
from archspec.registry import register

Act = Callable[[], nn.Module]
NARROWEST = 16  # channels inside the pointwise bottleneck


class Maxout(nn.Module):
    """The two halves of the channels compete: (B, 2 * C) -> (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        return torch.maximum(first, second)


class ContextVector(nn.Module):
    """The mean position through a bottleneck: (B, C) -> (B, C)."""

    def __init__(self, width: int, act: Act, reduction: int, competition: bool) -> None:
        super().__init__()
        narrow = max(1, width // reduction)
        self.fc1 = nn.Linear(width, 2 * narrow if competition else narrow)
        self.act = Maxout() if competition else act()
        self.fc2 = nn.Linear(narrow, width)

    def forward(self, mean: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(mean)))


class StaticContext(nn.Module):
    """The same context for each position: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, vector: ContextVector) -> None:
        super().__init__()
        self.vector = vector

    def forward(self, x: Tensor) -> Tensor:
        return x + self.vector(x.mean((2, 3)))[..., None, None]


class DynamicContext(nn.Module):
    """The context weighted, at each position and by groups of channels, by its similarity to the mean position."""

    def __init__(self, vector: ContextVector, width: int, groups: int) -> None:
        super().__init__()
        divides("groups", groups, "the width", width)
        self.vector = vector
        self.groups, self.group_width = groups, width // groups
        self.eps = 1e-5
        self.weight = nn.Parameter(torch.ones(groups))
        self.bias = nn.Parameter(torch.zeros(groups))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        tokens = to_tokens(x)  # (B, N, C)
        mean = tokens.mean(1)
        weights = torch.addcmul(self.bias, self.standardised(self.similarity(tokens, mean)), self.weight)
        # Spread to all channels first: a sum that broadcasts over a few channels at a time is three times slower.
        weights = weights.unsqueeze(-1).expand(-1, -1, -1, self.group_width).flatten(2)  # (B, N, C)
        return to_map(torch.addcmul(tokens, weights, self.vector(mean)[:, None]), (x.shape[2], x.shape[3]))

    def similarity(self, tokens: Tensor, mean: Tensor) -> Tensor:
        """Dot products (B, N, C), (B, C) -> (B, N, g)."""
        # Summed by a product with ones: a batch of small matrix products would first have to move the groups apart.
        products = tokens * (mean * self.group_width**-0.5)[:, None]
        return products.unflatten(-1, (self.groups, -1)) @ products.new_ones(self.group_width)

    def standardised(self, similarity: Tensor) -> Tensor:
        """(B, N, g), each image with mean 0 and (unbiased) deviation 1."""
        centred = similarity - similarity.mean((1, 2), keepdim=True)
        freedom = max(1, centred.shape[1] * centred.shape[2] - 1)
        # By the norm, which has a gradient where an image is constant.
        deviation = torch.linalg.vector_norm(centred, dim=(1, 2), keepdim=True) * freedom**-0.5
        return centred / (deviation + self.eps)


class Round(nn.Module):
    """Global context, depthwise convolution, pointwise bottleneck, activation: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, context: nn.Module, width: int, act: Act, kernel: int, reduction: int) -> None:
        super().__init__()
        narrow = max(NARROWEST, width // reduction)
        self.context = context
        self.depthwise = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.fc1 = nn.Conv2d(width, narrow, 1)
        self.fc2 = nn.Conv2d(narrow, width, 1)
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(self.context(x))
        return self.act(self.fc2(self.act(self.fc1(y))))


class SpatialAttention(nn.Module):
    """A gate for each value of the map, from its surroundings: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, width: int, act: Act, reduction: int) -> None:
        super().__init__()
        narrow = max(1, width // reduction)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.fc1 = nn.Conv2d(width, narrow, 1)
        self.act = act()
        self.fc2 = nn.Conv2d(narrow, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc2(self.act(self.fc1(self.depthwise(x)))))


@register("mixer", "fcvit", layout="map", tags=("convolution", "local", "global"))
class FCViT(nn.Module):
    """Rounds of global context, large depthwise convolution and pointwise bottleneck."""

    def __init__(
        self,
        width: int,
        act: Act,
        *,
        rounds: Annotated[int, Field(ge=1, le=8, description="how many times all of it is done")] = 2,
        kernel: Annotated[int, Field(ge=1, le=63, description="side of the depthwise convolution; odd")] = 11,
        context: Annotated[
            Literal["none", "static", "dynamic"],
            Field(
                description="global context: none, the same everywhere, or by each position's similarity to the mean"
            ),
        ] = "dynamic",
        groups: Annotated[
            int, Field(ge=1, le=1024, description="groups of channels with a similarity each; divides the width")
        ] = 8,
        competition: Annotated[
            bool, Field(description="whether two vectors compete in the context's bottleneck")
        ] = True,
        reduction: Annotated[int, Field(ge=1, le=256, description="width over the width inside the bottlenecks")] = 8,
        spatial_attention: Annotated[bool, Field(description="a gate from the surroundings, at the end")] = False,
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise OptionError("kernel", kernel, "is even and would shift the map", f"try {kernel - 1} or {kernel + 1}")

        def make_context() -> nn.Module:
            if context == "none":
                return nn.Identity()
            vector = ContextVector(width, act, reduction, competition)
            return StaticContext(vector) if context == "static" else DynamicContext(vector, width, groups)

        self.rounds = nn.Sequential(*(Round(make_context(), width, act, kernel, reduction) for _ in range(rounds)))
        self.end = SpatialAttention(width, act, reduction) if spatial_attention else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return self.end(self.rounds(x))
