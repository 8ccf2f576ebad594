"""Any mixer with any stem, downsampler, FFN, position, norm and modifier: random networks at small size."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
import torch
import yaml

from archspec import api, registry
from archspec.cost import count_params, module_cost
from archspec.errors import SpecError
from archspec.loading import load_text
from archspec.network import Network
from archspec.resolved import to_yaml
from archspec.spec import POSITIONS


def names(kind: str) -> list[str]:
    return registry.names(kind)


def random_spec(dice: random.Random) -> dict[str, Any]:
    """Two or three stages of one to three blocks, everything drawn from the registry, some of it per block."""
    stages = []
    width = dice.choice([16, 32, 48])
    for index in range(dice.randint(2, 3)):
        depth = dice.randint(1, 3)
        stage: dict[str, Any] = {"width": width, "depth": depth, "mixer": mixers(dice), "position": position(dice)}
        if index:
            stage["downsample"] = dice.choice(names("downsample"))
        if dice.random() < 0.15:
            stage["class_token"] = True
        if dice.random() < 0.4:
            stage["modifiers"] = [{"type": dice.choice(names("modifier")), "at": dice.choice(POSITIONS)}]
        if dice.random() < 0.3:
            stage["blocks"] = {-1: {"ffn": dice.choice(["none", *names("ffn")]), "layer_scale": 0.1}}
        if dice.random() < 0.5:
            stage["norm_out"] = dice.choice(names("norm"))
        stages.append(stage)
        width *= dice.choice([1, 2, 2])
    defaults = {"norm": dice.choice(names("norm")), "act": dice.choice(names("act")), "ffn": dice.choice(names("ffn"))}
    return {
        "archspec": 1,
        "name": "random",
        "input": {"size": [dice.choice([32, 48]), dice.choice([32, 40])]},
        "classes": 3,
        "drop_path": dice.choice([0.0, 0.1]),
        "defaults": defaults,
        "stem": dice.choice([{"type": "patch", "kernel": 4}, "conv2", "conv3"]),
        "stages": stages,
        "head": dice.choice(names("head")),
    }


def mixers(dice: random.Random) -> Any:
    """One, or a list to cycle; now and then one that hands something to the next."""
    drawn = [dice.choice(["none", *names("mixer")]) for _ in range(dice.choice([1, 1, 2, 3]))]
    if "self_guided" in drawn:
        drawn.insert(0, "hybrid_scale")
    return drawn if len(drawn) > 1 else drawn[0]


def position(dice: random.Random) -> str:
    return dice.choice(["none", "none", *names("position")])


def attempt(spec: dict[str, Any]) -> str:
    """Whether it was built, or the reason why not."""
    text = yaml.safe_dump(spec, sort_keys=False)
    try:
        plan = api.make_plan(load_text(text))
    except SpecError as error:
        return "" if any(not (one.place and one.path) for one in error.problems) else error.problems[0].rule
    torch.manual_seed(0)
    network = api.build(plan, seed=0).train()
    image = torch.randn(2, 3, *plan.source.grid)
    logits = network(image)
    assert logits.shape == (2, 3), text
    logits.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert not parameter.requires_grad or parameter.grad is not None, (name, text)
        assert parameter.grad is None or parameter.grad.isfinite().all(), (name, text)
    cost = api.count(plan)
    with torch.device("meta"):
        whole = Network(plan).eval()
        assert module_cost(whole, torch.empty(1, 3, *plan.source.grid)) == cost, text
    assert count_params(network) == (cost.params, cost.fixed_params), text
    assert api.make_plan(load_text(to_yaml(plan.spec))) == plan, text
    return "built"


@pytest.mark.parametrize(
    ("seed", "count"), [(0, 12), *(pytest.param(seed, 50, marks=pytest.mark.slow) for seed in range(1, 11))]
)
def test_a_random_composition_works_or_is_refused_with_a_reason(seed, count):
    dice = random.Random(seed)
    outcomes = Counter(attempt(random_spec(dice)) for _ in range(count))
    assert "" not in outcomes, "a refusal without a place or a path"
    assert outcomes["built"] >= count * 0.3, outcomes
