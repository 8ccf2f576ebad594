"""The plain parts of the host networks (ViT, PiT, MLP-Mixer, pyramids) against formulas, torch and timm."""

from __future__ import annotations

import pytest
import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from archspec.blocks.acts import GELU, HardSwish, ReLU, SiLU
from archspec.blocks.downsamplers import ConvPool, PatchDownsample, PitPool
from archspec.blocks.ffns import MLP
from archspec.blocks.heads import LinearHead
from archspec.blocks.norms import BatchNorm, GroupNorm, LayerNorm, MapLayerNorm
from archspec.blocks.positions import LearnedPosition
from archspec.blocks.stems import PatchStem
from archspec.blocks.token_mlp import TokenMLP
from archspec.errors import OptionError, UsageError
from archspec.layout import to_map, to_tokens

GRID = (3, 5)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def test_token_mlp_is_a_perceptron_along_the_tokens() -> None:
    block = TokenMLP(8, GRID, 1, nn.GELU, ratio=0.5).double()
    assert block.fc1.weight.shape == (4, 16)
    x = random(2, 16, 8)
    expected = torch.empty_like(x)
    for image in range(2):
        for channel in range(8):
            hidden = block.fc1.weight @ x[image, :, channel] + block.fc1.bias
            hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
            expected[image, :, channel] = block.fc2.weight @ hidden + block.fc2.bias
    torch.testing.assert_close(block(x), expected)


def test_token_mlp_refuses_another_size() -> None:
    block = TokenMLP(8, GRID, 0, nn.GELU)
    with pytest.raises(UsageError, match=r"15 tokens \(3×5 map\) and was given 16: it cannot take another input size"):
        block(torch.zeros(1, 16, 8))


def test_mlp_is_two_linears_with_room_for_a_modifier() -> None:
    block = MLP(6, nn.ReLU, ratio=2.5).double()
    assert block.hidden_width == 15
    x = random(2, 4, 6)
    hidden = (x @ block.fc1.weight.T + block.fc1.bias).clamp(min=0)
    torch.testing.assert_close(block(x), hidden @ block.fc2.weight.T + block.fc2.bias)
    block.middle = nn.Tanh()
    torch.testing.assert_close(block(x), hidden.tanh() @ block.fc2.weight.T + block.fc2.bias)
    assert set(MLP(6, nn.ReLU, bias=False).state_dict()) == {"fc1.weight", "fc2.weight"}


def randomised(module: nn.Module) -> nn.Module:
    for weight in module.parameters():
        nn.init.normal_(weight)
    return module.double()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (BatchNorm(6, eps=1e-3, momentum=0.3), nn.BatchNorm2d(6, eps=1e-3, momentum=0.3)),
        (GroupNorm(6), nn.GroupNorm(1, 6)),
        (GroupNorm(6, groups=3, eps=1e-2), nn.GroupNorm(3, 6, eps=1e-2)),
    ],
)
def test_norms_of_tokens_are_torch_s_norms_of_maps(ours: nn.Module, theirs: nn.Module) -> None:
    ours, theirs = ours.double(), randomised(theirs)
    ours.load_state_dict(theirs.state_dict())
    x = 3 * random(2, 15, 6) + 1
    for training in (True, False):  # evaluation uses what training has left in the running figures
        y = ours.train(training)(x)
        assert y.is_contiguous()
        torch.testing.assert_close(to_map(y, GRID), theirs.train(training)(to_map(x, GRID)))
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_layer_norm_is_over_the_channels_of_tokens_and_maps() -> None:
    norm, of_map = randomised(LayerNorm(6, eps=1e-3)), MapLayerNorm(6, eps=1e-3).double()
    of_map.load_state_dict(norm.state_dict())
    x = random(2, 15, 6)
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, correction=0)
    expected = (x - mean) / (variance + 1e-3).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(norm(x), expected)
    torch.testing.assert_close(to_tokens(of_map(to_map(x, GRID))), expected)


def test_group_norm_refuses_groups_that_do_not_divide() -> None:
    with pytest.raises(OptionError, match="groups: 4 does not divide the width 6"):
        GroupNorm(6, groups=4)


def test_activations_follow_their_formulas() -> None:
    x = torch.linspace(-5, 5, 41, dtype=torch.float64)
    torch.testing.assert_close(GELU()(x), x * (1 + torch.erf(x / 2**0.5)) / 2)
    tanh = torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))
    torch.testing.assert_close(GELU(approximate="tanh")(x), x * (1 + tanh) / 2)
    torch.testing.assert_close(ReLU()(x), x.clamp(min=0))
    torch.testing.assert_close(SiLU()(x), x / (1 + torch.exp(-x)))
    torch.testing.assert_close(HardSwish()(x), x * (x + 3).clamp(0, 6) / 6)


@pytest.mark.parametrize("class_token", [True, False])
def test_position_is_added_where_it_belongs(class_token: bool) -> None:
    position = LearnedPosition(4, GRID, 2, class_token=class_token, std=1.0, distribution="normal").double()
    x = random(2, 17, 4)
    added = position(x, GRID) - x
    expected = position.embedding if class_token else torch.cat((torch.zeros(1, 2, 4), position.embedding), dim=1)
    assert position.embedding.shape == (1, 17 if class_token else 15, 4)
    torch.testing.assert_close(added, expected.expand(2, -1, -1).double())


