"""SG-Former: published counts, the released network's logits, and the plain parts that only it uses."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import archspec
from archspec.blocks.conv_ffn import ConvMLP
from archspec.blocks.conv_stem import ConvStem
from archspec.blocks.lepe import LepeAttention
from archspec.blocks.separable_downsample import SeparableDownsample
from archspec.blocks.sine_position import SinePosition
from archspec.checkpoints import save_weights
from archspec.errors import OptionError, SpecError, UsageError
from archspec.weights import load_pretrained

from . import golden
from .golden import DATA

GOLDEN = ["classes=10"] + [
    patch
    for stage, (width, heads, depth) in enumerate([(16, 2, 2), (32, 4, 2), (64, 8, 2), (128, 16, 1)])
    for patch in (
        f"stages[{stage}].width={width}",
        f"stages[{stage}].depth={depth}",
        f"stages[{stage}].mixer{'[*]' if stage < 3 else ''}.heads={heads}",
    )
]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def tiny(size=224, sets=()):
    return archspec.build(archspec.make_plan("sgformer_s", sets=[*GOLDEN, *sets], size=size))


@pytest.mark.parametrize(
    ("name", "params", "macs", "ops"),
    [
        ("sgformer_s", 22_545_981, 4.784, 4.818),
        ("sgformer_m", 38_689_316, 7.427, 7.470),
        ("sgformer_b", 77_950_293, 15.543, 15.610),
    ],
)
def test_counts(name, params, macs, ops):
    cost = archspec.count(name)
    assert cost.params == cost.params_trainable == params
    assert round(cost.macs / 1e9, 3) == macs
    assert round(cost.ops / 1e9, 3) == ops


def padding_of_windows(plan):
    """Products with padding: 7x7 windows on a map that 7 does not divide, over half of the channels, twice."""
    total = 0
    for stage in plan.stages[:3]:
        state = stage.target
        windows = math.prod(math.ceil(side / 7) for side in state.grid)
        total += (windows * 49 * 49 - state.tokens * 49) * state.width * len(stage.blocks) // 2
    return total


@pytest.mark.parametrize(("name", "ops"), [("sgformer_s", 15.06), ("sgformer_m", 23.48), ("sgformer_b", 47.94)])
def test_counts_at_384(name, ops):
    plan = archspec.make_plan(name, size=384)
    assert round((archspec.count(plan).ops - padding_of_windows(plan)) / 1e9, 2) == ops


def test_the_released_network_gives_its_logits(double):
    expected = golden.expected("sgformer")
    network = tiny()
    report = load_pretrained(network, DATA / "sgformer.pth", source="sgformer")
    assert not [*report.lines()]
    assert sum(parameter.numel() for parameter in network.parameters()) == expected["params"] == 517_875
    with torch.inference_mode():
        logits = network(golden.image())
    torch.testing.assert_close(logits, torch.tensor(expected["logits"]), rtol=0, atol=1e-9)


def test_merging_maps_of_another_size_do_not_load(tmp_path):
    save_weights(tiny(), tmp_path / "in.safetensors")
    with pytest.raises(UsageError, match=r"merges.0.weight: \(1, 196\) in the checkpoint; \(1, 256\) here") as refusal:
        load_pretrained(tiny(256), tmp_path / "in.safetensors")
    assert "resized: stages.0.position.embedding: of another size: sines and cosines anew" in str(refusal.value)


@pytest.mark.parametrize("size", [192, 256, (256, 320)])
def test_other_sizes(size):
    network = tiny(size)
    height, width = (size, size) if isinstance(size, int) else size
    with torch.inference_mode():
        wanted = network(x := torch.randn(1, 3, height, width))
        assert wanted.isfinite().all()
        assert tiny(224)(x).isfinite().all()  # built for another size


@pytest.mark.slow
def test_it_compiles_in_one_graph_and_exports():
    network, x = tiny(64), torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        wanted = network(x)
        torch.testing.assert_close(torch.compile(network, fullgraph=True, backend="eager")(x), wanted)
    torch.testing.assert_close(torch.export.export(network, (x,)).module()(x), wanted)


@pytest.mark.parametrize(
    ("patch", "cheaper"),
    [
        ("significance=uniform", False),
        ("significance=local", False),
        ("significance=global", False),
        ("scales=[1]", True),
    ],
)
def test_ablations_are_patches(patch, cheaper):
    plan = archspec.make_plan("sgformer_s", sets=[*GOLDEN, f"stages[:3].mixer[0].{patch}"], size=64)
    assert (archspec.count(plan).params < archspec.count(tiny(64).plan).params) == cheaper
    assert archspec.build(plan)(torch.randn(1, 3, 64, 64)).isfinite().all()


def test_self_guided_attention_needs_a_guide():
    with pytest.raises(SpecError, match=r"needs 'significance', which no mixer before it .* \(hybrid_scale would\)"):
        archspec.make_plan("sgformer_s", sets=["stages[0].mixer={type: self_guided, heads: 2}"])


def test_the_stem():
    stem = ConvStem(3, 4, norm="group", norm_out="layer").double()
    x = torch.randn(2, 3, 9, 13, dtype=torch.float64)
    y = x
    for conv, norm, stride in zip(stem.convs, stem.norms, (2, 1, 2), strict=True):
        y = F.conv2d(y, conv.weight, None, stride=stride, padding=1)
        mean, var = y.mean((1, 2, 3), keepdim=True), y.var((1, 2, 3), unbiased=False, keepdim=True)
        y = (y - mean) / (var + 1e-5).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]
        y = y if conv is stem.convs[2] else F.gelu(y)
    y = F.layer_norm(y.permute(0, 2, 3, 1), (4,), eps=1e-5).permute(0, 3, 1, 2)
    torch.testing.assert_close(stem(x), y)
    assert ConvStem.output_grid((9, 13), {"strides": (2, 1, 2)}) == tuple(y.shape[2:]) == (3, 4)


def test_the_downsampling():
    layer = SeparableDownsample(4, 6).double()
    x = torch.randn(2, 4, 7, 8, dtype=torch.float64)
    y = F.gelu(F.group_norm(torch.einsum("oi,bihw->bohw", layer.expand.weight[..., 0, 0], x), 1))
    y = F.gelu(F.group_norm(F.conv2d(y, layer.reduce.weight, stride=2, padding=1, groups=6), 1))
    y = F.group_norm(torch.einsum("oi,bihw->bohw", layer.mix.weight[..., 0, 0], y), 1)
    torch.testing.assert_close(layer(x), y)
    assert SeparableDownsample.output_grid((7, 8), {}) == tuple(y.shape[2:]) == (4, 4)


def test_the_position_embedding_starts_as_sines_and_cosines(double):
    width, (H, W) = 12, (3, 5)
    position = SinePosition(width, (H, W), 1)
    for y in range(H):
        for x in range(W):
            waves = [
                wave(value / 10_000 ** (k / 3)) for value in (x, y) for wave in (math.sin, math.cos) for k in range(3)
            ]
            torch.testing.assert_close(position.embedding[0, y * W + x], torch.tensor(waves))
    tokens = torch.randn(2, 1 + H * W, width)
    wanted = torch.cat((tokens[:, :1], tokens[:, 1:] + position.embedding), dim=1)
    torch.testing.assert_close(position(tokens, (H, W)), wanted)


def test_the_position_embedding_of_another_size_is_made_anew():
    position = SinePosition(8, (3, 5), 0)
    nn.init.zeros_(position.embedding)
    there = position(torch.zeros(1, 8, 8), (4, 2))
    torch.testing.assert_close(there, SinePosition(8, (4, 2), 0).embedding)
    assert position.requires_grad_()
    assert not SinePosition(8, (3, 5), 0, trainable=False).embedding.requires_grad
    with pytest.raises(OptionError, match="try width 12"):
        SinePosition(10, (3, 5), 0)


@pytest.mark.parametrize("pointwise", ["linear", "conv"])
@pytest.mark.parametrize(("depthwise", "residual"), [(True, True), (True, False), (False, False)])
def test_the_ffn(pointwise, depthwise, residual):
    ffn = ConvMLP(4, nn.ReLU, ratio=2, depthwise=depthwise, residual=residual, pointwise=pointwise).double()
    x = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    y = torch.einsum("oi,bihw->bohw", ffn.fc1.weight.flatten(1), x) + ffn.fc1.bias[:, None, None]
    if depthwise:
        local = F.conv2d(y, ffn.depthwise.weight, ffn.depthwise.bias, padding=1, groups=8)
        y = y + local if residual else local
    y = torch.einsum("oi,bihw->bohw", ffn.fc2.weight.flatten(1), y.relu()) + ffn.fc2.bias[:, None, None]
    torch.testing.assert_close(ffn(x), y)
    assert ffn.hidden_width == 8


def test_attention_with_a_local_branch():
    mixer = LepeAttention(8, heads=2).double()
    x = torch.randn(2, 8, 3, 4, dtype=torch.float64)
    tokens = x.flatten(2).mT
    q, (k, v) = mixer.q(tokens), mixer.kv(tokens).chunk(2, dim=-1)
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
        heads.append((q[..., part] @ k[..., part].mT / 2).softmax(-1) @ v[..., part])
    local = mixer.lepe.linear(tokens).mT.reshape(x.shape)
    local = F.conv2d(local, mixer.lepe.conv.weight, mixer.lepe.conv.bias, padding=1, groups=8)
    wanted = mixer.proj(torch.cat(heads, dim=-1) + local.flatten(2).mT).mT.reshape(x.shape)
    torch.testing.assert_close(mixer(x), wanted)
