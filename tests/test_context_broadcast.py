"""Context broadcasting against its formula, token by token."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from archspec import api
from archspec.blocks.context_broadcast import ContextBroadcast
from archspec.loading import load_spec


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


@pytest.mark.parametrize("ffn", ["mlp", "conv_mlp"])
@pytest.mark.parametrize("at", ["ffn.front", "ffn.middle", "ffn.end", "mixer.front", "mixer.end"])
def test_it_stands_at_each_of_the_papers_positions(ffn: str, at: str) -> None:
    """Seen from inside the block: what goes in and out there is the formula, at the width of the position."""
    sets = [f"stages[0].ffn={{type: {ffn}, ratio: 2}}", f"stages[0].modifiers=[{{type: context_broadcast, at: {at}}}]"]
    network = api.build(load_spec("nommer_micro", sets=sets))
    (found,) = [module for module in network.modules() if isinstance(module, ContextBroadcast)]
    seen = []
    found.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))
    with torch.inference_mode():
        network(torch.randn(2, 1, 32, 32))
    ((x, y),) = seen
    assert x.shape == (2, 256, 32 if at == "ffn.middle" else 16)
    torch.testing.assert_close(y, (x + x.mean(1, keepdim=True)) / 2)
