"""Token mixing by a perceptron along the tokens, the same for every channel.

Paper: Tolstikhin et al., "MLP-Mixer: An all-MLP Architecture for Vision", section 2, https://arxiv.org/abs/2105.01601.

Differences: none known. As everywhere here, the norm before it belongs to the block, not to the mixer.

B images, N tokens (class tokens included), C channels, D hidden tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from archspec.errors import UsageError
from archspec.layout import Grid
from archspec.registry import register


@register("mixer", "token_mlp", tags=("mlp",))
class TokenMLP(nn.Module):
    """Perceptron along the tokens (MLP-Mixer); tied to the spec's input size."""

    def __init__(
        self,
        width: int,
        grid: Grid,
        prefix_tokens: int,
        act: Callable[[], nn.Module],
        *,
        ratio: Annotated[float, Field(ge=0.01, le=64, description="hidden tokens as a multiple of the width")] = 0.5,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.tokens = prefix_tokens + grid[0] * grid[1]
        hidden = max(1, int(width * ratio))
        self.fc1 = nn.Linear(self.tokens, hidden)
        self.act = act()
        self.fc2 = nn.Linear(hidden, self.tokens)

    def forward(self, x: Tensor) -> Tensor:
        self._check_tokens(x.shape[1])
        y = x.transpose(1, 2)  # (B, C, N)
        y = self.fc2(self.act(self.fc1(y)))  # (B, C, D) in between
        return y.transpose(1, 2)  # (B, N, C)

    def _check_tokens(self, tokens: int) -> None:
        if tokens != self.tokens:
            raise UsageError(
                f"token_mlp has a weight for each of {self.tokens} tokens ({self.grid[0]}×{self.grid[1]} map) and was "
                f"given {tokens}: it cannot take another input size than the spec's; build the network for that size"
            )
