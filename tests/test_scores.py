"""Zero-cost scores against their published definitions: by hand, by plain loops, or in expectation."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from archspec import api, registry
from archspec.errors import EvaluationError, UnknownName, UsageError
from archspec.loading import shipped
from archspec.modules import Branch, _on_tokens
from archspec.search.scores import SCORES, score

MICRO = [name for name in shipped() if "_micro" in name]


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def _batch(count: int, *shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    return _random(count, *shape), torch.arange(count) % 3


def _linear(*widths: int, between: tuple[nn.Module, ...] = (), bias: bool = True) -> nn.Sequential:
    torch.manual_seed(1)
    layers = [nn.Linear(*pair, bias=bias) for pair in itertools.pairwise(widths)]
    return nn.Sequential(nn.Flatten(), layers[0], *(part for layer in layers[1:] for part in (*between, layer)))


def _mean_chi(dimensions: float, power: int = 1) -> float:
    """E |z|^power for z normal in that many dimensions."""
    log = math.lgamma((dimensions + power) / 2) - math.lgamma(dimensions / 2)
    return 2 ** (power / 2) * math.exp(log)


def test_parameters_are_those_of_the_plan():
    network = api.build("nommer_micro")
    assert score("params", network, *_batch(2, 1, 32, 32)) == api.count("nommer_micro").params


def test_gradient_norm_of_a_linear_classifier_by_hand():
    network = _linear(4, 3)
    images, labels = _batch(5, 1, 2, 2)
    x = images.flatten(1).double().numpy()
    weight, bias = (p.detach().double().numpy() for p in network.parameters())
    logits = x @ weight.T + bias
    wrong = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - np.eye(3)[labels]
    expected = np.linalg.norm(wrong.T @ x / 5) + np.linalg.norm(wrong.mean(0))
    assert score("gradient_norm", network, images, labels) == pytest.approx(expected, rel=1e-6)


def test_gradient_norm_takes_batch_norms_as_training_does():
    network = api.build("emsnet_micro", seed=3)
    images, labels = _batch(4, 1, 32, 32)
    found = score("gradient_norm", network, images, labels)
    F.cross_entropy(network.train()(images), labels).backward()
    assert found == pytest.approx(sum(float(p.grad.norm()) for p in network.parameters()), rel=1e-4)


@pytest.mark.parametrize(
    "between", [(), (nn.ReLU(),), (nn.LayerNorm(3),), (nn.BatchNorm1d(3), nn.ReLU())], ids=["plain", "relu", "ln", "bn"]
)
def test_synflow_of_a_chain_is_the_product_of_its_absolute_weights_once_for_each_layer(between):
    network = _linear(4, 3, 2, between=between, bias=False)
    first, last = (layer.weight.detach().double().abs() for layer in network if isinstance(layer, nn.Linear))
    product = float(torch.ones(2, dtype=torch.float64) @ last @ first @ torch.ones(4, dtype=torch.float64))
    assert score("synflow", network, *_batch(2, 1, 2, 2)) == pytest.approx(2 * product, rel=1e-12)


class Scale(nn.Module):
    def __init__(self, *factors: float, copies: int = 1):
        super().__init__()
        self.factors, self.copies = torch.tensor(factors), copies

    def forward(self, x):
        return x.repeat(1, self.copies, 1, 1) * self.factors[:, None, None]


class Written(nn.Module):
    """Attention of one head, with the softmax written out."""

    def __init__(self, attention: nn.Module):
        super().__init__()
        self.attention = attention

    def forward(self, x):
        q, k, v = self.attention.qkv(x).chunk(3, dim=-1)
        return self.attention.proj((q @ k.mT).softmax(-1) @ v)


@pytest.mark.parametrize("wrap", [lambda attention: attention, Written], ids=["fused", "written"])
def test_synflow_passes_through_the_mean_of_the_values_of_attention(wrap):
    torch.manual_seed(0)
    attention = registry.find("mixer", "attention").cls(4, heads=1, qkv_bias=False, proj_bias=False)
    values, out = (weight.detach().double().abs() for weight in (attention.qkv.weight[8:], attention.proj.weight))
    tokens = (1.0, 2.0, 6.0)
    expected = 2 * sum(tokens) * float((out @ values).sum())
    network = nn.Sequential(Scale(*tokens), nn.Flatten(2), wrap(attention))
    assert score("synflow", network, *_batch(2, 3, 2, 2)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.slow
def test_synflow_of_a_deep_network_does_not_overflow():
    assert math.isfinite(score("synflow", api.build("sgformer_s"), *_batch(2, 3, 224, 224)))


def _codes(network: nn.Sequential, images: torch.Tensor) -> list[list[bool]]:
    """Which of the inputs of activations are positive, image by image."""
    codes = []
    for image in images:
        x, code = image[None], []
        for layer in network:
            if isinstance(layer, nn.ReLU | nn.GELU):
                code += [value > 0 for value in x.flatten().tolist()]
            x = layer(x)
        codes.append(code)
    return codes


def test_naswot_is_the_determinant_of_a_kernel_of_hamming_distances():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(12, 9), nn.GELU())
    images, labels = _batch(6, 1, 4, 4)
    codes = _codes(network, images)
    kernel = [[len(a) - sum(p != q for p, q in zip(a, b, strict=True)) for b in codes] for a in codes]
    assert len(codes[0]) == 12 + 9
    expected = math.log(abs(np.linalg.det(np.array(kernel, dtype=float))))
    assert score("naswot", network, images, labels) == pytest.approx(expected, rel=1e-9)


def test_naswot_sees_activations_that_are_functions():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 16)

        def forward(self, x):
            return F.hardswish(self.layer(x.flatten(1)))

    torch.manual_seed(0)
    functional = Functional()
    module = nn.Sequential(nn.Flatten(), functional.layer, nn.Hardswish())
    batch = _batch(3, 1, 2, 2)
    assert score("naswot", functional, *batch) == score("naswot", module, *batch)


def test_naswot_of_images_or_networks_that_it_cannot_tell_apart_is_an_error():
    images, labels = _batch(4, 1, 2, 2)
    with pytest.raises(EvaluationError, match=r"naswot: .*same codes"):
        score("naswot", nn.Sequential(*_linear(4, 8), nn.ReLU()), images[:1].repeat(4, 1, 1, 1), labels)
    with pytest.raises(EvaluationError, match="no activation"):
        score("naswot", _linear(4, 8), images, labels)


def _mean_zen(network: nn.Module, *shape: int, count: int = 32, seeds: int = 24) -> float:
    """exp(score) / a, over several draws of weights."""
    batch = _batch(count, *shape)
    return sum(math.exp(score("zen", network, *batch, seed=seed)) for seed in range(seeds)) / seeds / 0.01


def test_zen_of_a_linear_layer_is_the_mean_length_of_a_random_image_of_the_noise():
    # W e for a given e is normal with deviation |e|, so that E |W e| = E |e| E |z|
    assert _mean_zen(_linear(16, 8), 1, 4, 4) == pytest.approx(_mean_chi(16) * _mean_chi(8), rel=0.03)


def test_zen_gives_back_what_a_batch_norm_divides_by():
    plain = nn.Sequential(nn.Conv2d(1, 1, 4))
    normed = nn.Sequential(nn.Conv2d(1, 1, 4), nn.BatchNorm2d(1))
    found = _mean_zen(normed, 1, 4, 4, count=512)
    assert found == pytest.approx(_mean_zen(plain, 1, 4, 4, count=512), rel=0.01)


def test_zen_of_a_layer_norm_gives_back_the_mean_variance():
    # W has almost orthogonal columns of length sqrt(m): the norm takes away the noise along x, and divides by |x|
    d, m = 16, 1024
    expected = math.sqrt(m) * _mean_chi(d - 1) * math.sqrt(d) * _mean_chi(d, power=-1)
    assert _mean_zen(nn.Sequential(*_linear(d, m), nn.LayerNorm(m)), 1, 4, 4) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(2), nn.GroupNorm(2, 2), nn.InstanceNorm2d(2)])
def test_zen_takes_the_mean_of_the_variances_of_a_norm(norm):
    """Of two equal channels one is made ten times as large: (1 + 100) / 2 times the variance, the same behind it."""

    def build(large: float) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(1, 1, 3), Scale(1, large, copies=2), norm, nn.Conv2d(2, 3, 1))

    batch = _batch(8, 1, 5, 5)
    found = score("zen", build(10), *batch) - score("zen", build(1), *batch)
    assert found == pytest.approx(0.5 * math.log(50.5), rel=1e-4)


def test_zen_removes_the_links_around_branches():
    class Linked(nn.Module):
        def __init__(self, body: nn.Module):
            super().__init__()
            rest = dict.fromkeys(("norm", "front", "end", "scale", "drop_path"), nn.Identity())
            self.branch = Branch(body, **rest, call=_on_tokens)

        def forward(self, x):
            return self.branch(x.flatten(2), (2, 2), {})[0]

    bare = nn.Sequential(nn.Flatten(2), nn.Linear(4, 4))
    batch = _batch(4, 3, 2, 2)
    assert score("zen", Linked(nn.Linear(4, 4)), *batch) == pytest.approx(score("zen", bare, *batch))


@pytest.mark.parametrize("name", MICRO)
def test_scores_of_the_micro_networks_are_finite_and_follow_from_the_seed(name):
    network = api.build(name, seed=0)
    batch = _batch(8, *([network.plan.source.width, *network.plan.source.grid]))
    for each in SCORES:
        found = score(each, network, *batch, seed=1)
        assert math.isfinite(found)
        assert found == score(each, network, *batch, seed=1)


def test_only_zen_draws_anything():
    network, batch = _linear(4, 8, 3, between=(nn.ReLU(),)), _batch(4, 1, 2, 2)
    assert [each for each in SCORES if score(each, network, *batch) != score(each, network, *batch, seed=1)] == ["zen"]


@pytest.mark.parametrize("name", SCORES)
def test_nothing_is_left_behind(name):
    network = api.build("emsnet_micro", seed=0).train()
    images, labels = _batch(4, 1, 32, 32)
    F.cross_entropy(network(images), labels).backward()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    gradients = [weight.grad.clone() for weight in network.parameters()]
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    with torch.no_grad():
        score(name, network, images, labels, seed=5)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert all(torch.equal(w.grad, g) for w, g in zip(network.parameters(), gradients, strict=True))
    assert all(module.training for module in network.modules())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]


def test_an_unknown_score_is_answered_with_the_nearest():
    with pytest.raises(UnknownName, match=r"'synflw'.*synflow"):
        score("synflw", _linear(4, 3), *_batch(2, 1, 2, 2))


@pytest.mark.parametrize(("images", "labels"), [((1, 1, 2, 2), (1,)), ((4, 4), (4,)), ((4, 1, 2, 2), (3,))])
def test_a_batch_that_is_none_is_the_users_mistake(images, labels):
    with pytest.raises(UsageError, match=r"images .* labels"):
        score("naswot", _linear(4, 3), torch.zeros(images), torch.zeros(labels, dtype=torch.long))


def test_weights_that_are_no_numbers_give_no_score():
    network = _linear(4, 3)
    nn.init.constant_(network[1].weight, math.nan)
    with pytest.raises(EvaluationError, match="gradient_norm: the score is nan"):
        score("gradient_norm", network, *_batch(2, 1, 2, 2))
