"""Hybrid-scale attention and its significance map against plain loops over windows, heads and tokens."""

import math

import pytest
import torch
import torch.nn.functional as F

from archspec.blocks.hybrid_scale import HybridScaleAttention
from archspec.errors import OptionError

WIDTH, HEADS, WINDOW = 12, 6, 3


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def build(**options):
    module = HybridScaleAttention(WIDTH, **({"heads": HEADS, "window": WINDOW, "scales": (2, 1)} | options)).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)
    return module


def image(height, width):
    return torch.randn(2, WIDTH, height, width, dtype=torch.float64)


def plain_merge(group, x):
    """(C, H, W) -> {(row, column): (C,)}: every cell's real tokens through the convolution, the norm and the GELU."""
    s, merge = group.scale, group.merge
    _, H, W = x.shape
    if s == 1:
        return {(i, j): x[:, i, j] for i in range(H) for j in range(W)}
    cells = {}
    for row in range(math.ceil(H / s)):
        for column in range(math.ceil(W / s)):
            total = merge.conv.bias
            for i in range(row * s, min(row * s + s, H)):
                for j in range(column * s, min(column * s + s, W)):
                    total = total + merge.conv.weight[:, :, i - row * s, j - column * s] @ x[:, i, j]
            norm = F.layer_norm(total, (WIDTH,), merge.norm.weight, merge.norm.bias, 1e-5)
            cells[row, column] = 0.5 * norm * (1 + torch.erf(norm / math.sqrt(2)))
    return cells


def plain_group(group, x, reach):
    """(C, H, W) -> the group's output (H, W, h*d) and the significance (H, W), token by token."""
    _, H, W = x.shape
    s, heads, cells = group.scale, group.heads, plain_merge(group, x)
    d = group.q.out_features // heads
    side = None if reach == "map" and s > 1 else WINDOW

    def window_of(row, column):
        return (0, 0) if side is None else (row // side, column // side)

    kv = {cell: group.kv(value) for cell, value in cells.items()}
    out, received = torch.zeros(H, W, heads * d, dtype=x.dtype), torch.zeros(H, W, dtype=x.dtype)
    told = dict.fromkeys(cells, 0.0)
    for window in {window_of(*cell) for cell in cells}:
        keys = [cell for cell in cells if window_of(*cell) == window]
        queries = [(i, j) for i in range(H) for j in range(W) if window_of(i // s, j // s) == window]
        for i, j in queries:
            q = group.q(x[:, i, j])
            for head in range(heads):
                part, values = slice(head * d, head * d + d), slice((heads + head) * d, (heads + head + 1) * d)
                scores = torch.stack([q[part] @ kv[key][part] for key in keys]) / math.sqrt(d)
                attention = scores.softmax(0)
                out[i, j, part] = sum(a * kv[key][values] for a, key in zip(attention, keys, strict=True))
                for a, key in zip(attention, keys, strict=True):
                    told[key] += a / (len(queries) * heads)
    for i in range(H):
        for j in range(W):
            received[i, j] = told[i // s, j // s]
    return out, received


@torch.no_grad()
def plain(module, x, reach="map"):
    """(C, H, W) -> (C, H, W) and (H, W)."""
    groups = [plain_group(group, x, reach) for group in module.groups]
    local = F.linear(x.permute(1, 2, 0), module.lepe.linear.weight, module.lepe.linear.bias).permute(2, 0, 1)
    local = F.conv2d(local, module.lepe.conv.weight, module.lepe.conv.bias, padding=1, groups=WIDTH)
    y = module.proj(torch.cat([out for out, _ in groups], dim=-1) + local.permute(1, 2, 0))
    return y.permute(2, 0, 1), sum(received for _, received in groups)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, (6, 6)),  # both divide
        ({}, (7, 5)),  # neither does
        ({"reach": "window"}, (12, 6)),
        ({"reach": "window"}, (7, 9)),
        ({"reach": "window", "scales": (1, 2, 4)}, (9, 10)),
        ({"scales": (1,)}, (4, 7)),
        ({"scales": (3,)}, (6, 7)),
        ({"scales": (4, 1)}, (2, 2)),  # a map smaller than a window and a cell
    ],
)
def test_attention_and_significance_against_loops(options, size):
    module, x = build(**options), image(*size)
    y, side = module(x, {})
    wanted = [plain(module, one, options.get("reach", "map")) for one in x]
    torch.testing.assert_close(y, torch.stack([one for one, _ in wanted]), rtol=0, atol=1e-10)
    received = torch.stack([one.flatten() for _, one in wanted])
    torch.testing.assert_close(side["significance"], received, rtol=0, atol=1e-12)


def test_the_largest_window_is_the_map():
    """At a map of exactly window x scale tokens the paper's form is the released one."""
    released, paper = build(), build(reach="window")
    paper.load_state_dict(released.state_dict())
    x = image(6, 6)
    torch.testing.assert_close(released(x, {})[0], paper(x, {})[0])


def test_what_counts_as_significant():
    x, state = image(7, 5), build().state_dict()
    outputs, told = {}, {}
    for significance in ("hybrid", "local", "global", "uniform"):
        module = build(significance=significance)
        module.load_state_dict(state)
        outputs[significance], side = module(x, {})
        told[significance] = side["significance"]
    for y in outputs.values():  # only the guidance differs
        torch.testing.assert_close(y, outputs["hybrid"], rtol=0, atol=1e-12)
    torch.testing.assert_close(told["hybrid"], told["local"] + told["global"])
    assert told["local"].std() > 0
    assert told["global"].std() > 0
    assert not told["uniform"].any()


def test_of_several_scales_the_largest_is_global():
    module, x = build(scales=(4, 2, 1), significance="global"), image(8, 8)
    alone = plain_group(module.groups[0], x[0], "map")[1]
    torch.testing.assert_close(module(x, {})[1]["significance"][0], alone.detach().flatten())


def test_the_side_is_not_changed_and_no_gradient_flows_through_it():
    given = {"other": torch.zeros(2, 16)}
    _, side = build()(image(4, 4), given)
    assert given.keys() == {"other"}
    assert side.keys() == {"other", "significance"}
    assert not side["significance"].requires_grad


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 5}, "heads: 5 does not divide the width 12"),
        ({"scales": (4, 3, 2, 1)}, "scales: 4 does not divide the heads 6"),
        ({"scales": (2,), "significance": "local"}, "significance: local needs a group of scale 1"),
        ({"scales": (1,), "significance": "global"}, "significance: global needs a group of a scale above 1"),
    ],
)
def test_refused(options, message):
    with pytest.raises(OptionError, match=message):
        build(**options)


def test_parameters_by_hand():
    """Width 64, scale 8: the first block of SG-Former-S."""
    merge = 64 * 64 * 64 + 64 + 2 * 64
    queries = 2 * (64 * 32 + 32)
    keys = 2 * (64 * 64 + 64)
    local = 64 * 64 + 64 + 9 * 64 + 64
    with torch.device("meta"):
        module = HybridScaleAttention(64, heads=2)
    assert sum(p.numel() for p in module.parameters()) == merge + queries + keys + local + 64 * 64 + 64
