"""MAT: every published row, the mixer against plain loops, sampling by hand, patch merging against timm, any size."""

import math

import pytest
import torch
from timm.models.swin_transformer import PatchMerging as TimmPatchMerging

from archspec import api
from archspec.blocks.bilinear_embedding import BilinearEmbedding, sample
from archspec.blocks.conditional_position import ConditionalPosition
from archspec.blocks.conv_head import ConvHead, MlpHead
from archspec.blocks.mat import MatAttention
from archspec.blocks.patch_merging import PatchMerging
from archspec.errors import OptionError


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def randomised(module):
    module.double().eval()
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.uniform_(0.2, 0.9) if tensor.ndim == 1 else tensor.normal_(std=0.5)
    return module


def image(width=8, height=6, columns=9):
    return torch.randn(2, width, height, columns, dtype=torch.float64)


# The published tables: the dissertation's 4.2, 4.3 and 4.9. Parameters (M) are as printed there; multiply-accumulates
# without and with norms and sampling are the fitted reading's, derived apart from this code, in units of 0.1 M.
MAT = "stages[{}].mixer={{type: mat, heads: {}}}"
POSITION = "stages[{}].position=conditional"
WITHOUT = ["stages[2:].mixer=none", "stages[2:].position=none"]
WINDOW = [f"stages[{i}].mixer={{type: window, heads: {8 * (i - 1)}, position_bias: false}}" for i in (2, 3)]
ROWS = {
    "MAT-1": ("mat_1", [], "6.714", 3849, 3895),
    "MAT-2": ("mat_2", [], "10.767", 6600, 6662),
    "MAT-3": ("mat_3", [], "17.008", 10353, 10431),
    "MAT-4": ("mat_4", [], "29.057", 19227, 19341),
    "MAT-5": ("mat_5", [], "50.108", 31430, 31568),
    "pure MLP": ("mat_2", [*WITHOUT, "defaults.ffn.depthwise=false"], "5.699", 4557, 4608),
    "window attention": ("mat_2", WINDOW, "7.802", 6530, 6592),
    "3x3 conv": ("mat_2", ["defaults.downsample={type: patch, norm: batch}"], "11.107", 6977, 7037),
    "patch merging": ("mat_2", ["defaults.downsample=patch_merging"], "10.892", 6736, 6803),
    "stages 1-4": (
        "mat_2",
        [patch.format(i, 2 * i + 2) for i in (0, 1) for patch in (MAT, POSITION)],
        "10.874",
        7759,
        7836,
    ),
    "stages 2-4": ("mat_2", [MAT.format(1, 4), POSITION.format(1)], "10.852", 7009, 7076),
    "stage 4": ("mat_2", ["stages[2].mixer=none", "stages[2].position=none"], "9.767", 5627, 5681),
}


@pytest.mark.parametrize("row", ROWS)
def test_published_counts(row):
    name, sets, params, macs, ops = ROWS[row]
    cost = api.count(api.make_plan(name, sets=sets))
    assert f"{cost.params / 1e6:.3f}" == params
    assert (round(cost.macs / 1e5), round(cost.ops / 1e5)) == (macs, ops)


def plain_attention(q, k, v, heads):
    """(n, C) queries, (m, C) keys and values -> (n, C), query by query."""
    d = q.shape[1] // heads
    out = torch.zeros_like(q)
    for head in range(heads):
        part = slice(head * d, head * d + d)
        for i in range(len(q)):
            scores = torch.stack([q[i, part] @ key / math.sqrt(d) for key in k[:, part]])
            out[i, part] = scores.softmax(0) @ v[:, part]
    return out


