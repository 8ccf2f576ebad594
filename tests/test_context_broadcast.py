"""Context broadcasting against its formula, token by token."""

from __future__ import annotations

import torch
from archspec.blocks.context_broadcast import ContextBroadcast
from torch import Tensor


def mean_token(image: Tensor) -> Tensor:
    total = torch.zeros_like(image[0])
    for token in image:
        total = total + token
    return total / len(image)


def test_each_token_meets_the_mean_halfway() -> None:
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    expected = torch.stack([torch.stack([(token + mean_token(image)) / 2 for token in image]) for image in x])
    block = ContextBroadcast(3)
    torch.testing.assert_close(block(x), expected)
    assert not list(block.parameters())


def test_the_scaled_form_adds_the_mean_by_channel() -> None:
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    block = ContextBroadcast(3, scaled=True).double()
    with torch.no_grad():
        block.scale.copy_(torch.tensor([0.5, -1.0, 2.0]))
    expected = torch.stack([torch.stack([token + block.scale * mean_token(image) for token in image]) for image in x])
    torch.testing.assert_close(block(x), expected)
    assert [tuple(weight.shape) for weight in block.parameters()] == [(3,)]


def test_the_scale_starts_where_it_is_told() -> None:
    x = torch.randn(2, 5, 3)
    torch.testing.assert_close(ContextBroadcast(3, scaled=True)(x), x, rtol=0, atol=0)
    assert ContextBroadcast(3, scaled=True, initial=0.25).scale.tolist() == [0.25] * 3
