"""PartialFormer: the published tables, the mixer token by token, and what the foreground is."""

import math
import time

import pytest
import torch
from archspec.blocks.mixed_attention import HeadMixing, MixedAttention
from archspec.blocks.partial import PartialAttention
from archspec.blocks.single_query import SingleQueryAttention

from archspec import api
from archspec.counting import trace
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
    """(parameters, MACs) of Kirillov et al.'s decoder on maps of width, 2*width, ... at strides 4 to 32."""
    places = [grid[0] * grid[1] // 4**level for level in range(4)]
    lateral = [width * 2**level * dim for level in range(4)]
    smooth, first, later = 9 * dim * dim, 9 * dim * half, 9 * half * half
    macs = sum(n * (one + smooth + first) for n, one in zip(places, lateral, strict=True))
    macs += later * (places[1] + places[2] + places[1]) + classes * half * places[0]  # one at 1/16, two at 1/32
    convolutions = [2 * half] * 7  # each with a batch norm
    params = sum(lateral) + 4 * dim + 4 * (smooth + dim) + 4 * first + 3 * later + sum(convolutions)
    return params + half * classes + classes, macs


@pytest.mark.parametrize(("name", "width", "params", "macs"), [("b1", 32, 10.8, 101.8), ("b2", 48, 23.5, 131.3)])
def test_semantic_segmentation_costs_what_table_5_7_says(name, width, params, macs):
    cost, (decoder_params, decoder_macs) = backbone(name, (512, 2048)), semantic_fpn(width, (128, 512))
    assert (cost.params + decoder_params) / 1e6 == pytest.approx(params, abs=0.06)
    assert (cost.macs + decoder_macs) / 1e9 == pytest.approx(macs, rel=2e-3)