@pytest.mark.parametrize("grid", [(6, 4), (2, 2), (5, 3)])
@pytest.mark.parametrize("prefix_tokens", [0, 1, 2])
def test_position_is_resized_as_timm_does(grid: tuple[int, int], prefix_tokens: int) -> None:
    position = LearnedPosition(4, GRID, prefix_tokens, std=1.0)
    x = torch.zeros(1, prefix_tokens + grid[0] * grid[1], 4)
    expected = resample_abs_pos_embed(position.embedding, list(grid), list(GRID), num_prefix_tokens=prefix_tokens)
    torch.testing.assert_close(position(x, grid), expected)
    bare = LearnedPosition(4, GRID, prefix_tokens, class_token=False, std=1.0)
    expected = resample_abs_pos_embed(bare.embedding, list(grid), list(GRID), num_prefix_tokens=0)
    torch.testing.assert_close(bare(x, grid)[:, prefix_tokens:], expected)
    assert not bare(x, grid)[:, :prefix_tokens].any()


SIZES = [(16, 16), (17, 23), (31, 16), (19, 40)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "options",
    [
        {"kernel": 16, "stride": None, "padding": 0},
        {"kernel": 4, "stride": None, "padding": 0, "bias": False, "norm": "batch", "act": "relu"},
        {"kernel": 14, "stride": 7, "padding": 0, "norm": "layer", "act": "gelu"},
        {"kernel": 7, "stride": 4, "padding": 3},
    ],
)
def test_stem_output_grid_is_the_real_one(size: tuple[int, int], options: dict) -> None:
    y = PatchStem(3, 4, **options)(torch.zeros(2, 3, *size))
    assert y.shape == (2, 4, *PatchStem.output_grid(size, options))


def test_stem_is_a_convolution_then_norm_then_activation() -> None:
    stem = PatchStem(3, 4, kernel=2, norm="batch", act="relu").double().eval()
    nn.init.normal_(stem.norm.running_mean)
    x = random(2, 3, 6, 4)
    y = nn.functional.conv2d(x, stem.conv.weight, stem.conv.bias, stride=2)
    expected = ((y - stem.norm.running_mean[:, None, None]) / (1 + 1e-5) ** 0.5).clamp(min=0)
    torch.testing.assert_close(stem(x), expected)


def test_an_image_smaller_than_the_kernel_is_refused() -> None:
    with pytest.raises(OptionError, match=r"kernel: 16 does not fit into the 12×20 input \(at most 12\)"):
        PatchStem.output_grid((12, 20), {"kernel": 16, "stride": None, "padding": 0})
    assert PatchStem.output_grid((12, 20), {"kernel": 16, "stride": None, "padding": 2}) == (1, 1)


@pytest.mark.parametrize("grid", [(14, 14), (7, 9), (31, 31), (2, 3)])
@pytest.mark.parametrize(
    ("cls", "options"),
    [(PatchDownsample, {"kernel": 3, "stride": 2, "padding": 1, "norm": "batch"}), (ConvPool, {}), (PitPool, {})],
)
def test_downsampler_output_grid_is_the_real_one(cls: type, options: dict, grid: tuple[int, int]) -> None:
    y = cls(4, 8, **options)(torch.zeros(2, 4, *grid))
    assert y.shape == (2, 8, *cls.output_grid(grid, options))


def test_conv_pool_is_convolution_maximum_norm() -> None:
    block = ConvPool(2, 4).double()
    x = random(1, 2, 5, 4)
    y = nn.functional.conv2d(x, block.conv.weight, block.conv.bias, padding=1)
    pooled = torch.stack([y[..., 0:4:2, 0::2], y[..., 0:4:2, 1::2], y[..., 1:4:2, 0::2], y[..., 1:4:2, 1::2]]).amax(0)
    mean, variance = pooled.mean(1, keepdim=True), pooled.var(1, keepdim=True, correction=0)
    torch.testing.assert_close(block(x), (pooled - mean) / (variance + 1e-5).sqrt())
    with pytest.raises(OptionError, match="cannot halve a 1×9 map"):
        ConvPool.output_grid((1, 9), {})


def test_pit_pool_widens_each_channel_by_itself_and_the_class_token_by_a_linear() -> None:
    block = PitPool(2, 4, 1).double()
    x, tokens = random(1, 2, 5, 4), random(1, 3, 2)
    parts = [nn.functional.conv2d(x[:, [c // 2]], block.conv.weight[[c]], stride=2, padding=1) for c in range(4)]
    torch.testing.assert_close(block(x), torch.cat(parts, dim=1) + block.conv.bias[:, None, None])
    torch.testing.assert_close(block.prefix_tokens(tokens), tokens @ block.fc.weight.T + block.fc.bias)
    with pytest.raises(OptionError, match=r"makes a multiple of the 4 channels before, which 9 is not \(try width 8\)"):
        PitPool(4, 9)


def test_head_takes_the_mean_of_the_map_or_the_class_token() -> None:
    x = random(2, 7, 4)
    mean, token = LinearHead(4, 3, 2).double(), LinearHead(4, 3, 2, pool="token").double()
    torch.testing.assert_close(mean.features(x), sum(x[:, i] for i in range(2, 7)) / 5)
    torch.testing.assert_close(token.features(x), x[:, 0], rtol=0, atol=0)
    torch.testing.assert_close(mean(x), mean.features(x) @ mean.classifier.weight.T + mean.classifier.bias)
    assert isinstance(LinearHead(4, 0, 0).classifier, nn.Identity)
    with pytest.raises(OptionError, match="pool: token needs a class token"):
        LinearHead(4, 3, 0, pool="token")
