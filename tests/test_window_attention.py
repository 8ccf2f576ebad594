"""Window attention against a plain loop over windows, heads and pairs of tokens."""

import math

import pytest
import torch

from archspec.blocks.window_attention import WindowAttention, from_windows, windows
from archspec.errors import OptionError


def randomised(width, **options):
    module = WindowAttention(width, **options).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)
    return module


def plain_attention(module, tokens, places):
    """(n, C) tokens at (y, x) places -> (n, C), token by token."""
    heads, window = module.heads, module.window
    d = tokens.shape[1] // heads
    q, k, v = module.qkv(tokens).chunk(3, dim=1)
    out = torch.zeros_like(tokens)
    for head in range(heads):
        part = slice(head * d, head * d + d)
        for i, (y, x) in enumerate(places):
            scores = []
            for j, (other_y, other_x) in enumerate(places):
                row = (y - other_y + window - 1) * (2 * window - 1) + (x - other_x + window - 1)
                scores.append(q[i, part] @ k[j, part] / math.sqrt(d) + module.bias_table[row, head])
            out[i, part] = torch.stack(scores).softmax(0) @ v[:, part]
    return module.proj(out)


@torch.no_grad()
def plain(module, x):
    """Cut windows by hand, smaller ones at the border: no padding, no mask."""
    out = torch.zeros_like(x)
    M = module.window
    for b in range(x.shape[0]):
        for top in range(0, x.shape[2], M):
            for left in range(0, x.shape[3], M):
                cut = x[b, :, top : top + M, left : left + M]  # (C, height, width)
                places = [(y, z) for y in range(cut.shape[1]) for z in range(cut.shape[2])]
                y = plain_attention(module, cut.flatten(1).t(), places)
                out[b, :, top : top + M, left : left + M] = y.t().unflatten(1, cut.shape[1:])
    return out


@pytest.mark.parametrize(
    ("size", "window"),
    [((6, 9), 3), ((4, 4), 4), ((5, 7), 3), ((2, 3), 4), ((4, 7), 4)],
    ids=["divides", "one window", "padded", "larger than the map", "padded on one side"],
)
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_equals_windows_cut_by_hand(size, window, qkv_bias):
    module = randomised(8, heads=2, window=window, qkv_bias=qkv_bias)
    x = torch.randn(2, 8, *size, dtype=torch.float64)
    torch.testing.assert_close(module(x), plain(module, x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(6, 9), (5, 7)])
def test_without_a_position_bias_it_is_a_table_of_zeros(size):
    module = randomised(8, heads=2, window=3)
    torch.nn.init.zeros_(module.bias_table)
    plainer = WindowAttention(8, heads=2, window=3, position_bias=False).double()
    weights = {name: value for name, value in module.state_dict().items() if name != "bias_table"}
    assert set(plainer.state_dict()) == set(weights)
    plainer.load_state_dict(weights)
    x = torch.randn(2, 8, *size, dtype=torch.float64)
    torch.testing.assert_close(plainer(x), module(x), rtol=0, atol=1e-12)


def test_padding_elsewhere_changes_no_whole_window():
    module = randomised(8, heads=4, window=4)
    x = torch.randn(2, 8, 10, 11, dtype=torch.float64)
    torch.testing.assert_close(module(x)[:, :, :8, :8], module(x[:, :, :8, :8]), rtol=0, atol=1e-12)


def test_gradients_are_finite_under_padding():
    module = randomised(8, heads=2, window=4)
    x = torch.randn(1, 8, 5, 6, dtype=torch.float64, requires_grad=True)
    module(x).square().sum().backward()
    for tensor in (x, *module.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert tensor.grad.any()


def test_no_mask_where_the_window_divides():
    module = randomised(8, heads=2, window=4)
    assert module.bias(3, (8, 4)).shape == (1, 2, 16, 16)
    padded = module.bias(3, (8, 5))
    assert padded.shape == (3 * 4, 2, 16, 16)
    assert padded.isinf().any(dim=-1).any(dim=-1).all(dim=1).tolist() == [False, True, False, True] * 3


def test_windows_go_row_by_row_and_back():
    x = torch.arange(2 * 4 * 6).view(2, 4, 6, 1)
    cut = windows(x, 2)
    assert cut.shape == (2 * 6, 4, 1)
    assert cut[1].flatten().tolist() == [2, 3, 8, 9]
    assert cut[3].flatten().tolist() == [12, 13, 18, 19]
    assert torch.equal(from_windows(cut, 2, (4, 6)), x)


def test_parameters():
    module = WindowAttention(16, heads=2)
    qkv, proj, table = 3 * 16 * 16 + 3 * 16, 16 * 16 + 16, 13 * 13 * 2
    assert sum(parameter.numel() for parameter in module.parameters()) == qkv + proj + table
    assert set(module.state_dict()) == {"bias_table", "qkv.weight", "qkv.bias", "proj.weight", "proj.bias"}


def test_heads_divide_the_width():
    with pytest.raises(OptionError, match="heads: 3 does not divide the width 16"):
        WindowAttention(16, heads=3)


def test_meta():
    with torch.device("meta"):
        module = WindowAttention(16, heads=2)
        assert module(torch.empty(1, 16, 9, 14)).shape == (1, 16, 9, 14)
