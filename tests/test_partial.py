"""PartialFormer: the published tables, the mixer token by token, and what the foreground is."""

import math
import time

import pytest
import torch

from archspec import api
from archspec.blocks.mixed_attention import HeadMixing, MixedAttention
from archspec.blocks.partial import PartialAttention, foreground_size
from archspec.blocks.single_query import SingleQueryAttention
from archspec.cost import module_cost
from archspec.errors import OptionError, SpecError
from archspec.loading import load_text

TINY = """
archspec: 1
name: tiny
input: {size: 64}
classes: 5
defaults:
  position: conditional
  mixer: {type: partial, heads: 2}
  ffn: {type: conv_mlp, ratio: 2}
  downsample: {type: patch, kernel: 3, stride: 2, padding: 1, norm: batch}
stem: {type: patch, kernel: 7, stride: 4, padding: 3, norm: batch}
stages:
  - {width: 16, depth: 2, mixer: {share: 0.03125}}
  - {width: 32, depth: 1, mixer: {share: 0.25}}
head: {type: mlp, hidden: 24}
"""


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def randomised(module):
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)
    return module


def tokens(count, width=8, batch=2):
    return torch.randn(batch, count, width, dtype=torch.float64)


# The tables. Parameters in millions and GMACs of one image.


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [("b0", 5.306, 0.409), ("b1", 8.244, 0.708), ("b2", 21.096, 1.918), ("b3", 36.128, 3.379), ("b4", 64.492, 6.825)],
)
def test_counts_as_fitted_which_round_to_table_5_1(name, params, macs):
    cost = api.count(f"partialformer_{name}")
    assert (round(cost.params / 1e6, 3), round(cost.macs / 1e9, 3)) == (params, macs)


def backbone(name, size):
    return api.count(api.make_plan(f"partialformer_{name}", sets=["head=none"], size=size))


