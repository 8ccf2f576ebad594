"""Multi-head attention against a loop over its heads."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from archspec.blocks.attention import Attention
from archspec.errors import OptionError


def plain_attention(block: Attention, x: Tensor, heads: int, broadcast_heads: int = 0) -> Tensor:
    """The same, one head of one image at a time."""
    d = block.proj.in_features // heads
    learned = (heads - broadcast_heads) * d
    images = []
    for image in x:
        q, k, v = block.qkv(image).split(learned, dim=-1)
        outputs = []
        for start in range(0, learned, d):
            part = slice(start, start + d)
            scores = q[:, part] @ k[:, part].T / math.sqrt(d)
            weights = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
            outputs.append(weights @ v[:, part])
        for start in range(learned, heads * d, d):
            part = image[:, start : start + d]
            outputs.append((part + part.mean(dim=0)) / 2)
        images.append(block.proj(torch.cat(outputs, dim=1)))
    return torch.stack(images)


@pytest.mark.parametrize(("heads", "broadcast_heads"), [(1, 0), (3, 0), (3, 1), (4, 3)])
def test_attention_is_the_loop_over_its_heads(heads: int, broadcast_heads: int) -> None:
    torch.manual_seed(0)
    block = Attention(24, heads=heads, broadcast_heads=broadcast_heads).double()
    x = torch.randn(2, 7, 24, dtype=torch.float64)
    torch.testing.assert_close(block(x), plain_attention(block, x, heads, broadcast_heads), rtol=1e-12, atol=1e-12)


def test_a_broadcasting_head_of_vit_small_saves_its_projections() -> None:
    def count(**options: int) -> int:
        with torch.device("meta"):
            return sum(weight.numel() for weight in Attention(384, heads=6, **options).parameters())

    assert count() == 384 * 3 * 384 + 3 * 384 + 384 * 384 + 384
    assert count() - count(broadcast_heads=1) == 384 * 3 * 64 + 3 * 64 == 73_920


def test_biases_can_be_left_out() -> None:
    block = Attention(8, heads=2, qkv_bias=False, proj_bias=False)
    assert set(block.state_dict()) == {"qkv.weight", "proj.weight"}


def test_heads_that_do_not_fit_are_refused() -> None:
    with pytest.raises(OptionError, match=r"heads: 7 does not divide the width 64 \(try 8\)"):
        Attention(64, heads=7)
    with pytest.raises(OptionError, match=r"broadcast_heads: 2 leaves none of the 2 heads to learn \(at most 1\)"):
        Attention(64, heads=2, broadcast_heads=2)