@torch.no_grad()
def plain(module, x):
    """Equations 4.1 to 4.5 with windows cut by hand, smaller ones at the border: no padding, no mask."""
    M, heads = module.window, module.heads
    out = torch.zeros_like(x)
    token = module.token[0]
    for b in range(x.shape[0]):
        q, k, v = module.qkv(x[b].permute(1, 2, 0)).chunk(3, dim=-1)  # (H, W, C) each
        local, abstract = torch.zeros_like(q), []
        for top in range(0, q.shape[0], M):
            for left in range(0, q.shape[1], M):
                place = (slice(top, top + M), slice(left, left + M))
                joined = [torch.cat((part[place].flatten(0, 1), token)) for part in (q, k, v)]
                y = plain_attention(*joined, heads)
                local[place] = y[:-1].view_as(local[place])
                abstract.append(y[-1])
        mixed = plain_attention(*module.mixing.qkv(torch.stack(abstract)).chunk(3, dim=-1), heads)
        mixed = module.mixing.proj(mixed)
        fused = plain_attention(q.flatten(0, 1), *module.kv(mixed).chunk(2, dim=-1), heads).view_as(local)
        out[b] = module.proj(local + fused).permute(2, 0, 1)
    return out


@pytest.mark.parametrize(
    ("size", "window"),
    [((6, 9), 3), ((4, 4), 4), ((5, 7), 3), ((2, 3), 4), ((4, 7), 4)],
    ids=["divides", "one window", "padded", "larger than the map", "padded on one side"],
)
def test_mixer_equals_plain_loops(size, window):
    module = randomised(MatAttention(8, heads=2, window=window))
    x = image(8, *size)
    torch.testing.assert_close(module(x), plain(module, x), rtol=0, atol=1e-12)


def test_news_from_one_window_reaches_all_others():
    module = randomised(MatAttention(8, heads=2, window=3))
    x = image()
    before = module(x)
    x[0, :, 0, 0] += 1  # the first window of the first image
    changed = (module(x) - before).abs().amax(1) > 1e-9
    assert changed[0].all()
    assert not changed[1].any()


def test_with_one_window_all_but_the_mixing_of_one_token_learns():
    module = randomised(MatAttention(8, heads=2, window=7))
    module(image(8, 7, 7)).square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad.isfinite().all()
        learned = parameter.grad.abs().reshape(-1).chunk(3) if name.startswith("mixing.qkv") else [parameter.grad]
        assert learned[-1].any(), name
        assert all(part.max() < 1e-12 for part in learned[:-1]), name


def test_parameters_by_hand():
    """The mixer has 10 c² + 11 c; with the position encoding and a LayerNorm, 10 c² + 23 c."""
    mixer, position = MatAttention(24, heads=4), ConditionalPosition(24)
    assert sum(p.numel() for p in mixer.parameters()) == 10 * 24**2 + 11 * 24
    assert sum(p.numel() for p in position.parameters()) == 10 * 24
    assert sum(p.numel() for p in BilinearEmbedding(24, 48).parameters()) == 2 * 24**2 + 27 * 24


def test_heads_divide_the_width():
    with pytest.raises(OptionError, match="heads: 3 does not divide the width 16"):
        MatAttention(16, heads=3)


def test_position_adds_a_convolution_of_each_channel():
    module, x = randomised(ConditionalPosition(3)), image(3, 4, 5)
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
    expected = x.clone()
    for channel in range(3):
        expected[:, channel] += module.conv.bias[channel]
        for dy in range(3):
            for dx in range(3):
                weight = module.conv.weight[channel, 0, dy, dx]
                expected[:, channel] += weight * padded[:, channel, dy : dy + 4, dx : dx + 5]
    torch.testing.assert_close(module(x), expected)


def plain_sample(feature, offsets):
    """Value by value: pixel (i, j) has its centre at (j, i); the four pixels around a point, within the border."""
    h, w = feature.shape[2:]
    out = torch.zeros_like(feature)
    for b, i, j in torch.cartesian_prod(*map(torch.arange, (len(feature), h, w))).tolist():
        x = min(max(j + offsets[b, 0, i, j].item(), 0), w - 1)
        y = min(max(i + offsets[b, 1, i, j].item(), 0), h - 1)
        for row in range(h):
            for column in range(w):
                weight = max(0, 1 - abs(x - column)) * max(0, 1 - abs(y - row))
                out[b, :, i, j] += weight * feature[b, :, row, column]
    return out


