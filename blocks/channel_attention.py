"""Channel attention: what the mean position says of the channels is added to each position.

Paper: "A Close Look at Spatial Modeling: From Attention to Convolution" (FCViT), appendix B, figure 5, and table 7,
https://arxiv.org/abs/2212.12552. It stands at the end of the feed-forward network; its convolutions run along the
channels and have 10 parameters together, as in the paper.

Differences, as released: an activation stands before the mean and between the convolutions, of 3 and 5 channels.

B images, N tokens (class tokens included), C channels.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from archspec.registry import register


@register("modifier", "channel_attention")
class ChannelAttention(nn.Module):
    """x + what two convolutions along the channels make of the mean token."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(1, 1, 3, padding=1)
        self.conv2 = nn.Conv1d(1, 1, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        mean = F.gelu(x).mean(1, keepdim=True)  # (B, 1, C)
        return x + self.conv2(F.gelu(self.conv1(mean)))
