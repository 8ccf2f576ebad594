"""FCViT: the mixer against plain loops, its ablations, the published counts, and the released network's logits."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import archspec
from archspec.blocks.channel_attention import ChannelAttention
from archspec.blocks.fcvit import FCViT
from archspec.blocks.pooled_attention import PooledAttention
from archspec.errors import OptionError
from archspec.weights import find_source, load_pretrained

from . import golden
from .golden import DATA

GOLDEN = ["classes=10"] + [
    f"stages[{stage}].{patch}"
    for stage, width in enumerate([16, 32, 64, 128])
    for patch in (f"width={width}", "depth=1")
]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def randomised(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.3)
    return module.double()


def build(width=16, **options):
    return randomised(FCViT(width, nn.GELU, **({"kernel": 3, "groups": 4} | options)))


def image(height=5, width=6, channels=16):
    """Not centred, so that positions resemble the mean."""
    return torch.randn(2, channels, height, width, dtype=torch.float64) + 0.3


def gelu(x):
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def plain_weights(x, groups, weight, bias):
    """Of the context, by group and position, for one image (C, H, W): group by group and position by position."""
    channels, height, width = x.shape
    size = channels // groups
    mean = [x[c].sum() / (height * width) for c in range(channels)]
    similarity = torch.zeros(groups, height, width, dtype=x.dtype)
    for g in range(groups):
        for row in range(height):
            for column in range(width):
                for c in range(g * size, (g + 1) * size):
                    similarity[g, row, column] += x[c, row, column] * mean[c] / math.sqrt(size)
    deviation = ((similarity - similarity.mean()) ** 2).sum() / (similarity.numel() - 1)
    standardised = (similarity - similarity.mean()) / (deviation.sqrt() + 1e-5)
    return torch.stack([standardised[g] * weight[g] + bias[g] for g in range(groups)])


def plain_vector(mean, vector, competition):
    hidden = vector.fc1.weight @ mean + vector.fc1.bias
    half = len(hidden) // 2
    hidden = torch.maximum(hidden[:half], hidden[half:]) if competition else gelu(hidden)
    return vector.fc2.weight @ hidden + vector.fc2.bias


def plain_round(x, module, context, competition):
    """One round for one image (C, H, W)."""
    channels, height, width = x.shape
    if context != "none":
        vector = plain_vector(x.mean((1, 2)), module.context.vector, competition)
        groups = module.context.groups if context == "dynamic" else 1
        weights = torch.ones(groups, height, width, dtype=x.dtype)
        if context == "dynamic":
            weights = plain_weights(x, groups, module.context.weight, module.context.bias)
        x = torch.stack([x[c] + weights[c * groups // channels] * vector[c] for c in range(channels)])
    kernel, reach = module.depthwise.weight[:, 0], module.depthwise.weight.shape[-1] // 2
    padded = F.pad(x, (reach,) * 4)
    y = torch.zeros_like(x)
    for row in range(height):
        for column in range(width):
            seen = padded[:, row : row + 2 * reach + 1, column : column + 2 * reach + 1]
            mixed = (seen * kernel).sum((1, 2)) + module.depthwise.bias
            hidden = gelu(module.fc1.weight[:, :, 0, 0] @ mixed + module.fc1.bias)
            y[:, row, column] = gelu(module.fc2.weight[:, :, 0, 0] @ hidden + module.fc2.bias)
    return y


@torch.no_grad()
@pytest.mark.parametrize("competition", [True, False])
@pytest.mark.parametrize(("context", "groups"), [("none", 4), ("static", 4), ("dynamic", 1), ("dynamic", 4)])
def test_the_mixer_is_its_formula(context, groups, competition):
    module, x = build(context=context, groups=groups, competition=competition), image()
    expected = []
    for one in x:
        for step in module.rounds:
            one = plain_round(one, step, context, competition)
        expected.append(one)
    torch.testing.assert_close(module(x), torch.stack(expected), rtol=1e-11, atol=1e-11)


@torch.no_grad()
def test_the_spatial_attention_is_a_gate_at_the_end():
    x = image(channels=32)
    module = build(32, spatial_attention=True)
    plain = module.rounds(x)
    gate = module.end
    y = F.conv2d(plain, gate.depthwise.weight, gate.depthwise.bias, padding=1, groups=32)
    hidden = gelu(torch.einsum("dc,bchw->bdhw", gate.fc1.weight[..., 0, 0], y) + gate.fc1.bias[:, None, None])
    assert hidden.shape[1] == 4  # an eighth of the width
    y = torch.einsum("cd,bdhw->bchw", gate.fc2.weight[..., 0, 0], hidden) + gate.fc2.bias[:, None, None]
    torch.testing.assert_close(module(x), plain / (1 + torch.exp(-y)))


@torch.no_grad()
def test_the_channel_attention_convolves_along_the_channels():
    module, x = randomised(ChannelAttention()), torch.randn(2, 7, 9, dtype=torch.float64)
    assert sum(parameter.numel() for parameter in module.parameters()) == 10
    means = F.pad(gelu(x).mean(1), (1, 1))
    first, second = module.conv1.weight[0, 0], module.conv2.weight[0, 0]
    hidden = torch.stack([means[:, c : c + 3] @ first for c in range(9)], dim=1) + module.conv1.bias
    hidden = F.pad(gelu(hidden), (2, 2))
    added = torch.stack([hidden[:, c : c + 5] @ second for c in range(9)], dim=1) + module.conv2.bias
    torch.testing.assert_close(module(x), x + added[:, None])


@torch.no_grad()
@pytest.mark.parametrize("pool", [2, 16])
def test_pooled_attention_sees_the_means_of_blocks(pool):
    module, x = randomised(PooledAttention(16, heads=2, head_width=4, pool=pool)), image(4, 6)
    seen = x if pool == 16 else x.reshape(2, 16, 2, 2, 2, 3).mean((3, 5))
    tokens, seen = x.flatten(2).mT, seen.flatten(2).mT
    q, kv = module.q(tokens), module.kv(seen)
    heads = []
    for h in range(2):
        query, key, value = (part[..., 4 * h : 4 * h + 4] for part in (q, kv[..., :8], kv[..., 8:]))
        heads.append((query @ key.mT / 2).softmax(-1) @ value)
    expected = module.proj(torch.cat(heads, dim=-1)).mT.unflatten(2, (4, 6))
    torch.testing.assert_close(module(x), expected)


ABLATIONS = [
    *({"context": context} for context in ("none", "static", "dynamic")),
    {"competition": False},
    *({"groups": groups} for groups in (1, 4, 8, 16, 32)),
    *({"kernel": kernel} for kernel in range(3, 14, 2)),
    *({"rounds": rounds} for rounds in (1, 2, 3)),
    {"spatial_attention": True},
]


@pytest.mark.parametrize("options", ABLATIONS, ids=str)
def test_every_ablation_learns(options):
    module = FCViT(32, nn.GELU, **options)
    x = image(channels=32).float().requires_grad_()
    y = module(x)
    assert y.shape == x.shape
    assert len(module.rounds) == options.get("rounds", 2)
    y.square().sum().backward()
    for name, leaf in [("x", x), *module.named_parameters()]:
        assert leaf.grad.isfinite().all(), name
        assert leaf.grad.abs().max() > 0, name


@pytest.mark.parametrize("shape", [(2, 32, 4, 4), (2, 32, 1, 1)])
@pytest.mark.parametrize("groups", [1, 8])
def test_an_even_image_has_finite_gradients(shape, groups):
    module, x = FCViT(32, nn.GELU, groups=groups), torch.zeros(shape, requires_grad=True)
    module(x).sum().backward()
    assert all(leaf.grad.isfinite().all() for leaf in (x, *module.parameters()))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"kernel": 4}, "kernel: 4 is even"), ({"groups": 5}, "groups: 5 does not divide")],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(OptionError, match=message):
        FCViT(16, nn.GELU, **options)


def cost(name, *sets):
    return archspec.count(archspec.make_plan(name, sets=sets))


@pytest.mark.parametrize(
    ("name", "params", "macs", "ops"),
    [
        ("fcvit_tiny", 4.785, 0.902, 0.908),
        ("fcvit_b12", 14.702, 2.645, 2.657),
        ("fcvit_b24", 26.960, 5.059, 5.080),
        ("fcvit_b48", 51.477, 9.885, 9.927),
    ],
)
def test_the_released_counts(name, params, macs, ops):
    found = cost(name)
    assert (round(found.params / 1e6, 3), round(found.macs / 1e9, 3), round(found.ops / 1e9, 3)) == (params, macs, ops)


def in_binary_units(*sets):
    found = cost("fcvit_tiny", *sets)
    return round(found.params / 2**20, 3), round(found.ops / 2**30, 2)


@pytest.mark.parametrize(
    ("mixer", "params"),
    [
        (("context=none", "competition=false"), 4.233),
        (("context=static", "competition=false"), 4.402),
        (("context=dynamic", "competition=false"), 4.403),
        (("context=dynamic", "competition=true"), 4.486),
    ],
)
def test_the_counts_of_table_2(mixer, params):
    patches = (f"defaults.mixer.{option}" for option in mixer)
    assert in_binary_units("defaults.ffn.depthwise=false", *patches) == (params, 0.81)


@pytest.mark.parametrize(("kernel", "depth", "ops"), [(3, 9, 0.88), (11, 7, 0.94)])
def test_the_counts_of_table_9(kernel, depth, ops):
    patches = ("defaults.mixer.context=none", f"defaults.mixer.kernel={kernel}", f"stages[2].depth={depth}")
    assert in_binary_units(*patches) == (4.815, ops)


def test_the_similarity_costs_a_product_of_the_width_at_each_position():
    dynamic, static = (cost("fcvit_tiny", f"defaults.mixer.context={context}") for context in ("dynamic", "static"))
    stages = ((32, 3, 56), (64, 3, 28), (160, 5, 14), (320, 2, 7))
    assert dynamic.macs - static.macs == sum(2 * depth * width * side**2 for width, depth, side in stages)


def test_the_channel_attention_of_table_7_adds_ten_parameters_to_a_block():
    patch = "defaults.modifiers=[{type: channel_attention, at: ffn.end}]"
    assert cost("fcvit_tiny", patch).params - cost("fcvit_tiny").params == 13 * 10


def test_the_attention_of_table_9_builds():
    network = archspec.build(
        archspec.make_plan("fcvit_tiny", sets=["defaults.mixer={type: pooled_attention, head_width: 32}"], size=64)
    )
    assert network(torch.zeros(1, 3, 64, 64)).isfinite().all()


def tiny(size=64, **defaults):
    sets = [*GOLDEN, *(f"defaults.{key.replace('__', '.')}={value}" for key, value in defaults.items())]
    return archspec.build(archspec.make_plan("fcvit_tiny", sets=sets, size=size))


def test_convolutions_start_by_their_fan_out_and_the_rescaling_at_one():
    network = archspec.build("fcvit_tiny")
    mixer = network.stages[2].blocks[0].mixer.body.rounds[0]
    assert mixer.depthwise.weight.std().item() == pytest.approx(math.sqrt(2 / 121), rel=0.05)
    fc1 = network.stages[2].blocks[0].ffn.body.fc1.weight
    assert fc1.std().item() == pytest.approx(math.sqrt(2 / 640), rel=0.05)
    assert mixer.context.vector.fc1.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert mixer.context.weight.tolist() == [1.0] * 8
    assert mixer.context.bias.tolist() == [0.0] * 8
    rates = [getattr(block.mixer.drop_path, "rate", 0) for stage in network.stages for block in stage.blocks]
    assert rates == pytest.approx([0.1 * index / 12 for index in range(13)])


@torch.no_grad()
def test_the_released_network_gives_its_logits():
    expected = golden.expected("fcvit")
    network = archspec.build(archspec.make_plan("fcvit_tiny", sets=GOLDEN))
    report = load_pretrained(network, DATA / "fcvit.pth", source="fcvit")
    assert not list(report.lines())
    assert sum(parameter.numel() for parameter in network.parameters()) == expected["params"]
    x = golden.image()
    torch.testing.assert_close(network.double()(x), torch.tensor(expected["logits"], dtype=x.dtype), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("patches", "renamed"),
    [
        (
            {"mixer__competition": "false"},
            {
                "token_mixer.gc1.fc.0.weight": "mixer.body.rounds.0.context.vector.fc1.weight",
                "token_mixer.gc2.fc.2.bias": "mixer.body.rounds.1.context.vector.fc2.bias",
            },
        ),
        (
            {"mixer__spatial_attention": "true", "modifiers": "[{type: channel_attention, at: ffn.end}]"},
            {
                "token_mixer.spatial_att.spatial_att.0.weight": "mixer.body.end.depthwise.weight",
                "token_mixer.spatial_att.spatial_att.1.weight": "mixer.body.end.fc1.weight",
                "token_mixer.spatial_att.spatial_att.3.bias": "mixer.body.end.fc2.bias",
                "channel_mixer.channel_att.channelConv1.weight": "ffn.end.0.conv1.weight",
                "channel_mixer.channel_att.channelConv2.bias": "ffn.end.0.conv2.bias",
            },
        ),
    ],
)
def test_the_names_of_the_ablations_are_known(patches, renamed):
    names, source = tiny(**patches).state_dict(), find_source("fcvit")
    for theirs, ours in renamed.items():
        name = source.rename(f"network.4.0.{theirs}", last=3)
        assert name == f"stages.2.blocks.0.{ours}"
        assert name in names


@torch.no_grad()
@pytest.mark.parametrize("size", [(192, 192), (256, 256), (256, 320), (75, 33)])
def test_other_sizes_run(size):
    assert tiny(224)(torch.randn(1, 3, *size)).isfinite().all()


@torch.no_grad()
def test_compiles_in_one_graph():
    network, x = tiny(), torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(torch.compile(network, fullgraph=True, backend="eager")(x), network(x))


@torch.no_grad()
@pytest.mark.slow
def test_export_with_any_number_of_images():
    network, x = tiny(), torch.randn(2, 3, 64, 64)
    exported = torch.export.export(network, (x,), dynamic_shapes={"image": {0: torch.export.Dim("images", min=1)}})
    for images in (x, torch.randn(3, 3, 64, 64)):
        torch.testing.assert_close(exported.module()(images), network(images))


def test_bfloat16_autocast_trains():
    network = tiny(layer_scale=1).train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = network(torch.randn(4, 3, 64, 64)).float().square().mean()
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