@pytest.mark.parametrize("reach", [0.0, 0.4, 3.0], ids=["at the centres", "near", "far out"])
def test_sampling(reach):
    feature = image(3, 4, 5)
    offsets = reach * torch.randn(2, 2, 4, 5, dtype=torch.float64)
    expected = plain_sample(feature, offsets)
    torch.testing.assert_close(sample(feature, offsets), expected, rtol=0, atol=1e-12)
    if not reach:
        torch.testing.assert_close(expected, feature, rtol=0, atol=0)


def test_a_whole_offset_moves_by_one_cell():
    feature = image(3, 4, 5)
    right = torch.zeros(2, 2, 4, 5, dtype=torch.float64)
    right[:, 0] = 1
    torch.testing.assert_close(sample(feature, right)[..., :-1], feature[..., 1:], rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(6, 10), (5, 7), (1, 1)])
def test_bilinear_embedding(size):
    module, x = randomised(BilinearEmbedding(6, 10)), image(6, *size)
    sampled = plain_sample(module.feature(x), module.offset_proj(module.offset(x)))
    expected = module.norm(module.proj(sampled))
    y = module(x)
    assert y.shape[2:] == BilinearEmbedding.output_grid(size, {})
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-11)
    torch.nn.init.zeros_(module.offset_proj.weight)
    torch.testing.assert_close(module(x), module.norm(module.proj(module.feature(x))), rtol=0, atol=1e-11)


def test_coordinates_stay_exact_in_half_precision():
    feature = torch.arange(200.0).expand(1, 1, 2, 200).bfloat16()
    y = sample(feature, torch.zeros(1, 2, 2, 200, dtype=torch.bfloat16))
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, feature)


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (1, 2)])
def test_patch_merging_is_that_of_timm(size):
    ours, theirs, x = PatchMerging(6, 10).double(), TimmPatchMerging(6, 10).double(), image(6, *size)
    ours.load_state_dict(theirs.state_dict())
    y = ours(x)
    assert y.shape[2:] == PatchMerging.output_grid(size, {})
    torch.testing.assert_close(y, theirs(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


@torch.no_grad()
def test_heads():
    x = torch.randn(2, 1 + 12, 8, dtype=torch.float64)
    conv, mlp = (randomised(head(8, 5, 1, hidden=16)) for head in (ConvHead, MlpHead))
    gelu = torch.nn.GELU()
    y = gelu(torch.nn.functional.batch_norm(conv.conv(x[:, 1:]).mT, *_statistics(conv.norm)))
    torch.testing.assert_close(conv(x), conv.classifier(y.mean(-1)))
    normal = (x[:, 1:].sum(1) / 12).unsqueeze(1)
    torch.testing.assert_close(mlp(x), mlp.classifier(gelu(mlp.hidden(mlp.norm(normal))))[:, 0])
    for head in (ConvHead, MlpHead):
        assert head(8, 0, 1, hidden=16).double()(x).shape == (2, 16)


def _statistics(norm):
    return norm.running_mean, norm.running_var, norm.weight, norm.bias


TINY = [
    *(f"stages[{i}].width={8 * 2**i}" for i in range(4)),
    "stages[:].depth=1",
    "stages[2:].mixer.heads=4",
    "stages[2:].mixer.window=3",
    "head.hidden=16",
    "classes=5",
]


def tiny(size):
    return api.build(api.make_plan("mat_2", sets=[*TINY, f"input.size={size}"]), seed=0).eval()


@pytest.mark.parametrize("size", ["192", "256", "[256, 320]", "[70, 50]"])
def test_sizes_that_windows_do_not_divide(size):
    network = tiny(size)
    channels, *sides = network.plan.source.width, *network.plan.source.grid
    x = torch.randn(1, channels, *sides)
    with torch.inference_mode():
        y = network(x)
        assert y.shape == (1, 5)
        assert y.isfinite().all()
        other = tiny("96")
        other.load_state_dict(network.state_dict())
        torch.testing.assert_close(other(x), y)  # nothing is made for one size


@pytest.mark.slow
def test_compiles_in_one_graph_and_exports():
    network, x = tiny("96"), torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        expected = network(x)
        torch.compiler.reset()
        torch.testing.assert_close(torch.compile(network, fullgraph=True, backend="eager")(x), expected)
        torch.testing.assert_close(torch.export.export(network, (x,)).module()(x), expected)
