"""Feed-forward networks: what follows the mixer in a block.

Paper: Vaswani et al., "Attention Is All You Need", section 3.3, https://arxiv.org/abs/1706.03762.

Differences: none known.

B images, N tokens, C channels, D hidden channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from archspec.registry import register


@register("ffn", "mlp", tags=("mlp",))
class MLP(nn.Module):
    """Linear, activation, linear."""

    def __init__(
        self,
        width: int,
        act: Callable[[], nn.Module],
        *,
        ratio: Annotated[float, Field(ge=0.1, le=64, description="hidden width as a multiple of the width")] = 4.0,
        bias: Annotated[bool, Field(description="biases of both linears")] = True,
    ) -> None:
        super().__init__()
        self.hidden_width = max(1, int(width * ratio))
        self.fc1 = nn.Linear(width, self.hidden_width, bias=bias)
        self.act = act()
        self.middle = nn.Identity()  # a modifier may stand here
        self.fc2 = nn.Linear(self.hidden_width, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        y = self.middle(self.act(self.fc1(x)))  # (B, N, D)
        return self.fc2(y)