def semantic_fpn(width, grid, classes=150, dim=256, half=128):
    """(parameters, MACs) of Kirillov et al.'s decoder on maps of width, 2*width, ... at strides 4, 8, 16 and 32."""
    places = [grid[0] * grid[1] // 4**level for level in range(4)]
    lateral = [width * 2**level * dim for level in range(4)]
    smooth, first, later = 9 * dim * dim, 9 * dim * half, 9 * half * half
    macs = sum(n * (one + smooth + first) for n, one in zip(places, lateral, strict=True))
    macs += later * (2 * places[1] + places[2])  # from 1/16 one convolution at 1/8; from 1/32 two, at 1/16 and at 1/8
    macs += classes * half * places[0]
    params = sum(lateral) + 4 * (smooth + 2 * dim) + 4 * first + 3 * later + 7 * 2 * half  # seven batch norms
    return params + half * classes + classes, macs


@pytest.mark.parametrize(
    ("name", "width", "params", "macs"), [("b1", 32, 10.8, 101.8), ("b2", 48, 23.5, 131.3), ("b3", 64, 38.4, 166.6)]
)
def test_as_a_backbone_for_segmentation_it_costs_what_table_5_7_says(name, width, params, macs):
    cost, decoder = backbone(name, (512, 2048)), semantic_fpn(width, (128, 512))
    assert (cost.params + decoder[0]) / 1e6 == pytest.approx(params, abs=0.05)
    assert (cost.macs + decoder[1]) / 1e9 == pytest.approx(macs, rel=2e-3)  # whether the table counts norms is unsaid
    assert backbone(name, (2048, 512)).macs == cost.macs


@pytest.mark.parametrize("size", [(800, 1280), (512, 2048), (256, 192)])
def test_costs_at_another_size_need_no_weights_and_no_time(size):
    started = time.perf_counter()
    assert backbone("b1", size).macs > 0
    assert time.perf_counter() - started < 1


# The mixer.


def plain_mixing(mixing, q, k, v, heads):
    """Mixed multi-head attention of n tokens (n, C), map by map."""
    n, d = len(q), q.shape[1] // heads
    parts = [slice(head * d, head * d + d) for head in range(heads)]
    logits = [q[:, part] @ k[:, part].T / math.sqrt(d) for part in parts]
    maps = []
    for weights, bias in zip(mixing.expand.weight, mixing.expand.bias, strict=True):
        mixed = sum(weight * one for weight, one in zip(weights, logits, strict=True)) + bias
        maps.append(torch.stack([mixed[i].softmax(0) for i in range(n)]))
    out = torch.zeros_like(q)
    for part, weights, bias in zip(parts, mixing.reduce.weight, mixing.reduce.bias, strict=True):
        out[:, part] = (sum(weight * one for weight, one in zip(weights, maps, strict=True)) + bias) @ v[:, part]
    return out


def plain(module, x, score):
    """(N, C) -> (N, C), token by token; the background is taken out of the list, not masked."""
    heads, d = module.heads, x.shape[1] // module.heads
    order = sorted(range(len(x)), key=lambda i: (-score[i].item(), i))
    size = max(1, math.floor(module.share * len(x)))
    front, back = order[:size], order[size:]
    seen = plain_mixing(module.mixing, *module.qkv(torch.cat((x[front], module.token))).chunk(3, dim=1), heads)
    _, k, v = module.qkv(x[back]).chunk(3, dim=1)
    summary = torch.zeros(x.shape[1], dtype=x.dtype)
    for head in range(heads):
        part = slice(head * d, head * d + d)
        weights = torch.stack([seen[-1, part] @ key[part] / math.sqrt(d) for key in k]).softmax(0)
        summary[part] = weights @ v[:, part]
    added = module.single_query.mlp(summary)
    out = torch.empty_like(x)
    for place, i in enumerate(front):
        out[i] = seen[place]
    for i in back:
        out[i] = x[i] + added
    return module.proj(out)


@torch.no_grad()
@pytest.mark.parametrize(("count", "share"), [(12, 0.25), (11, 0.3), (3, 0.01), (6, 0.9)])
@pytest.mark.parametrize("foreground", ["context", "significance"])
def test_equals_a_loop_over_tokens(count, share, foreground):
    module = randomised(PartialAttention(8, heads=2, share=share, expansion=3, foreground=foreground))
    x, given = tokens(count), tokens(count)
    ties = torch.randint(3, (2, count)).double()  # of equal tokens the first ones come first
    score = ties if foreground == "significance" else given.mean(-1)
    y, side = module(x, {"input": given, "significance": ties})
    assert set(side) == {"input", "significance"}
    torch.testing.assert_close(y, torch.stack([plain(module, *pair) for pair in zip(x, score, strict=True)]))


@torch.no_grad()
def test_mixed_attention_equals_a_loop_over_maps():
    module = randomised(MixedAttention(12, heads=3, expansion=2))
    x = tokens(5, 12)
    expected = [plain_mixing(module.mixing, *module.qkv(one).chunk(3, dim=1), 3) for one in x]
    torch.testing.assert_close(module(x), module.proj(torch.stack(expected)))


@torch.no_grad()
def test_heads_that_do_not_mix_are_plain_attention():
    mixing = HeadMixing(2, 1).double()
    for layer in (mixing.expand, mixing.reduce):
        layer.weight.copy_(torch.eye(2))
        layer.bias.zero_()
    q, k, v = torch.randn(3, 2, 2, 5, 4, dtype=torch.float64).unbind(0)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    torch.testing.assert_close(mixing(q, k, v), expected)


@torch.no_grad()
@pytest.mark.parametrize(("count", "share"), [(6, 1.0), (1, 0.5)], ids=["whole share", "single token"])
def test_without_a_background_it_is_mixed_attention_with_one_more_key(count, share):
    module = randomised(PartialAttention(8, heads=2, share=share))
    mixed = MixedAttention(8, heads=2).double()
    mixed.load_state_dict({name: value for name, value in module.state_dict().items() if name in mixed.state_dict()})
    x = tokens(count)
    expected = mixed(torch.cat((x, module.token.expand(2, 1, 8)), dim=1))[:, :-1]
    torch.testing.assert_close(module(x, {"input": x})[0], expected)
    assert (module.single_query is None) == (share == 1)


@torch.no_grad()
def test_what_the_foreground_holds_reaches_the_background():
    module = randomised(PartialAttention(8, heads=2, share=0.25))
    x = tokens(8)
    side = {"input": torch.arange(8.0).flip(0).expand(2, 8)[..., None]}  # the first two are the foreground
    before = module(x, side)[0]
    x[:, 0] += 1
    assert (module(x, side)[0] - before).abs().amin(dim=(0, 2)).gt(1e-6).all()


def test_a_single_query_costs_linearly_in_the_tokens():
    def macs(count):
        heads = torch.empty(1, 4, count, 8)
        inputs = torch.empty(1, 1, 32), heads, heads, torch.empty(1, count, dtype=torch.bool)
        return module_cost(single, *inputs).macs

    with torch.device("meta"):
        single = SingleQueryAttention(32, heads=4, reduction=4)
        assert [macs(count) - macs(0) for count in (10, 20, 4000)] == [2 * 32 * count for count in (10, 20, 4000)]
        assert macs(0) == 2 * 32 * 8


@pytest.mark.parametrize("count", [24, 3])
def test_every_parameter_learns(count):
    module = randomised(PartialAttention(32, heads=4))
    x = tokens(count, 32)
    (module(x, {"input": x})[0] * torch.randn_like(x)).sum().backward()
    for name, parameter in module.named_parameters():
        learns = parameter.grad.abs().max() > 1e-9
        assert learns != (name == "mixing.expand.bias"), name  # the softmax takes what is the same for all keys out


# In a network.


def test_the_foreground_is_a_share_rounded_down_and_one_at_least():
    stages = [(56 * 56, 1 / 128), (28 * 28, 1 / 32), (14 * 14, 1 / 8), (7 * 7, 1 / 4)]
    assert [foreground_size(*stage) for stage in stages] == [24, 24, 24, 12]
    assert foreground_size(3, 0.25) == 1


@torch.no_grad()
def test_the_score_is_read_before_the_norm():
    network = api.build(load_text(TINY))
    branch = network.stages[0].blocks[0].mixer
    taken = []
    branch.body.score = lambda side: taken.append(side["input"]) or side["input"].mean(-1)
    network(torch.randn(1, 3, 64, 64))
    assert taken[0].mean(-1).abs().max() > 1e-3
    assert branch.norm(taken[0]).mean(-1).abs().max() < 1e-5


@torch.no_grad()
@pytest.mark.slow
def test_other_sizes_run_and_export_and_compile_give_the_same():
    network = api.build(load_text(TINY))
    for size in [(96, 72), (32, 32), (8, 8)]:
        assert network(torch.randn(2, 3, *size)).shape == (2, 5)
    batch = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(torch.export.export(network, (batch,)).module()(batch), network(batch))
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(batch), network(batch))


def test_significance_must_come_from_an_earlier_mixer():
    guided = "{type: partial, heads: 2, foreground: significance}"
    plain_stage = "{width: 16, depth: 2, mixer: {share: 0.03125}}"
    with pytest.raises(SpecError, match="needs 'significance'"):
        api.make_plan(load_text(TINY.replace(plain_stage, f"{{width: 16, depth: 2, mixer: {guided}}}")))
    pair = f"{{width: 16, depth: 2, mixer: [{{type: hybrid_scale, heads: 2, scales: [2, 1]}}, {guided}]}}"
    network = api.build(load_text(TINY.replace(plain_stage, pair)))
    with torch.inference_mode():
        assert network(torch.randn(1, 3, 64, 64)).isfinite().all()


def test_class_tokens_are_refused():
    with pytest.raises(SpecError, match="class token"):
        api.make_plan(load_text(TINY.replace("depth: 2,", "depth: 2, class_token: true,")))


def test_heads_must_divide_the_width():
    with pytest.raises(OptionError, match="does not divide"):
        PartialAttention(32, heads=5)
