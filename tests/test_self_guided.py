"""Self-guided attention against a plain loop: sort, cut into parts, merge, attend, token by token."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from archspec.blocks.self_guided import SelfGuidedAttention
from archspec.errors import OptionError

WIDTH, HEADS = 8, 4


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def build(grid, **options):
    module = SelfGuidedAttention(WIDTH, grid, heads=HEADS, **options).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)
    return module


def image(height, width):
    return torch.randn(2, WIDTH, height, width, dtype=torch.float64)


def places(height, width, by_columns):
    """The tokens of a map in a reading order."""
    if by_columns:
        return [(i, j) for j in range(width) for i in range(height)]
    return [(i, j) for i in range(height) for j in range(width)]


def plain_merged(module, x, significance, by_columns, shares):
    """(C, H, W) and (H, W) -> list of merged tokens (C,). Python's sort is stable."""
    order = sorted(places(*significance.shape, by_columns), key=lambda place: significance[place].item())
    merged, start = [], 0
    for index, merge in enumerate(module.merges):
        end = len(order) * sum(shares[: index + 1]) // sum(shares)
        part, r = order[start:end], merge.in_features
        for first in range(0, len(part), r):
            token = merge.bias.expand(WIDTH)
            for weight, place in zip(merge.weight[0], part[first : first + r], strict=False):
                token = token + weight * x[:, place[0], place[1]]
            merged.append(token)
        start = end
    return merged


@torch.no_grad()
def plain(module, x, significance, shares):
    """(C, H, W) and (H, W) -> (C, H, W)."""
    _, H, W = x.shape
    d, half = WIDTH // HEADS, HEADS // 2
    rows, columns = (
        [linear(token) for token in plain_merged(module, x, significance, by_columns, shares)]
        for by_columns, linear in ((False, module.kv_rows), (True, module.kv_columns))
    )
    local = module.lepe.linear(x.permute(1, 2, 0)).permute(2, 0, 1)
    local = F.conv2d(local, module.lepe.conv.weight, module.lepe.conv.bias, padding=1, groups=WIDTH)
    out = torch.zeros_like(x)
    for i in range(H):
        for j in range(W):
            q, found = module.q(x[:, i, j]), []
            for head in range(HEADS):
                source, own = (rows, head) if head < half else (columns, head - half)
                keys = [token[own * d : own * d + d] for token in source]
                values = [token[(half + own) * d : (half + own + 1) * d] for token in source]
                scores = torch.stack([q[head * d : head * d + d] @ key for key in keys]) / math.sqrt(d)
                found.append(scores.softmax(0) @ torch.stack(values))
            out[:, i, j] = module.proj(torch.cat(found) + local[:, i, j])
    return out


distinct = partial(torch.rand, dtype=torch.float64)


def tied(count, height, width):
    return torch.randint(3, (count, height, width)).double()


@pytest.mark.parametrize("significances", [distinct, tied], ids=["distinct", "tied"])
@pytest.mark.parametrize(
    ("options", "spec", "size"),
    [
        ({"into": (1, 3, 4)}, (4, 8), (4, 8)),  # 8 to 1, 16 to 3 with a rest, 8 to 4
        ({"into": (1, 4, 4)}, (4, 8), (5, 6)),  # run on another size: 7, 15 and 8 tokens at rates 8, 4 and 2
        ({"into": (1, 4, 4)}, (4, 8), (1, 3)),  # parts without tokens
        ({"shares": (1, 1), "into": None, "rates": (2, 1)}, (3, 5), (3, 5)),
        ({"shares": (1, 1, 1, 1), "into": None, "rates": (5, 3, 3, 1)}, (6, 4), (6, 4)),
    ],
)
def test_against_loops(options, spec, size, significances):
    module, x = build(spec, **options), image(*size)
    significance = significances(2, *size)
    side = {"significance": significance.flatten(1)}
    y, given = module(x, side)
    shares = options.get("shares", (1, 2, 1))
    wanted = [plain(module, one, s, shares) for one, s in zip(x, significance, strict=True)]
    torch.testing.assert_close(y, torch.stack(wanted), rtol=0, atol=1e-10)
    assert given == side


def test_the_reading_order_matters_only_for_ties():
    module, x = build((4, 6), into=(2, 3, 3)), image(4, 6)

    def merged(significance):
        seen = []
        module.keys_and_values = lambda tokens: (
            seen.append(tokens) or SelfGuidedAttention.keys_and_values(module, tokens)
        )
        module(x, {"significance": significance.flatten(1)})
        return seen[0]

    rows, columns = merged(distinct(2, 4, 6))
    torch.testing.assert_close(rows, columns)
    rows, columns = merged(torch.zeros(2, 4, 6))
    assert not torch.allclose(rows, columns)


@pytest.mark.parametrize(
    ("grid", "rates"),
    [
        ((56, 56), [196, 56, 28]),  # as the paper's table 1 has it
        ((28, 28), [49, 14, 7]),
        ((96, 96), [576, 165, 83]),  # 384 pixels: N/16, and N/56 = 164.6 and N/112 = 82.3 rounded up
        ((2, 2), [1, 1, 1]),
    ],
)
def test_merging_rates_follow_from_the_grid(grid, rates):
    assert [merge.in_features for merge in SelfGuidedAttention(WIDTH, grid, heads=2).merges] == rates


@pytest.mark.parametrize("size", [(56, 56), (28, 28), (96, 96), (48, 48), (64, 80)])
def test_there_are_sixty_merged_tokens(size):
    module = SelfGuidedAttention(WIDTH, size, heads=2)
    merged = module.merged(torch.zeros(1, size[0] * size[1], WIDTH), torch.arange(size[0] * size[1]).expand(2, 1, -1))
    assert merged.shape == (2, 1, 60, WIDTH)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "heads: 3 does not divide the width 8"),
        ({"heads": 1}, "heads: 1 is odd"),
        ({"heads": 4, "into": None}, "into: null leaves open how tokens are merged"),
        ({"heads": 4, "rates": (4, 2, 1)}, r"rates: \[4, 2, 1\] and `into` are both given.*into: null"),
        ({"heads": 4, "into": (4, 28)}, r"into: \[4, 28\] has not one number for each of the 3 shares"),
        ({"heads": 4, "into": None, "rates": (2, 1)}, r"rates: \[2, 1\] has not one number for each of the 3 shares"),
    ],
)
def test_refused(options, message):
    with pytest.raises(OptionError, match=message):
        SelfGuidedAttention(WIDTH, (4, 4), **options)
